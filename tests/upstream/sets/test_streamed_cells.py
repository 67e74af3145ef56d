"""Cells that are written while they are predicted make the files that STATE would write."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.upstream.sets.grouped_loader import Sets
from state_rag.upstream.sets.grouped_sets import Predicted
from state_rag.upstream.sets.streamed_cells import StreamedCells
from state_rag.upstream.swap import whole_h5ad_files

DATA = {"pert_col": "gene", "cell_type_key": "line", "batch_col": "lane", "embed_key": "X_hvg", "output_space": "gene"}


def predicted(start, count=5, decoded=False):
    """Some cells, numbered on, with values outside [0, 14]."""
    generator = torch.Generator().manual_seed(start)
    make = lambda width: 20 * torch.rand(count, width, generator=generator) - 3  # noqa: E731
    batch = {
        "pert_name": [f"G{(start + n) % 3}" for n in range(count)],
        "cell_type": ["k562"] * count,
        "batch_name": [f"b{n % 2}" for n in range(count)],
        "pert_cell_barcode": [f"cell{start + n}" for n in range(count)],
        "ctrl_cell_barcode": ["one"] * count,
    }
    output = {"preds": make(4), "pert_cell_emb": make(4)}
    if decoded:
        output |= {"pert_cell_counts_preds": make(6), "pert_cell_counts": make(6)}
    return Predicted(Sets(batch, [count]), output, [None])


def written(folder, blocks, embedding=None, **data):
    """Stream blocks while STATE writes its empty objects."""
    cells = StreamedCells(folder, lambda: sum(one.sets.sizes[0] for one in blocks), {**DATA, **data}, embedding)
    obs = pd.DataFrame({name: [] for name in ("gene", "line", "lane")})
    last = blocks[-1:]
    with whole_h5ad_files(), cells.completing(lambda: [cells.take(last.pop()) for _ in range(len(last))]):
        for block in blocks[:-1]:
            cells.take(block)
        width = 6 if "pert_cell_counts" in blocks[0].output else 4
        for name in ("adata_pred.h5ad", "adata_real.h5ad"):
            anndata.AnnData(X=np.empty((0, width), np.float32), obs=obs).write_h5ad(folder / name)
    return [anndata.read_h5ad(folder / name) for name in ("adata_pred.h5ad", "adata_real.h5ad")]


def test_the_files_hold_all_cells_in_order_clipped_as_state_clips_them(tmp_path):
    blocks = [predicted(0), predicted(5), predicted(10, 2)]
    for found, name in zip(written(tmp_path, blocks), ("preds", "pert_cell_emb"), strict=True):
        wanted = torch.cat([block.output[name] for block in blocks]).clamp(0, 14)
        np.testing.assert_array_equal(found.X, wanted.numpy())
        assert found.obs_names.tolist() == [str(n) for n in range(12)]
        assert found.obs["gene"].astype(str).tolist() == [x for block in blocks for x in block.sets.batch["pert_name"]]
        assert found.obs["pert_cell_barcode"].tolist() == [f"cell{n}" for n in range(12)]
        assert list(found.obs.columns) == ["gene", "line", "lane", "pert_cell_barcode", "ctrl_cell_barcode"]
        assert [found.obs[name].dtype.name == "category" for name in found.obs] == [True, True, True, False, True]
        assert found.obs["gene"].cat.categories.tolist() == ["G0", "G1", "G2"]
        assert found.var_names.tolist() == list("0123")
    assert {path.name for path in tmp_path.iterdir()} == {"adata_pred.h5ad", "adata_real.h5ad"}


def test_decoded_genes_are_x_and_the_embedding_stands_beside(tmp_path):
    blocks = [predicted(0, decoded=True), predicted(5, decoded=True)]
    found, real = written(tmp_path, blocks, embed_key="X_pca")
    assert found.shape == (10, 6)
    beside = torch.cat([block.output["preds"] for block in blocks]).numpy()
    np.testing.assert_array_equal(found.obsm["X_pca"], beside)
    np.testing.assert_array_equal(
        real.X, torch.cat([block.output["pert_cell_counts"] for block in blocks]).clamp(0, 14).numpy()
    )


def test_an_embedding_is_kept_unclipped(tmp_path):
    found, _ = written(tmp_path, [predicted(0)], embedding="X_pca")
    np.testing.assert_array_equal(found.obsm["X_pca"], predicted(0).output["preds"].numpy())
    assert found.X.min() == 0


def test_a_failing_prediction_leaves_the_old_files(tmp_path):
    (tmp_path / "adata_pred.h5ad").write_text("old")
    cells = StreamedCells(tmp_path, lambda: 10, DATA, None)

    def interrupted():
        with cells.completing(lambda: None):
            cells.take(predicted(0))
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["adata_pred.h5ad"]
    assert (tmp_path / "adata_pred.h5ad").read_text() == "old"


def test_cells_that_are_lacking_are_no_file(tmp_path):
    with pytest.raises(StateRagError, match="5 cells came where 10"):
        written_short(tmp_path)
    assert not list(tmp_path.iterdir())


def written_short(folder):
    cells = StreamedCells(folder, lambda: 10, DATA, None)
    obs = pd.DataFrame({name: [] for name in ("gene", "line", "lane")})
    with cells.completing(lambda: cells.take(predicted(0))):
        anndata.AnnData(X=np.empty((0, 4), np.float32), obs=obs).write_h5ad(folder / "adata_pred.h5ad")
