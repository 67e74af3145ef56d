import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.effects.mean_effects import PREDICTED
from state_rag.engine.bank import responses_in
from state_rag.errors import StateRagError


def table(names=("TP53", "KRAS", "MYC"), context="k562", values=None):
    """Return a table of effects of some perturbations in one context."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"perturbation": list(names), "context": context}, index=[f"row{n}" for n in range(len(names))])
    return ad.AnnData(rng.normal(size=(len(names), 5)) if values is None else values, obs=obs)


@pytest.mark.parametrize("column", ["perturbation", "context"])
@pytest.mark.parametrize("nothing", [None, np.nan, " "])
def test_rows_without_a_name_or_a_context_are_refused_and_named(column, nothing):
    effects = table()
    effects.obs[column] = [*effects.obs[column][:2], nothing]
    with pytest.raises(StateRagError, match=f"1 rows have no value in the obs column `{column}`.*row2"):
        responses_in(effects)


@pytest.mark.parametrize("label", ["NTC", "Non-Targeting", "control"])
def test_rows_named_like_a_control_are_no_perturbations(label, caplog):
    with caplog.at_level(logging.WARNING):
        found = responses_in(table(["TP53", label, "KRAS"]))
    assert found.perturbation_names == responses_in(table(["TP53", "KRAS"])).perturbation_names
    assert f"Left out 1 rows that are named like controls ({label})" in caplog.text


def test_the_label_that_a_table_names_as_its_control_is_none_either(caplog):
    effects = table(["TP53", "scr7", "KRAS"])
    effects.uns["state_rag"] = {"control": "scr7"}
    assert "scr7" not in responses_in(effects).perturbation_names


def test_predicted_effects_are_not_taken_for_measured_ones():
    effects = table()
    effects.uns["state_rag"] = {"kind": PREDICTED}
    with pytest.raises(StateRagError, match="predicted by an evidence engine.*delete uns"):
        responses_in(effects)


def test_means_are_not_taken_for_effects():
    with pytest.raises(StateRagError, match="no value is below zero.*difference from the controls"):
        responses_in(table(values=np.abs(table().X)))


@pytest.mark.parametrize("names", [("A+B", "B+A", "C"), ("A", "C", "A+ctrl")])
def test_two_names_of_one_condition_are_refused(names):
    with pytest.raises(StateRagError, match=r"in k562 are one condition under two names"):
        responses_in(table(names))
