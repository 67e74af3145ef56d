import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.embeddings import signatures
from state_rag.embeddings.signatures import read_signatures
from state_rag.errors import StateRagError


def profiles(seed=0, lines=("a", "b"), names=tuple("PQRST"), genes=8):
    rng = np.random.default_rng(seed)
    rows = [(line, name) for line in lines for name in names]
    obs = pd.DataFrame(
        {"cell_line": [r[0] for r in rows], "gene": [r[1] for r in rows]}, index=[str(i) for i in range(len(rows))]
    )
    return ad.AnnData(rng.normal(size=(len(rows), genes)) + 5 * rng.normal(size=genes), obs=obs)


def plain_cosine(adata, p, q):
    """Mean over lines of the cosine of centred profiles, in loops; all directions are kept of few genes."""
    total = []
    for line in adata.obs["cell_line"].unique():
        here = adata[adata.obs["cell_line"] == line]
        centred = here.X - here.X.mean(0)
        a, b = (centred[(here.obs["gene"] == name).to_numpy()][0] for name in (p, q))
        total.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.mean(total)


def test_similarity_is_the_mean_cosine_of_centred_profiles(tmp_path):
    adata = profiles()
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = read_signatures(tmp_path / "a.h5ad")
    assert found.facts == "5 perturbations (obs column gene), 2 contexts (cell_line)"
    known, vectors = found.embedded(["T", "P", "unheard of"])
    assert known == ["T", "P"]
    assert vectors[0] @ vectors[1] == pytest.approx(plain_cosine(adata, "T", "P"), abs=1e-5)


def test_cells_say_what_their_means_say_and_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(signatures, "BLOCK", 7)
    adata = profiles()
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(3, *adata.shape))
    cells = np.concatenate([adata.X + part for part in noise - noise.mean(0)])
    obs = pd.concat([adata.obs] * 3).set_axis([str(i) for i in range(len(cells))])
    order = rng.permutation(len(cells))
    many = ad.AnnData(sparse.csr_matrix(cells[order]), obs=obs.iloc[order])
    adata.write_h5ad(tmp_path / "a.h5ad")
    many.write_h5ad(tmp_path / "b.h5ad")
    means, found = (read_signatures(tmp_path / name).vectors for name in ("a.h5ad", "b.h5ad"))
    np.testing.assert_allclose(found @ found.T, means @ means.T, atol=1e-5)


def test_rows_without_a_label_or_with_nan_are_left_out(tmp_path, caplog):
    adata = profiles()
    adata.X[0, 0] = np.nan
    adata.obs["gene"] = pd.Categorical(adata.obs["gene"].where(adata.obs["gene"] != "Q"))
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = read_signatures(tmp_path / "a.h5ad")
    assert found.names == ("P", "R", "S", "T")
    assert "3 rows without labels, or with NaN or infinity, are left out" in caplog.text


def test_an_index_serves_where_no_column_does(tmp_path):
    adata = profiles(lines=("a",))
    ad.AnnData(adata.X, obs=pd.DataFrame(index=list("PQRST"))).write_h5ad(tmp_path / "a.h5ad")
    found = read_signatures(tmp_path / "a.h5ad")
    assert found.names == tuple("PQRST")
    assert "(the index of obs)" in found.facts


def test_too_few_to_compare_is_told(tmp_path):
    profiles(names=("P", "Q")).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(StateRagError, match=r"a\.h5ad: no context has three perturbations.*obs column gene"):
        read_signatures(tmp_path / "a.h5ad")
