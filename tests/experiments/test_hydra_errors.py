"""A sweep that Hydra refuses says in one line what would be right."""

import os

import pytest

from state_rag.errors import StateRagError
from state_rag.experiments.launch import list_jobs, names_several_values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rag=ptrg"], "^rag=ptrg: there is no such preset. Use one of: genept, hidden, none, ptrag, .*vanilla.$"),
        (["rag=none,ptrg"], "^rag=ptrg: there is no such preset"),
        (["experiment=foo"], "^experiment=foo: there is no such preset. Use one of: .*quick_state"),
        (["sweep=foo"], "^sweep=foo: there is no such preset. Use one of: .*table1"),
        (
            ["training.topk_rga=3,4"],
            r"^training.topk_rga=3,4: the configuration has no key training.topk_rga. Close spellings: "
            r"training.topk_rag, .*\. `\+training.topk_rga=3,4` adds it.$",
        ),
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
