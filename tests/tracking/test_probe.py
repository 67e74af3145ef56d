import pytest
import torch

from state_rag.tracking.observation import MAX_CELL_TYPES
from state_rag.tracking.probe import MAX_PERTURBATIONS, Answer, Probe
from tests import tiny_model as tiny
from tests.tracking.training import LINES, batch


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_every_line_is_asked_with_the_cells_that_were_seen_of_it_first(mode):
    model, probe = tiny.build(mode).eval(), Probe()
    for seed in range(3):
        probe.see(model, batch(seed))
    answer = probe.ask(model, ["GENE1", "GENE2"])
    assert answer.cell_types == sorted(LINES)
    first = batch(0)["ctrl_cell_emb"].reshape(-1, tiny.CELLS, tiny.GENES)
    for place, line in enumerate(answer.cell_types):
        seen = model.retrieve_for(["GENE1", "GENE2"], first[LINES.index(line)])
        torch.testing.assert_close(answer.weights[place], seen.weights.mean(1))
        names = [[model.knowledge.names[row] for row in rows] for rows in seen.rows.tolist()]
        assert answer.candidates == names


def test_the_number_of_cell_types_is_bounded():
    model, probe = tiny.build(), Probe()
    for seed in range(50):
        made = batch(seed)
        made["cell_type"] = [f"type{4 * seed + i // tiny.CELLS}" for i in range(len(made["cell_type"]))]
        probe.see(model, made)
    assert len(probe.cells) == MAX_CELL_TYPES


def test_controls_and_surplus_perturbations_are_not_asked_about():
    model, probe = tiny.build(), Probe()
    probe.see_validation(model, batch(0))
    assert probe.perturbations(model) == ["GENE0", "GENE3", "GENE5"]
    probe.validated = {f"GENE{number:04d}" for number in range(500)}
    assert probe.perturbations(model) == [f"GENE{number:04d}" for number in range(MAX_PERTURBATIONS)]


def test_before_anything_was_seen_there_is_no_answer():
    assert Probe().ask(tiny.build(), ["GENE1"]) is None


def test_batches_without_cell_types_teach_nothing():
    model, probe = tiny.build(), Probe()
    made = batch(0)
    del made["cell_type"]
    probe.see(model, made)
    assert not probe.cells


def test_headline_numbers_are_means_over_lines_and_perturbations():
    weights = torch.tensor([[[0.9, 0.1], [0.6, 0.7]], [[0.2, 0.8], [0.9, 0.9]]])
    answer = Answer(["a", "b"], ["X", "Y"], [["P", "Q"]] * 2, weights, (weights > 0.5).sum(-1).float(), True)
    found = answer.scalars(["X", "Y"])
    assert found["n_selected"] == pytest.approx((1 + 2 + 1 + 2) / 4)
    assert found["n_selected_by_cell_type/a"] == pytest.approx(1.5)
    assert found["inclusion_mean"] == pytest.approx(float(weights.mean()))
    assert found["jaccard_mean"] == pytest.approx((0 / 2 + 2 / 2) / 2)
    assert answer.scalars(["Y"])["jaccard_mean"] == 1.0


def test_one_line_alone_has_no_diversity():
    answer = Answer(["a"], ["X"], [["P"]], torch.tensor([[[0.9]]]), torch.ones(1, 1), True)
    assert "jaccard_mean" not in answer.scalars(["X"])
