"""What users hand in means what they think it means: each way of mixing data up that was seen, by the real commands."""

import json
import shutil

import anndata as ad
import numpy as np
import pytest

from tests.end_to_end.commands import OURS, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(project):
    return ad.read_h5ad(project.h5ad)


def permuted(cells, seed=0):
    """The same cells, with the genes of X and the columns of X_hvg in other orders."""
    rng = np.random.default_rng(seed)
    other = cells[:, rng.permutation(cells.n_vars)].copy()
    order = rng.permutation(other.obsm["X_hvg"].shape[1])
    other.uns["hvg_names"] = cells.var["gene_name"][cells.var["highly_variable"]].to_numpy(dtype=object)[order]
    other.obsm["X_hvg"] = cells.obsm["X_hvg"][:, order]
    del other.var["highly_variable"]
    return other


@pytest.fixture
def infer(ptrag, tmp_path):
    """Return a function that has `tx infer` predict cells, and returns what it wrote or what it said."""

    def predict(given, *more, refused=False, output="out.h5ad"):
        given.write_h5ad(tmp_path / "in.h5ad")
        words = ["tx", "infer", "--model-dir", str(ptrag / "ptrag"), "--adata", "in.h5ad", "--pert-col", "gene"]
        done = run([*words, "--output", output, "--embed-key", "X_hvg", *more], tmp_path, check=not refused)
        if refused:
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            return done.stderr
        return ad.read_h5ad(tmp_path / output) if output.endswith("h5ad") else tmp_path / output

    return predict


@pytest.fixture(scope="module")
def plain(ptrag, project, tmp_path_factory):
    """Predictions for the training file itself."""
    folder = tmp_path_factory.mktemp("plain")
    words = ["tx", "infer", "--model-dir", str(ptrag / "ptrag"), "--adata", str(project.h5ad), "--pert-col", "gene"]
    run([*words, "--output", str(folder / "out.h5ad"), "--embed-key", "X_hvg"], folder)
    return ad.read_h5ad(folder / "out.h5ad")


def test_the_run_keeps_what_it_was_trained_on(ptrag, project, cells):
    stored = json.loads((ptrag / "ptrag" / "data_contract.json").read_text())
    (space,) = stored["spaces"]
    assert space["names"] == cells.var["gene_name"][cells.var["highly_variable"]].tolist()
    assert space["scale"]["kind"] == "log1p"
    (file,) = stored["files"]
    assert (file["path"], file["cells"]) == (str(project.h5ad.resolve()), cells.n_obs)
    assert stored["split"]["datasets"] == {"screen": str(project.h5ad)}


def test_predictions_have_gene_names_and_a_record_and_nothing_of_the_cells_that_were_perturbed(plain, cells):
    assert plain.var_names.tolist() == cells.var["gene_name"][cells.var["highly_variable"]].tolist()
    assert np.array_equal(plain.X, plain.obsm["X_hvg"])
    assert set(plain.obsm) == {"X_hvg"}
    record = plain.uns["state_rag"]
    assert (record["checkpoint"], record["space"], record["mode"]) == ("final.ckpt", "obsm/X_hvg", "differentiable")
    assert set(record["retrieval"]["perturbation"]) == set(cells.obs["gene"].astype(str)) - {"non-targeting"}
    controls = set(cells.obs_names[cells.obs["gene"] == "non-targeting"])
    assert set(plain.obs["source_cell"]) <= controls
    lines = cells.obs["cell_line"].astype(str)
    assert (lines[plain.obs["source_cell"]].to_numpy() == plain.obs["cell_line"].astype(str)).all()


def test_genes_in_another_order_among_others_and_without_x_hvg_give_the_same_predictions(infer, plain, cells):
    other = permuted(cells)
    found = infer(other)
    assert found.var_names.tolist() == plain.var_names.tolist()
    assert np.abs(found.X - plain.X).max() <= 1e-6
    del other.obsm["X_hvg"], other.uns["hvg_names"]
    more = ad.concat(
        [other, ad.AnnData(other.X[:, :5], obs=other.obs, var=other.var[:5].rename(index="new{}".format))], axis=1
    )
    more.obs = other.obs
    assert np.abs(infer(more).X - plain.X).max() <= 1e-6


def test_an_order_that_nothing_declares_is_found_by_the_values(infer, plain, cells):
    other = cells.copy()
    other.obsm["X_hvg"] = other.obsm["X_hvg"][:, ::-1].copy()
    assert np.abs(infer(other).X - plain.X).max() <= 1e-6


