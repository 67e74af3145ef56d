from collections import Counter

import numpy as np
import pytest

from state_rag.upstream.data_module import LimitedDataModule
from state_rag.upstream.sets.condition_sets import condition_sets
from tests.upstream.test_data_module import COLUMNS

CELLS = 8


@pytest.fixture(scope="module")
def make_loader(two_lines):
    def make(**settings):
        arguments = {"batch_size": 2, "num_workers": 0, "cell_sentence_len": CELLS, **COLUMNS, **settings}
        module = LimitedDataModule(toml_config_path=str(two_lines), **arguments)
        module.setup()
        return module.test_dataloader()

    return make


@pytest.fixture(scope="module")
def names(make_loader):
    cache = make_loader().dataset.datasets[0].dataset.metadata_cache
    return [str(name) for name in cache.pert_categories if str(name) != COLUMNS["control_pert"]]


def cells(sets, loader):
    """The predicted and the control cells of each set."""
    return [
        [batch[key].numpy() for key in ("pert_cell_emb", "ctrl_cell_emb")] for batch in (s.read(loader) for s in sets)
    ]


@pytest.mark.parametrize("strategy", ["random", "batch"])
def test_what_is_drawn_for_a_condition_does_not_depend_on_the_others(make_loader, names, strategy):
    np.random.seed(0)
    loader = make_loader(basal_mapping_strategy=strategy)
    together = condition_sets(loader, names, 3)
    wanted = [one for one in together if one.perturbation == names[4]]
    drawn = cells(together, loader)
    of_it = [found for one, found in zip(together, drawn, strict=True) if one.perturbation == names[4]]
    np.random.seed(1)
    other = make_loader(basal_mapping_strategy=strategy)
    alone = condition_sets(other, [names[4]], 3)
    assert alone == wanted
    np.testing.assert_equal(cells(alone, other), of_it)


def test_another_seed_draws_other_controls(make_loader, names):
    loader = make_loader()
    (first, *_), (second, *_) = (condition_sets(loader, names[:1], seed) for seed in (0, 1))
    assert (cells([first], loader)[0][1] != cells([second], loader)[0][1]).any()


def test_all_cells_of_a_condition_are_in_its_sets_once(make_loader, names):
    loader = make_loader()
    control = COLUMNS["control_pert"]
    found = {}
    for one in condition_sets(loader, [names[0], control], 0):
        assert len(one.rows) <= CELLS
        batch = one.read(loader)
        assert set(batch["pert_name"]) == {one.perturbation}
        assert set(batch["cell_type"]) == {one.cell_line}
        found.setdefault((one.cell_line, one.perturbation), []).extend(one.rows)
    assert set(found) == {(line, name) for line in ("hepg2", "rpe1") for name in (names[0], control)}
    for rows in found.values():
        assert len(rows) == len(set(rows))
    counted = Counter()
    for batch in loader:
        counted.update(zip(batch["cell_type"], batch["pert_name"], strict=True))
    assert {condition: len(rows) for condition, rows in found.items()} == {key: counted[key] for key in found}


def test_a_batch_is_what_the_loader_itself_would_give(make_loader, names):
    loader = make_loader()
    theirs = next(iter(loader))
    ours = condition_sets(loader, names[:1], 0)[0].read(loader)
    assert set(ours) == set(theirs)
    assert {key: getattr(value, "dtype", type(value)) for key, value in ours.items()} == {
        key: getattr(value, "dtype", type(value)) for key, value in theirs.items()
    }


def test_a_limit_on_cells_and_dropped_remainders_hold_for_each_condition(make_loader, names):
    assert sum(len(one.rows) for one in condition_sets(make_loader(downsample_cells=5), names[:1], 0)) == 2 * 5
    assert all(len(one.rows) == CELLS for one in condition_sets(make_loader(drop_last=True), names, 0))
