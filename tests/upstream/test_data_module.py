from collections import Counter

import pytest

from state_rag.upstream.data_module import LimitedDataModule

COLUMNS = {
    "pert_col": "gene",
    "cell_type_key": "cell_line",
    "batch_col": "gem_group",
    "control_pert": "non-targeting",
    "embed_key": "X_hvg",
    "output_space": "gene",
}


@pytest.fixture
def open_module(two_lines):
    def make(split=two_lines, **limits):
        module = LimitedDataModule.limited_to(**limits)(
            toml_config_path=str(split), batch_size=2, num_workers=0, cell_sentence_len=8, **COLUMNS
        )
        module.setup()
        return module

    return make


def cells_of(loader):
    """Count the cells by line and perturbation; every batch of a test loader is one set."""
    count = Counter()
    for batch in loader:
        count.update(zip(batch["cell_type"], batch["pert_name"], strict=True))
    return count


def test_without_limits_it_is_cell_loads_own(open_module, two_lines):
    from cell_load.data_modules import PerturbationDataModule

    theirs = PerturbationDataModule(
        toml_config_path=str(two_lines), batch_size=2, num_workers=0, cell_sentence_len=8, **COLUMNS
    )
    theirs.setup()
    ours = open_module()
    assert ours.pert_onehot_map.keys() == theirs.pert_onehot_map.keys()
    assert cells_of(ours.test_dataloader()) == cells_of(theirs.test_dataloader())


def test_only_cells_of_kept_perturbations_and_controls_remain_in_every_part(open_module):
    everything = sorted({name for _, name in cells_of(open_module().test_dataloader())} - {"non-targeting"})
    keep = everything[::3]
    module = open_module(keep=keep)
    assert set(module.pert_onehot_map) == {*keep, "non-targeting"}
    for loader in (module.train_dataloader(), module.test_dataloader()):
        assert {name for _, name in cells_of(loader)} == {*keep, "non-targeting"}
    whole = cells_of(open_module().test_dataloader())
    expected = {key: count for key, count in whole.items() if key[1] in {*keep, "non-targeting"}}
    assert cells_of(module.test_dataloader()) == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_shortened_test_set_has_a_control_set_of_each_line(limit, open_module):
    loader = open_module(max_test_sets=limit).test_dataloader()
    count = cells_of(loader)
    assert {("hepg2", "non-targeting"), ("rpe1", "non-targeting")} <= set(count)
    assert len(list(loader)) == max(limit, 2)
    assert sum(count.values()) == loader.batch_sampler.tot_num
    perturbed = {key for key in count if key[1] != "non-targeting"}
    assert bool(perturbed) is (limit > 2)


def test_a_limit_above_the_number_of_sets_changes_nothing(open_module):
    assert cells_of(open_module(max_test_sets=10_000).test_dataloader()) == cells_of(open_module().test_dataloader())


def test_training_is_not_shortened(open_module):
    assert (
        cells_of(open_module(max_test_sets=1).train_dataloader()).keys()
        == cells_of(open_module().train_dataloader()).keys()
    )


def test_a_saved_state_is_opened_with_the_split_that_was_bound(open_module, two_lines, tmp_path):
    module = open_module()
    with open(tmp_path / "state.torch", "wb") as stream:
        module.save_state(stream)
    moved = tmp_path / "moved.toml"
    two_lines_text = two_lines.read_text()
    moved.write_text(two_lines_text)
    two_lines.rename(two_lines.with_suffix(".away"))
    try:
        again = LimitedDataModule.limited_to(toml=moved).load_state(tmp_path / "state.torch")
    finally:
        two_lines.with_suffix(".away").rename(two_lines)
    assert str(again.toml_config_path) == str(moved)


def test_what_is_bound_to_one_class_does_not_reach_another():
    first, second = LimitedDataModule.limited_to(["A"]), LimitedDataModule.limited_to(["B"], max_test_sets=3)
    assert (first.keep, second.keep, LimitedDataModule.keep) == ({"A"}, {"B"}, None)
    assert (first.max_test_sets, second.max_test_sets) == (None, 3)
