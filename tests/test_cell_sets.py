import torch

from state_rag.cell_sets import read_sets
from tests import tiny_model as tiny


def read(perturbations, size=tiny.CELLS):
    return read_sets(
        tiny.batch(perturbations), tiny.knowledge(), frozenset({tiny.CONTROL}), input_dim=tiny.GENES, size=size
    )


def test_controls_keep_their_place_but_are_not_retrieved_for():
    sets = read(("GENE3", tiny.CONTROL, "GENE1"))
    assert sets.names == ["GENE3", tiny.CONTROL, "GENE1"]
    assert sets.rows.tolist() == [3, -1, 1]
    assert sets.places == [0, 2]
    assert sets.asking == ["GENE3", "GENE1"]
    assert sets.basal.shape == (3, tiny.CELLS, tiny.GENES)


def test_without_a_size_the_batch_is_one_set():
    sets = read(("GENE3", "GENE3"), size=None)
    assert sets.basal.shape == (1, 2 * tiny.CELLS, tiny.GENES)
    assert torch.equal(sets.rows, torch.tensor([3]))
