import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.contract.feature_names import HVG, MemoryMatrices
from state_rag.contract.fitting import differences, fitted
from state_rag.contract.space import read_space
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


def test_what_makes_results_wrong_is_only_told_where_that_is_wanted(caplog):
    other = CELLS.copy()
    other.X = other.X.expm1()
    with pytest.raises(StateRagError, match="without logarithm where log-normalised"):
        fitted(other, KNOWN["X"])
    fitted(other, KNOWN["X"], refuse=False)
    assert "without logarithm where log-normalised" in caplog.text
