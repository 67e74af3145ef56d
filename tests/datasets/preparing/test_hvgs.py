import numpy as np

from tests.datasets.preparing.readings import readable, run, said


def test_highly_variable_genes_are_those_of_the_file_or_chosen_or_all(tmp_path):
    adata = readable(tmp_path)
    del adata.obsm["X_hvg"]
    done, result = run(adata, tmp_path)
    assert done.n_hvgs == 8
    assert said(done, "all genes, since there are no more") == 1
    adata.var["highly_variable"] = np.arange(8) < 3
    done, result = run(adata, tmp_path)
    assert done.n_hvgs == 3
    np.testing.assert_array_equal(result.obsm["X_hvg"], adata.X.toarray()[:, :3])
    done, result = run(adata, tmp_path, n_hvgs=5)
    assert result.obsm["X_hvg"].shape[1] == result.var["highly_variable"].sum() == 5