def test_missing_genes_are_refused_with_their_names_or_filled_by_flag(infer, cells, ptrag):
    names = cells.var["gene_name"][cells.var["highly_variable"]].tolist()
    fewer = cells[:, ~cells.var["gene_name"].isin(names[:10])].copy()
    fewer.obsm["X_hvg"] = fewer.obsm["X_hvg"][:, 10:]
    said = infer(fewer, refused=True)
    assert f"obsm['X_hvg'] lacks 10 of {len(names)} genes ({', '.join(names[:5])}, ... (10 in all))" in said
    assert "--fill-missing" in said
    filled = infer(fewer, "--fill-missing")
    assert filled.var_names.tolist() == names
    assert np.isfinite(filled.X).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: np.rint(np.expm1(values)), "counts (whole numbers) where log-normalised expression"),
        (lambda values: np.where(np.arange(len(values))[:, None] == 5, np.nan, values), "NaN values"),
        (lambda values: values - values.mean(axis=0), "both signs"),
    ],
)
def test_another_scale_and_what_is_no_number_are_refused(infer, cells, change, said):
    other = cells.copy()
    other.obsm["X_hvg"] = change(other.obsm["X_hvg"]).astype(np.float32)
    assert said in infer(other, refused=True)


def test_columns_of_unknown_genes_are_taken_by_position_and_that_is_said(ptrag, cells, plain, tmp_path):
    other = ad.AnnData(obs=cells.obs, obsm={"X_hvg": cells.obsm["X_hvg"]})
    other.write_h5ad(tmp_path / "in.h5ad")
    words = ["tx", "infer", "--model-dir", str(ptrag / "ptrag"), "--adata", "in.h5ad", "--pert-col", "gene"]
    done = run([*words, "--output", "out.h5ad"], tmp_path)
    assert "have no names here" in done.stderr
    assert "so that is what is read (--embed-key)" in done.stderr
    assert np.array_equal(ad.read_h5ad(tmp_path / "out.h5ad").X, plain.X)


def test_an_array_has_the_names_of_its_columns_beside_it(infer, cells, plain):
    place = infer(cells, output="out.npy")
    # an array is predicted a set at a time, a file in groups of sets
    np.testing.assert_allclose(np.load(place), plain.X, atol=1e-5)
    assert place.with_suffix(".genes.txt").read_text().split() == plain.var_names.tolist()


def test_perturbations_are_predicted_for_every_line_from_its_controls(infer, cells, tmp_path):
    wanted = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[:2]
    (tmp_path / "wanted.txt").write_text("\n".join(wanted))
    controls = cells[cells.obs["gene"] == "non-targeting"].copy()
    found = infer(controls, "--perturbations", ",".join(wanted), "--virtual-cells-per-pert", "20")
    counts = found.obs.groupby(["cell_line", "gene"], observed=True).size()
    assert all(counts[line, name] == 20 for line in ("k562", "rpe1", "hepg2") for name in wanted)
    again = infer(controls, "--perturbations", "wanted.txt", "--virtual-cells-per-pert", "20", "--celltypes", "k562")
    assert set(again.obs["cell_line"]) == {"k562"}
    assert "names none" in infer(controls, "--perturbations", " ,", refused=True)


@pytest.fixture
def two_files(cells, tmp_path):
    """A folder with the screen in two files; the second has other orders of genes."""
    (tmp_path / "data").mkdir()
    half = np.arange(cells.n_obs) % 2 == 0
    cells[half].copy().write_h5ad(tmp_path / "data" / "one.h5ad")
    permuted(cells[~half].copy()).write_h5ad(tmp_path / "data" / "two.h5ad")
    return tmp_path


