import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.splitting.splits import check_split, write_split
from state_rag.errors import StateRagError
from state_rag.files import sha256
from tests.datasets.helpers import load_batches, make_adata
from tests.datasets.preparing.readings import readable, run


def test_a_readable_file_needs_no_change_and_no_copy(tmp_path):
    done, _ = run(readable(tmp_path), tmp_path)
    assert done.changes == ()
    assert done.path == tmp_path / "in.h5ad"
    assert not (tmp_path / "in.prepared.h5ad").exists()


def test_an_output_that_was_asked_for_is_written_in_any_case(tmp_path):
    done, _ = run(readable(tmp_path), tmp_path, output=tmp_path / "out.h5ad")
    assert done.changes == ()
    assert done.path == tmp_path / "out.h5ad"


def test_the_input_is_left_as_it_is(tmp_path):
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    before = sha256(tmp_path / "in.h5ad")
    prepare(tmp_path / "in.h5ad")
    assert sha256(tmp_path / "in.h5ad") == before


def test_a_file_that_is_there_is_kept_beside_and_the_same_again_is_no_other(tmp_path, caplog):
    make_adata(counts=True).write_h5ad(tmp_path / "in.h5ad")
    out, kept = tmp_path / "out.h5ad", tmp_path / "out.h5ad.before"
    make_adata(seed=3).write_h5ad(out)
    before = sha256(out)
    prepare(tmp_path / "in.h5ad", out, n_hvgs=5)
    assert sha256(kept) == before != sha256(out)
    assert f"{out} said something else; what it said is in {kept} now" in caplog.text
    kept.unlink()
    after = sha256(out)
    prepare(tmp_path / "in.h5ad", out, n_hvgs=5)
    assert not kept.exists()
    prepare(tmp_path / "in.h5ad", out, n_hvgs=6)
    prepare(tmp_path / "in.h5ad", out, n_hvgs=7)
    assert sha256(kept) not in (after, sha256(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad", "out.h5ad.before"]


def test_missing_damaged_and_own_files_are_refused(tmp_path):
    with pytest.raises(StateRagError, match="none.h5ad: no such file"):
        prepare(tmp_path / "none.h5ad")
    make_adata(n_cells=600).write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(StateRagError, match="is the input itself"):
        prepare(tmp_path / "in.h5ad", tmp_path / "in.h5ad")
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "in.h5ad").read_bytes()[:9000])
    with pytest.raises(StateRagError, match="cut.h5ad: 9,000 bytes"):
        prepare(tmp_path / "cut.h5ad")
    with pytest.raises(StateRagError, match="--n-hvgs 0"):
        prepare(tmp_path / "in.h5ad", n_hvgs=0)


def test_a_file_with_every_fault_loads_upstream_once_prepared(tmp_path):
    adata = make_adata(n_cells=300, counts=True)
    adata.var.index.name = "symbol"
    adata.X = sparse.csc_matrix(adata.X)
    del adata.obs["batch"]
    adata.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"]).codes
    done, _ = run(adata, tmp_path)
    check_then_load(done, "2", tmp_path)


def test_real_data_load_upstream_once_prepared(shared_data, tmp_path):
    done = prepare(shared_data / "perturbench_devel.h5ad", tmp_path / "devel.h5ad")
    assert done.control == "control"
    assert done.n_hvgs == 500
    check_then_load(done, "A172", tmp_path)


def check_then_load(done, line, tmp_path):
    split = write_split(
        done.path, line, output=tmp_path / "split.toml", pert_col=done.pert_col, cell_type_col=done.cell_type_col
    )
    names = {
        "pert_col": done.pert_col,
        "cell_type_key": done.cell_type_col,
        "batch_col": done.batch_col,
        "control_pert": done.control,
    }
    summary = check_split(split, **names, embed_key="X_hvg")
    for embed_key in ("X_hvg", None):
        module, batches = load_batches(split.path, **names, embed_key=embed_key)
        assert all(np.isfinite(batch["pert_cell_emb"].numpy()).all() for batch in batches)
        assert set(batches[2]["pert_name"]) <= {*summary.test_perturbations, done.control}
        dims = module.get_var_dims()
        assert len(dims["gene_names"]) == dims["hvg_dim"]
