import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import state_rag as sr
from state_rag.errors import StateRagError
from tests.contract.helpers import screen

NAMES = {"perturbation": "gene", "context": "cell_line", "control": "ctrl"}


def rewritten(change):
    cells = screen()
    cells.X = sparse.csr_matrix(change(cells.X.toarray()).astype(np.float32))
    return cells


def counts():
    return rewritten(lambda values: np.rint(np.expm1(values)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: np.rint(np.expm1(values)), r"holds counts \(whole numbers\) where log-normalised expression"),
        (lambda values: values / np.log(2), "logarithm to base 2"),
        (lambda values: np.log1p(np.expm1(values) * 9), "cells that were normalised to 9,000, where 1,000"),
    ],
)
def test_files_of_different_scales_are_refused(tmp_path, change, said):
    screen().write_h5ad(tmp_path / "a.h5ad")
    rewritten(change).write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(StateRagError, match=rf"b\.h5ad: X .*{said}.*a\.h5ad\. Effects of both together mean nothing"):
        sr.effects.read(tmp_path / "*.h5ad", **NAMES, progress=False)


def test_counts_alone_are_told_from_memory_and_from_files(tmp_path, caplog):
    sr.effects.from_anndata(counts(), **NAMES)
    assert "X holds counts (whole numbers), and effects are differences of those" in caplog.text
    caplog.clear()
    counts().write_h5ad(tmp_path / "a.h5ad")
    sr.effects.read(tmp_path / "a.h5ad", **NAMES, progress=False)
    assert "a.h5ad: X holds counts (whole numbers), and effects" in caplog.text


def test_nothing_is_told_of_logarithms_and_of_spaces_that_are_no_expression(tmp_path, caplog):
    cells = screen()
    cells.obsm["X_counts"] = np.rint(np.expm1(cells.X.toarray()))
    cells.write_h5ad(tmp_path / "a.h5ad")
    cells.write_h5ad(tmp_path / "b.h5ad")
    for matrix in ("X", "obsm/X_hvg", "obsm/X_counts"):
        sr.effects.read(tmp_path / "*.h5ad", matrix=matrix, **NAMES, progress=False)
    assert not caplog.text


def test_lines_and_conditions_that_are_left_out_are_told(caplog):
    cells = screen()
    values = cells.X.toarray()
    values[np.flatnonzero((cells.obs["gene"] == "A") & (cells.obs["cell_line"] == "rpe1"))[0], 3] = np.nan
    of_control = (cells.obs["gene"] == "ctrl") & (cells.obs["cell_line"] == "k562")
    found = sr.effects.from_anndata(ad.AnnData(values, obs=cells.obs, var=cells.var)[~of_control].copy(), **NAMES)
    assert found.obs_names.tolist() == ["B in rpe1", "C in rpe1"]
    assert "k562 is left out: no control cells." in caplog.text
    assert "Left out, with NaN or infinity among their cells: A in rpe1." in caplog.text