def test_files_with_other_orders_of_genes_are_refused_and_brought_into_one_by_the_command_that_is_named(
    two_files, project, ptrag, cells
):
    said = run(["data", "split", "data", "--held-out", "hepg2", "-o", "own.toml"], two_files, via=OURS, check=False)
    assert said.returncode == 1
    assert "in another order" in said.stderr
    toml = project.split.read_text().replace(str(project.h5ad), str(two_files / "data"))
    (two_files / "split.toml").write_text(toml)
    said = run(["data", "check", "split.toml"], two_files, via=OURS, check=False)
    assert said.returncode == 1
    assert "WRONG: " in said.stdout
    assert "in another order" in said.stdout
    for space in ("all", "gene"):
        words = project.train_rag(
            "x", f"data.kwargs.output_space={space}", f"data.kwargs.toml_config_path={two_files}/split.toml"
        )
        said = run(words, two_files, check=False)
        assert said.returncode == 1
        assert "in another order" in said.stderr
        assert not (two_files / "runs").exists()
    copy = shutil.copytree(ptrag / "ptrag", two_files / "copy")
    said = run(["tx", "predict", "--output-dir", str(copy), "--toml", "split.toml"], two_files, check=False)
    assert said.returncode == 1
    assert "in another order" in said.stderr
    command = next(line for line in said.stderr.splitlines() if "data prepare" in line)
    words = command.split("`state-rag ")[1].split("`")[0].split()
    run([*words, "-o", "two.h5ad"], two_files, via=OURS)
    shutil.move(two_files / "two.h5ad", two_files / "data" / "two.h5ad")
    assert run(["data", "check", "split.toml"], two_files, via=OURS).returncode == 0
    run(["tx", "predict", "--output-dir", str(copy), "--toml", "split.toml"], two_files)
    mixed = ad.read_h5ad(copy / "eval_last.ckpt" / "adata_real.h5ad")
    assert mixed.n_vars == cells.obsm["X_hvg"].shape[1]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("counts", "counts (whole numbers)"),
        ("nan", "1 NaN values"),
        ("infinite", "1 infinite values"),
        ("negative", "negative values"),
    ],
)
def test_values_that_train_wrongly_are_refused_by_check_and_train_before_anything_is_written(
    project, cells, tmp_path, fault, said
):
    other = cells.copy()
    values = other.obsm["X_hvg"].copy()
    if fault == "counts":
        values = np.rint(np.expm1(values)).astype(np.float32)
    else:
        values[7, 3] = {"nan": np.nan, "infinite": np.inf, "negative": -0.5}[fault]
    other.obsm["X_hvg"] = values
    other.write_h5ad(tmp_path / "screen.h5ad")
    split = tmp_path / "split.toml"
    split.write_text(project.split.read_text().replace(str(project.h5ad), str(tmp_path / "screen.h5ad")))
    checked = run(["data", "check", "split.toml"], tmp_path, via=OURS, check=False)
    assert checked.returncode == 1
    assert said in checked.stdout
    trained = run(project.train_rag("x", f"data.kwargs.toml_config_path={split}"), tmp_path, check=False)
    assert trained.returncode == 1
    assert said in trained.stderr
    assert not (tmp_path / "runs").exists()


def test_labels_of_drugs_with_their_dose_are_told_what_to_do(project, cells, tmp_path):
    other = cells.copy()
    names = [name for name in other.obs["gene"].cat.categories if name != "non-targeting"]
    other.obs["gene"] = other.obs["gene"].cat.rename_categories({name: f"[('{name}', 0.5, 'uM')]" for name in names})
    other.write_h5ad(tmp_path / "screen.h5ad")
    run(["data", "split", "screen.h5ad", "--held-out", "hepg2", "-o", "split.toml"], tmp_path, via=OURS)
    words = project.train_rag("x", f"data.kwargs.toml_config_path={tmp_path}/split.toml")
    refused = run(words, tmp_path, check=False)
    assert refused.returncode == 1
    assert f"Of the {len(names)} drugs" in refused.stderr
    assert f"the file knows {len(names)}. Write the drug's name alone into an obs column" in refused.stderr


def test_a_run_trained_with_a_relative_split_predicts_from_any_folder(project, tmp_path):
    (tmp_path / "here").mkdir()
    shutil.copy(project.split, tmp_path / "here" / "split.toml")
    words = project.train_rag(
        "own", "data.kwargs.toml_config_path=split.toml", "training.max_steps=2", "training.val_freq=2"
    )
    run(words, tmp_path / "here")
    (tmp_path / "here" / "split.toml").unlink()
    run(["tx", "predict", "--output-dir", "here/runs/own", "--max-batches", "2"], tmp_path)
    assert (tmp_path / "here" / "runs" / "own" / "eval_last.ckpt" / "adata_pred.h5ad").is_file()


def test_plain_state_is_warned_and_runs_unchanged(plain_pair, cells, tmp_path):
    other = permuted(cells)
    other.write_h5ad(tmp_path / "in.h5ad")
    words = ["tx", "infer", "--adata", "in.h5ad", "--pert-col", "gene", "--embed-key", "X_hvg", "--output"]
    ours = run([*words, "a.h5ad", "--model-dir", str(plain_pair["with"])], tmp_path)
    run([*words, "b.h5ad", "--model-dir", str(plain_pair["with"])], tmp_path, env={"STATE_RAG_DISABLE": "1"})
    assert "STATE takes columns by position, and predicts all the same" in ours.stderr
    found, expected = ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_h5ad(tmp_path / "b.h5ad")
    assert np.array_equal(found.obsm["X_hvg"], expected.obsm["X_hvg"])
