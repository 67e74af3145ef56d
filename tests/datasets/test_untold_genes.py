import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.datasets.splitting.splits import write_split
from state_rag.datasets.untold_genes import genes_named_otherwise
from state_rag.engine.fitting import fit
from state_rag.evidence.training import Settings

IDS = [f"ENSG0000010000{number}" for number in range(4)]
SYMBOLS = ["AARS", "KARS", "HARS", "WARS"]


@pytest.fixture
def told(tmp_path):
    """Return a function that says what is told of a file whose `var` has more columns."""

    def look(perturbations, index=IDS, **columns):
        var = pd.DataFrame(columns, index=index)
        ad.AnnData(np.ones((2, 4), np.float32), var=var).write_h5ad(tmp_path / "cells.h5ad")
        return genes_named_otherwise(tmp_path / "cells.h5ad", perturbations)

    return look


def test_the_column_of_var_that_names_the_perturbations_is_told(told):
    text = told(["AARS", "KARS+HARS", "XYZ"], symbol=SYMBOLS, n_cells=[1, 2, 3, 4])
    assert "no perturbation is among the 4 genes, which are called such as ENSG00000100000; 3 of 4 are in var" in text
    assert "Set var['gene_name'] to var['symbol'] in all files" in text
    assert "made unique" in told(["AARS"], symbol=["AARS", "KARS", "KARS", "WARS"])
    assert "var.index" in told(["AARS"], index=SYMBOLS, gene_name=IDS)


def test_nothing_is_told_where_genes_name_perturbations_or_no_column_does(told):
    assert not told(["AARS", "XYZ"], symbol=SYMBOLS, gene_name=SYMBOLS)
    assert not told(["AARS", "XYZ"], index=SYMBOLS)
    assert not told(["drug 1", "drug 2"], symbol=SYMBOLS)
    assert not told([], symbol=SYMBOLS)


@pytest.mark.parametrize("alike", [True, False])
def test_a_fit_on_cells_tells_it(tmp_path, caplog, alike):
    cells = sr.datasets.screen(n_perturbations=8, n_genes=30, cells_per_condition=12, controls_per_line=12)
    names = [name for name in cells.obs["gene"].cat.categories if name != "non-targeting"]
    genes = [*names, *(f"G{number}" for number in range(len(names), cells.n_vars))]
    ids = [f"ENSG{number:011d}" for number in range(cells.n_vars)]
    cells.var = pd.DataFrame({"symbol": genes}, index=genes if alike else ids)
    cells.uns.clear()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    split = write_split(tmp_path / "cells.h5ad", "rpe1", output=tmp_path / "split.toml").path
    quick = Settings(steps=3, episodes=2, calibrating=0)
    fit(split, tmp_path / "run", settings=quick, progress=False, embed_key=None, output_space="all")
    assert ("no perturbation is among the 30 genes" in caplog.text) is not alike
