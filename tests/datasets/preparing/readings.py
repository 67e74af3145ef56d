"""A file, prepared and read, and what was said of it."""

import anndata
import numpy as np

from state_rag.datasets.preparing.prepare import prepare
from tests.datasets.helpers import make_adata


def run(adata, tmp_path, **options):
    adata.write_h5ad(tmp_path / "in.h5ad")
    done = prepare(tmp_path / "in.h5ad", **options)
    return done, anndata.read_h5ad(done.path)


def said(done, text):
    return sum(text in change for change in done.changes)


def readable(tmp_path):
    adata = make_adata()
    adata.X = adata.X.astype(np.float32)
    adata.uns["log1p"] = {}
    adata.obsm["X_hvg"] = adata.X.toarray()
    return adata
