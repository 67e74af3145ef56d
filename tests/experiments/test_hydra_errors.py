"""A sweep that Hydra refuses says in one line what would be right."""

import os

import pytest

from state_rag.errors import StateRagError
from state_rag.experiments.launch import list_jobs, names_several_values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["rag=ptrg"],
            "^rag=ptrg: there is no such preset; close spellings: ptrg -> ptrag.* Use one of: evidence, .*vanilla.$",
        ),
        (["rag=none,ptrg"], "^rag=ptrg: there is no such preset"),
        (["experiment=foo"], "^experiment=foo: there is no such preset. Use one of: .*quick_state"),
        (["sweep=foo"], "^sweep=foo: there is no such preset. Use one of: .*table1"),
        (
            ["training.topk_rga=3,4"],
            r"^training.topk_rga=3,4: the configuration has no key training.topk_rga; close spellings: "
            r"training.topk_rga -> training.topk_rag, .*\. `\+training.topk_rga=3,4` adds it.$",
        ),
        (["~seed"], "^~seed: Interpolation key 'seed' not found"),
    ],
)
def test_one_line_names_what_was_given_and_what_would_be_right(overrides, message, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(StateRagError, match=message) as refused:
        list_jobs(overrides, multirun=names_several_values(overrides), write=False)
    assert "\n" not in str(refused.value)
    assert "HYDRA_FULL_ERROR" not in os.environ


@pytest.mark.parametrize("override", ["foo", "x=[1"])
def test_what_is_no_override_is_refused(override):
    with pytest.raises(StateRagError, match="is not KEY=VALUE in Hydra's grammar"):
        names_several_values([override])


@pytest.mark.parametrize(
    ("overrides", "several"), [(["seed=0,1"], True), (["a=1", "b=[0,1]"], False), (["k=range(1,3)"], True), ([], False)]
)
def test_several_values_are_recognised_without_being_told(overrides, several):
    assert names_several_values(overrides) is several


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("few_shot=abc", "few_shot=abc is not a number"),
        ("val_fraction=x", "val_fraction=x is not a number"),
        ("split_seed=x", "split_seed=x is not a whole number"),
        ("seed=x", "seed=x is not a whole number"),
        ("training.max_steps=ten", "training.max_steps=ten is not a whole number"),
    ],
)
def test_what_should_be_a_number_is_named(override, message):
    listing = list_jobs([override, "data_file=x.h5ad", "held_out=k562"], multirun=False, write=False)
    assert [cause for _, cause in listing.errors] == [f"{message}."]


@pytest.mark.parametrize("several", ["experiment=quick_state,quick_ptrag", "sweep=table2_topk,fusion"])
def test_several_presets_can_be_asked_for(several):
    listing = list_jobs([several], multirun=names_several_values([several]), write=False)
    assert len(listing.errors) > 1
    assert all("No data: set data_file" in cause for _, cause in listing.errors)
