import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.engine.effects import predicted_effects
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.errors import StateRagError
from tests.engine.runs import QUICK


@pytest.fixture(scope="module")
def folder(evidence_run):
    return evidence_run[1]


@pytest.fixture(scope="module")
def run(folder):
    return read_run(folder)


def test_by_default_what_was_not_measured_is_predicted_in_every_context(run):
    found = predicted_effects(run)
    measured = set(run.engine.responses.conditions)
    conditions = set(zip(found.obs["context"], found.obs["perturbation"], strict=True))
    names = set(run.engine.bank.perturbations) - {"non-targeting"}
    assert conditions == {(c, p) for c in run.engine.bank.contexts for p in names} - measured
    assert not found.obs["measured"].any()


def test_rows_are_what_the_engine_says(run):
    name = run.engine.responses.conditions[0][1]
    found = predicted_effects(run, ["hepg2"], [name])
    own = run.engine.predict("hepg2", [name])
    assert np.array_equal(found.X, own.mean)
    assert found.obs_names.tolist() == [f"{name} in hepg2"]
    assert found.var_names.tolist() == list(run.engine.responses.genes)
    assert found.layers["std"].shape == found.X.shape
    assert found.obs["neighbours"].iloc[0].split("|")[0] == own.neighbours[0][0][0]


def test_what_nothing_is_known_of_is_refused_with_close_spellings(run):
    name = run.engine.bank.perturbations[0]
    with pytest.raises(StateRagError, match=f"nothing is known of {name}X.*close spellings: {name}X -> "):
        predicted_effects(run, ["hepg2"], [f"{name}X"])
    with pytest.raises(StateRagError, match="hepg22 -> hepg2"):
        predicted_effects(run, ["hepg22"])
    assert len(predicted_effects(run, ["liver"], [name], new_context=True)) == 1


@pytest.mark.parametrize(
    ("contexts", "perturbations", "lacking"),
    [([], None, "context"), (["hepg2"], [], "perturbation"), (["hepg2"], ["non-targeting"], "but the control")],
)
def test_where_nothing_was_named_that_is_said(run, contexts, perturbations, lacking):
    with pytest.raises(StateRagError, match=rf"nothing to predict: no .*{lacking}.* was named\.$"):
        predicted_effects(run, contexts, perturbations)


def test_where_all_was_measured_that_is_said(tmp_path):
    effects = sr.effects.from_anndata(sr.datasets.screen(n_perturbations=6, n_genes=20))
    sr.effects.write(effects, tmp_path / "effects.h5ad")
    run = fit(tmp_path / "effects.h5ad", tmp_path / "run", settings=QUICK, progress=False)
    with pytest.raises(StateRagError, match="nothing to predict: all that the run knows was measured"):
        predicted_effects(run)


def test_the_command_writes_a_table_and_says_what_is_in_it(folder, run, tmp_path, capsys):
    path = tmp_path / "effects.h5ad"
    main(["evidence", "predict", str(folder), "--context", "hepg2", "-o", str(path), "--quiet"])
    printed = capsys.readouterr().out
    found = ad.read_h5ad(path)
    assert f"hepg2: {len(found)} predicted" in printed
    assert f"Written: {path}" in printed
    np.testing.assert_array_equal(found.X, sr.load(folder).effects("hepg2").X)
    assert main(["evidence", "predict", str(folder), "-o", str(tmp_path / "effects.csv")]) == 1
    assert "give a name that ends in .h5ad" in capsys.readouterr().err


def test_a_table_that_anndata_wrote_is_fitted_and_one_without_its_columns_is_told_what_cells_need(tmp_path):
    effects = sr.effects.from_anndata(sr.datasets.screen(n_perturbations=6, n_genes=20))
    plain = ad.AnnData(effects.X, obs=effects.obs[["perturbation", "context"]], var=effects.var)
    plain.write_h5ad(tmp_path / "plain.h5ad")
    run = fit(tmp_path / "plain.h5ad", tmp_path / "run", settings=QUICK, progress=False)
    assert len(run.engine.responses) == len(effects)
    del plain.obs["context"]
    plain.write_h5ad(tmp_path / "less.h5ad")
    with pytest.raises(StateRagError, match="less.h5ad.*cell line.*--cell-type-key"):
        fit(tmp_path / "less.h5ad", tmp_path / "no", settings=QUICK, progress=False)


@pytest.fixture(scope="module")
def pairs_alone(tmp_path_factory):
    """A run on effects in which the context `pairs` has combinations alone."""
    rng = np.random.default_rng(0)
    singles = {(line, name): rng.normal(size=30) for line in ("a", "b") for name in ("P", "Q", "R", "S")}
    made = {(line, "P+Q"): singles["a", "P"] + singles["a", "Q"] for line in ("a", "pairs")}
    made["pairs", "Q+R"] = singles["a", "Q"] + singles["a", "R"]
    obs = pd.DataFrame([*singles, *made], columns=["context", "perturbation"]).rename(index=str)
    folder = tmp_path_factory.mktemp("pairs")
    ad.AnnData(np.stack([*singles.values(), *made.values()]), obs=obs).write_h5ad(folder / "effects.h5ad")
    fit(folder / "effects.h5ad", folder / "run", settings=QUICK, progress=False)
    return folder / "run"


def test_a_context_with_combinations_alone_is_known(pairs_alone):
    run = read_run(pairs_alone)
    assert "pairs" not in run.engine.responses.context_names
    found = predicted_effects(run)
    here = found.obs[found.obs["context"] == "pairs"]
    assert set(here["perturbation"]) == {"P", "Q", "R", "S"}  # what was measured there is left out
    again = predicted_effects(run, ["pairs"], ["P+Q", "P+R"])
    assert again.obs["measured"].tolist() == [True, False]
    assert main(["explain", str(pairs_alone), "--perturbation", "P+R", "--context", "pairs"]) == 0
    assert main(["design", str(pairs_alone), "--budget", "2", "--context", "pairs", "--quiet"]) == 0
    with pytest.raises(StateRagError, match=r"'pair' is neither .*\(a, b, pairs\); close spellings: pair -> pairs"):
        predicted_effects(run, ["pair"])
