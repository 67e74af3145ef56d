import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.contract.feature_names import HVG, MemoryMatrices
from state_rag.contract.fitting import differences, fitted
from state_rag.contract.space import Space, read_space
from state_rag.errors import StateRagError
from tests.contract.helpers import reordered, screen

CELLS = screen()
CONTROLS = np.flatnonzero(CELLS.obs["gene"] == "ctrl")
KNOWN = {key: read_space(MemoryMatrices(CELLS), key, CONTROLS) for key in ("X", HVG)}


def dense(values):
    return values.toarray() if hasattr(values, "toarray") else values


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(30)), st.permutations(range(15)), st.booleans())
def test_any_order_of_genes_gives_the_same_values(order, hvg_order, without):
    other = reordered(CELLS, list(order), list(hvg_order))
    if without:
        del other.obsm["X_hvg"]
    assert np.array_equal(dense(fitted(other, KNOWN["X"]).values), CELLS.X.toarray())
    assert np.array_equal(dense(fitted(other, KNOWN[HVG]).values), CELLS.obsm["X_hvg"])
    moved = list(order) != sorted(order)
    assert bool(differences(other, KNOWN["X"])) == moved


def test_missing_genes_are_named_or_filled_with_the_controls_mean(caplog):
    fewer = CELLS[:, 2:].copy()
    with pytest.raises(StateRagError, match=r"X lacks 2 of 30 genes \(G0, G1\).*--fill-missing"):
        fitted(fewer, KNOWN["X"])
    found = fitted(fewer, KNOWN["X"], fill_missing=True)
    assert found.filled == ("G0", "G1")
    assert "hold the mean of the training controls: G0, G1" in caplog.text
    expected = CELLS.X.toarray()
    expected[:, :2] = expected[CONTROLS][:, :2].mean(axis=0)
    assert np.allclose(found.values, expected, atol=1e-6)


@pytest.mark.parametrize(("total", "is_other"), [(2e3, False), (1e3, True)])
def test_totals_are_compared_over_the_genes_in_common(caplog, total, is_other):
    linear = np.expm1(CELLS.X.toarray())  # 1,000 a cell
    wide = np.concatenate([linear, linear[:, ::-1]], axis=1)  # as much again in genes that the run does not know
    names = [*CELLS.var_names, *(f"other{number}" for number in range(30))]
    obs = CELLS.obs
    cells = ad.AnnData(np.log1p(wide / 2e3 * total).astype(np.float32), obs=obs, var=pd.DataFrame(index=names))
    if is_other:
        with pytest.raises(
            StateRagError, match=r"X holds cells that were normalised to 5\d\d, where 1,000 is expected"
        ):
            fitted(cells, KNOWN["X"], controls=CONTROLS)
        return
    assert np.allclose(dense(fitted(cells, KNOWN["X"], controls=CONTROLS).values), dense(CELLS.X), atol=1e-4)
    assert "normalised to" not in caplog.text


def test_a_space_that_cannot_be_made_is_refused_with_what_there_is():
    fewer = CELLS[:, 1:].copy()
    del fewer.obsm["X_hvg"]
    with pytest.raises(StateRagError, match="X lacks 1 of 15 genes"):
        fitted(fewer, KNOWN[HVG])
    with pytest.raises(StateRagError, match=r"there is no obsm/X_pca.*there is X, obsm/X_hvg"):
        fitted(CELLS, KNOWN[HVG], key="obsm/X_pca")


def test_controls_of_another_level_are_told(caplog):
    known = read_space(MemoryMatrices(screen(n_genes=80)), HVG, CONTROLS)
    other = screen(n_genes=80)
    other.obsm["X_hvg"] = other.obsm["X_hvg"] * 1.6
    del other.X
    fitted(other, known, controls=CONTROLS)
    assert "Control cells have 1.6 times the expected expression" in caplog.text


def two_unlike_lines():
    """Cells of two lines, the second with half the expression of the first, and the lines of their controls."""
    cells = screen(n_genes=80)
    lines = cells.obs["cell_line"].astype(str).to_numpy()
    cells.obsm["X_hvg"] = cells.obsm["X_hvg"] * np.where(lines == "rpe1", 0.4, 1.0)[:, None].astype(np.float32)
    return cells, lines[CONTROLS]


def test_controls_of_one_line_are_compared_with_that_line_and_not_with_the_mean_of_all(caplog):
    cells, lines = two_unlike_lines()
    known = read_space(MemoryMatrices(cells), HVG, CONTROLS, lines=lines)
    known = Space.from_dict(json.loads(json.dumps(known.to_dict())))  # as a run keeps it
    assert known.line_levels["rpe1"] / known.line_levels["k562"] == pytest.approx(0.4, rel=0.1)
    for line in ("k562", "rpe1"):
        one = cells[cells.obs["cell_line"] == line].copy()
        controls = np.flatnonzero(one.obs["gene"] == "ctrl")
        fitted(one, known, controls=controls, lines=np.full(len(controls), line))
        fitted(one, known, controls=controls, lines=np.full(len(controls), "a new line"))
        assert not caplog.text
        one.obsm["X_hvg"] = one.obsm["X_hvg"] * (1.8 if line == "rpe1" else 1 / 1.8)
        fitted(one, known, controls=controls, lines=np.full(len(controls), line))
        assert re.search(rf"Control cells have (1\.8|0\.5\d) times the expected expression in {line}", caplog.text)
        caplog.clear()


def test_a_new_line_outside_what_the_lines_of_a_run_have_is_told(caplog):
    cells, lines = two_unlike_lines()
    known = read_space(MemoryMatrices(cells), HVG, CONTROLS, lines=lines)
    cells.obsm["X_hvg"] = cells.obsm["X_hvg"] * 2
    fitted(cells, known, controls=CONTROLS, lines=np.where(lines == "rpe1", "new1", "new2"))
    assert re.search(r"Control cells have 2 times the expected expression in new2; obsm\['X_hvg'\]", caplog.text)


def test_a_run_that_kept_no_lines_is_no_measure_for_one(caplog):
    cells, lines = two_unlike_lines()
    known = read_space(MemoryMatrices(cells), HVG, CONTROLS)
    fitted(cells, known, controls=CONTROLS, lines=lines)
    assert not caplog.text


def test_what_makes_results_wrong_is_only_told_where_that_is_wanted(caplog):
    other = CELLS.copy()
    other.X = other.X.expm1()
    with pytest.raises(StateRagError, match="without logarithm where log-normalised"):
        fitted(other, KNOWN["X"])
    fitted(other, KNOWN["X"], refuse=False)
    assert "without logarithm where log-normalised" in caplog.text
