"""The evidence engine alone and under STATE, with the real commands."""

import anndata as ad
import numpy as np
import pytest

from tests.end_to_end.commands import OURS, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(project, tmp_path_factory):
    """A folder with `engine` (the engine alone) and `runs/anchored` (STATE anchored by it), both predicted."""
    folder = tmp_path_factory.mktemp("evidence")
    given = ["--embeddings", str(project.embeddings), "--seed", "42", "--quiet"]
    fitted = run(["evidence", "fit", str(project.split), "-o", "engine", *given], folder, via=OURS)
    assert "next: state tx predict --output-dir engine" in fitted.stdout
    words = project.train("anchored", "rag=evidence", f"training.genept_path={project.embeddings}")
    run(words, folder)
    for name in ("engine", "runs/anchored"):
        run(["tx", "predict", "--output-dir", name, "--eval-genept-pert", "--predict-only"], folder)
    return folder


def means(cells):
    groups = cells.obs["gene"].astype(str) + " " + cells.obs["cell_line"].astype(str)
    return {name: np.asarray(cells[groups == name].X).mean(axis=0) for name in groups.unique()}


def test_both_predict_the_same_means_for_the_same_real_cells(runs):
    folders = [runs / name / "eval_last.ckpt" for name in ("engine", "runs/anchored")]
    predicted = [means(ad.read_h5ad(folder / "adata_pred.h5ad")) for folder in folders]
    assert predicted[0].keys() == predicted[1].keys()
    for name, mean in predicted[0].items():
        assert np.allclose(mean, predicted[1][name], atol=2e-3), name
    for folder in folders:
        cells = ad.read_h5ad(folder / "adata_pred.h5ad")
        assert cells.obs["expected_pearson"].notna().any()
        assert (folder / "trust.csv").is_file()
    compared = run(["compare", "engine", "runs/anchored", "--metrics", "pearson_delta"], runs, via=OURS)
    assert "same pert., other lines" in compared.stdout


def test_every_command_takes_such_a_run(runs, project, tmp_path):
    run(["report", str(runs / "engine"), "-o", "report", "--quiet"], tmp_path, via=OURS)
    assert (tmp_path / "report" / "index.html").is_file()
    run(["retrieval", str(runs / "engine")], tmp_path, via=OURS)
    cells = ad.read_h5ad(project.h5ad)
    cells[:, ::-1].copy().write_h5ad(tmp_path / "in.h5ad")
    name = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[0]
    found = {}
    for which in ("engine", "runs/anchored"):
        words = ["tx", "infer", "--model-dir", str(runs / which), "--adata", "in.h5ad", "--pert-col", "gene"]
        run([*words, "--perturbations", name, "--output", "out.h5ad"], tmp_path)
        found[which] = means(ad.read_h5ad(tmp_path / "out.h5ad"))
    for line in ("k562", "rpe1", "hepg2"):
        assert np.allclose(found["engine"][f"{name} {line}"], found["runs/anchored"][f"{name} {line}"], atol=2e-3)


def test_a_network_that_is_anchored_is_explained_as_the_engine_is(runs, project, tmp_path):
    cells = ad.read_h5ad(runs / "engine" / "eval_last.ckpt" / "adata_pred.h5ad")
    name = next(name for name in cells.obs["gene"].astype(str) if name != "non-targeting")
    tables = []
    for which in ("engine", "runs/anchored"):
        words = ["explain", str(runs / which), "--perturbation", name, "--context", "hepg2", "-o", str(tmp_path)]
        assert "correction" in run(words, tmp_path, via=OURS).stdout
        tables.append((tmp_path / f"hepg2_{name}_genes.csv").read_text())
    assert tables[0] == tables[1]


def test_what_only_networks_do_is_refused_with_the_way_on(runs, project):
    for words, said in (
        (["tx", "predict", "--output-dir", "engine", "--pseudobulk"], "are for networks"),
        (
            ["tx", "infer", "--model-dir", "engine", "--adata", str(project.h5ad), "--pert-col", "gene", "--all-perts"],
            "--perturbations",
        ),
    ):
        refused = run(words, runs, check=False)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr
