"""Which genes conditions change, against scipy's test on the cells themselves."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import state_rag as sr
from state_rag.contract.matrices import ArrayRows
from state_rag.effects.changes import changes_in, changes_of
from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.mean_effects import MeanEffects

GROUPS = [("b", "ctrl"), ("a", "ctrl"), ("a", "Q"), ("a", "P"), ("b", "P")]


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    sizes = [40, 30, 20, 1, 25]
    values = rng.gamma(2, 0.5, size=(sum(sizes), 12)).astype(np.float32)
    labels = np.repeat(np.arange(len(GROUPS)), sizes)
    values[labels == 2, :3] += 1.5
    values[labels == 4, 2:4] *= 0.2
    obs = pd.DataFrame([GROUPS[k] for k in labels], columns=["cell_line", "gene"])
    return ad.AnnData(values, obs=obs.set_axis(obs.index.astype(str)))


def plain(cells, line, name):
    """Return the sign of what scipy's test finds."""
    own = cells[(cells.obs["cell_line"] == line) & (cells.obs["gene"] == name)].X
    control = cells[(cells.obs["cell_line"] == line) & (cells.obs["gene"] == "ctrl")].X
    p = stats.ttest_ind(own.astype(float), control.astype(float), equal_var=False).pvalue
    found = stats.false_discovery_control(p) <= 0.05
    return np.sign(own.mean(0) - control.mean(0)) * found


def totals(cells, squares):
    found = GroupTotals(squares=squares)
    number = {group: k for k, group in enumerate(GROUPS)}
    labels = zip(cells.obs["cell_line"], cells.obs["gene"], strict=True)
    found.add(ArrayRows(cells.X), GROUPS, np.array([number[label] for label in labels]), progress=False)
    return found


def check(found, cells):
    assert np.isnan(found[0]).all(), "P in a has one cell"
    np.testing.assert_array_equal(found[1], plain(cells, "a", "Q"))
    np.testing.assert_array_equal(found[2], plain(cells, "b", "P"))
    assert (found[1] == 1).sum() >= 3
    assert (found[2] == -1).sum() >= 2


def test_totals_with_squares_tell_what_changes_and_those_without_do_not(cells):
    check(changes_of(MeanEffects.from_totals(totals(cells, True), "ctrl", []), "ctrl"), cells)
    assert changes_of(MeanEffects.from_totals(totals(cells, False), "ctrl", []), "ctrl") is None


def test_a_table_of_effects_tells_the_same(cells):
    table = sr.effects.from_anndata(cells, control="ctrl")
    check(changes_in(table), cells)
    np.testing.assert_array_equal(changes_in(table[[2, 1]]), changes_in(table)[[2, 1]])


@pytest.mark.parametrize("lost", ["std", "control_std", "n_cells", "state_rag"])
def test_a_table_that_lacks_deviations_or_counts_does_not_tell(cells, lost):
    table = sr.effects.from_anndata(cells, control="ctrl")
    for part in (table.layers, table.varm, table.obs, table.uns):
        if lost in part:
            del part[lost]
    assert changes_in(table) is None


def test_it_cannot_be_told_in_a_context_without_deviations_of_its_controls(cells):
    table = sr.effects.from_anndata(cells, control="ctrl")
    table.varm["control_std"] = table.varm["control_std"].drop(columns="b")
    found = changes_in(table)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[1], plain(cells, "a", "Q"))
