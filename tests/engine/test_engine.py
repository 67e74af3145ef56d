import json
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cells.question import Names, Wanted
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.splitting.splits import write_split
from state_rag.effects.conditions import Columns
from state_rag.engine.ask import ask
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.held_out import held_out_cells
from state_rag.engine.predict import predict
from state_rag.engine.trust_table import OF_CELLS, add_trust
from state_rag.errors import StateRagError
from state_rag.run_folders import TRUST
from tests.engine.runs import QUICK, SIZES

NAMES = Names("gene", "cell_line", "non-targeting", "gem_group")


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return simulate_screen(tmp_path_factory.mktemp("screen"), seed=2, **SIZES)


@pytest.fixture(scope="module")
def split(screen):
    return write_split(screen.h5ad, "hepg2", output=screen.h5ad.with_name("split.toml")).path


@pytest.fixture(scope="module")
def run(screen, split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "evidence"
    fit(split, folder, embeddings=screen.embeddings, settings=QUICK, progress=False)
    return folder


@pytest.fixture(scope="module")
def predicted(run, split, tmp_path_factory):
    folder = predict(read_run(run), split, tmp_path_factory.mktemp("eval"), progress=False)
    return tuple(ad.read_h5ad(folder / f"adata_{side}.h5ad") for side in ("pred", "real"))


def test_a_run_comes_back_from_its_folder_as_it_was(run, screen):
    engine = read_run(run).engine
    again = read_run(run).engine.predict("hepg2", engine.responses.perturbation_names)
    found = engine.predict("hepg2", engine.responses.perturbation_names)
    assert np.array_equal(found.mean, again.mean)
    assert json.loads((run / "data_contract.json").read_text())["files"][0]["path"] == str(screen.h5ad)
    assert (run / "split.toml").is_file()


def test_predicted_cells_carry_how_far_to_trust_them(run, predicted):
    found, real = predicted
    engine = read_run(run).engine
    assert set(found.obs.columns) - set(real.obs.columns) == set(OF_CELLS)
    assert "std" not in real.layers
    control = (found.obs["gene"] == "non-targeting").to_numpy()
    assert found.obs["expected_pearson"][control].isna().all()
    assert (found.layers["std"][control] == 0).all()
    names = sorted(set(found.obs["gene"][~control]))
    trust = engine.predict("hepg2", names).trust
    for number, name in enumerate(names):
        chosen = (found.obs["gene"] == name).to_numpy()
        assert set(found.obs["trust_reason"][chosen]) == {trust.reason[number]}
        np.testing.assert_array_equal(
            found.obs["expected_pearson"][chosen], np.full(chosen.sum(), trust.expected[number])
        )
        np.testing.assert_allclose(
            found.layers["std"][chosen], np.tile(trust.std[number], (chosen.sum(), 1)), rtol=1e-6
        )


def test_cells_of_an_anchored_network_get_the_columns_too(run, predicted, tmp_path):
    found, _ = predicted
    bare = found.copy()
    bare.obs = bare.obs.drop(columns=list(OF_CELLS))
    bare.write_h5ad(tmp_path / "adata_pred.h5ad")
    columns = Columns("gene", "cell_line", "non-targeting")
    names = sorted(set(found.obs["gene"]) - {"non-targeting"})
    engine = read_run(run).engine
    assert add_trust([engine.predict("hepg2", [*names, "another"])], tmp_path, columns) == tmp_path / TRUST
    assert set(pd.read_csv(tmp_path / TRUST)["perturbation"]) == set(names)
    again = ad.read_h5ad(tmp_path / "adata_pred.h5ad")
    for name in ("expected_pearson", "trust_reason"):
        assert again.obs[name].astype(object).equals(found.obs[name].astype(object))
    assert np.array_equal(again.X, found.X)
    assert (tmp_path / TRUST).is_file()


def test_a_table_of_trust_has_a_row_a_condition(run, split, tmp_path):
    folder = predict(read_run(run), split, tmp_path, progress=False)
    table = pd.read_csv(folder / TRUST)
    assert not table.duplicated(["context", "perturbation"]).any()
    assert set(table["context"]) == {"hepg2"}
    assert {"use", "trust_score", "calibration_holds", *OF_CELLS} <= set(table.columns)


def test_predicted_cells_are_controls_of_the_line_and_batch_scaled_to_the_predicted_mean(run, predicted, screen):
    cells, (found, real) = ad.read_h5ad(screen.h5ad), predicted
    engine = read_run(run).engine
    assert found.obs[real.obs.columns].equals(real.obs)
    assert found.var_names.tolist() == cells.var_names[cells.var["highly_variable"]].tolist()
    for name in sorted(set(found.obs["gene"]) - {"non-targeting"}):
        chosen = (found.obs["gene"] == name).to_numpy()
        effect = engine.predict("hepg2", [name]).mean[0]
        wanted = np.clip(engine.responses.controls["hepg2"] + effect, 0, None)
        assert np.allclose(found.X[chosen].mean(axis=0), wanted, atol=1e-4)
    control = (found.obs["gene"] == "non-targeting").to_numpy()
    assert np.array_equal(found.X[control], real.X[control])


def test_the_real_side_is_every_tested_cell_and_every_control_of_the_line(predicted, screen, split):
    cells, (_, real) = ad.read_h5ad(screen.h5ad), predicted
    (lists,) = read_split(split).fewshot.values()
    own = cells[(cells.obs["cell_line"] == "hepg2") & cells.obs["gene"].isin([*lists["test"], "non-targeting"])]
    assert real.obs["gene"].value_counts().to_dict() == {
        name: count for name, count in own.obs["gene"].value_counts().to_dict().items() if count
    }
    for name in lists["test"]:
        expected = own[own.obs["gene"] == name].obsm["X_hvg"]
        assert np.array_equal(np.sort(real[real.obs["gene"] == name].X, axis=0), np.sort(expected, axis=0))


def test_no_cell_that_is_held_out_changes_a_run(screen, split, run, tmp_path):
    cells = ad.read_h5ad(screen.h5ad)
    (lists,) = read_split(split).fewshot.values()
    hidden = ((cells.obs["cell_line"] == "hepg2") & cells.obs["gene"].isin([*lists["test"], *lists["val"]])).to_numpy()
    cells.obsm["X_hvg"][hidden] = cells.obsm["X_hvg"][hidden][::-1] * 0.5
    cells.write_h5ad(tmp_path / "screen.h5ad")
    toml = split.read_text().replace(str(screen.h5ad), str(tmp_path / "screen.h5ad"))
    (tmp_path / "split.toml").write_text(toml)
    other = fit(tmp_path / "split.toml", tmp_path / "run", embeddings=screen.embeddings, settings=QUICK, progress=False)
    names = [*lists["test"], *lists["val"]]
    assert np.array_equal(other.engine.predict("hepg2", names).mean, read_run(run).engine.predict("hepg2", names).mean)


def test_controls_are_drawn_by_batch_without_repeats_and_by_seed(screen, split):
    (group,) = held_out_cells(read_split(split), Columns(), "gem_group")
    name = next(iter(group.conditions))
    rows = group.control_rows(name, 0)
    assert np.array_equal(rows, group.control_rows(name, 0))
    assert not np.array_equal(rows, group.control_rows(name, 1))
    assert (group.batches[rows] == group.batches[group.conditions[name]]).all()
    assert set(rows) <= set(group.controls)
    for batch in np.unique(group.batches[rows]):
        drawn, there = (np.count_nonzero(group.batches[some] == batch) for some in (rows, group.controls))
        assert len(set(rows[group.batches[rows] == batch])) == min(drawn, there)


def test_cells_in_memory_are_answered_with_names_sources_and_a_record(run, screen):
    cells = ad.read_h5ad(screen.h5ad)
    wanted = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[:3]
    order = np.random.default_rng(0).permutation(cells.n_vars)
    found = ask(read_run(run), cells, NAMES, Wanted(wanted, ["hepg2", "k562"], 10))
    moved = ask(read_run(run), cells[:, order].copy(), NAMES, Wanted(wanted, ["hepg2", "k562"], 10))
    assert np.array_equal(found.X, moved.X)
    assert found.uns["state_rag"]["mode"] == "evidence"
    lines = cells.obs["cell_line"].astype(str)
    assert (lines[found.obs["source_cell"]].to_numpy() == found.obs["cell_line"].astype(str)).all()
    again = sr.load(run).predict(cells, wanted, ["hepg2", "k562"], n_cells=10)
    assert np.array_equal(again.X, found.X)
    assert again.obs["context"].tolist() == found.obs["cell_line"].tolist()


def test_a_cell_line_that_the_run_does_not_know_is_told(run, screen, caplog):
    cells = ad.read_h5ad(screen.h5ad)
    wanted = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[:1]
    ask(read_run(run), cells, NAMES, Wanted(wanted, None, 5))
    assert "taken for new cell lines" not in caplog.text
    cells.obs["cell_line"] = cells.obs["cell_line"].cat.rename_categories({"k562": "K562 "})
    ask(read_run(run), cells, NAMES, Wanted(wanted, None, 5))
    assert "Nothing was measured in 'K562 ': taken for new cell lines" in caplog.text
    assert "K562  -> k562" in caplog.text


def test_a_table_of_effects_is_enough(screen, tmp_path):
    effects = sr.effects.from_anndata(ad.read_h5ad(screen.h5ad), matrix="obsm/X_hvg")
    sr.effects.write(effects, tmp_path / "effects.h5ad")
    made = fit(
        tmp_path / "effects.h5ad", tmp_path / "run", embeddings=screen.embeddings, settings=QUICK, progress=False
    )
    assert made.engine.predict("k562", ["never seen"]).mean.shape == (1, effects.n_vars)
    with pytest.raises(StateRagError, match="without cells"):
        predict(made, tmp_path / "none.toml", tmp_path / "eval")


def test_what_is_there_is_not_written_over(run, split, screen, tmp_path):
    with pytest.raises(StateRagError, match="holds an evidence run already.*--overwrite"):
        fit(split, run, settings=QUICK, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(StateRagError, match="is not empty, and no evidence run"):
            fit(split, tmp_path / "mine", settings=QUICK, overwrite=overwrite, progress=False)
    (tmp_path / "mine" / "config.yaml").write_text("model: {name: state}")
    with pytest.raises(StateRagError, match="no evidence run; make one with"):
        read_run(tmp_path / "mine")


def test_a_damaged_run_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "checkpoints" / "last.ckpt").write_bytes(b"no")
    with pytest.raises(StateRagError, match=r"last\.ckpt cannot be read.*Fit the run again"):
        read_run(copy)


def test_embeddings_that_know_no_perturbation_are_refused_and_none_are_said(split, tmp_path, caplog, monkeypatch):
    (tmp_path / "other.csv").write_text("name,a,b\nX1,1,0\nX2,0,1\n")
    with pytest.raises(StateRagError, match="has an embedding for none of the 12 perturbations"):
        fit(split, tmp_path / "run", embeddings=tmp_path / "other.csv", settings=QUICK, progress=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STATE_RAG_GENEPT", raising=False)
    fit(split, tmp_path / "run", settings=QUICK, progress=False)
    assert "knows nothing of perturbations" in caplog.text


def test_a_prediction_names_the_perturbations_that_its_explanation_weighs_most(run, split):
    engine = read_run(run).engine
    (lists,) = read_split(split).fewshot.values()
    names = [*lists["test"], "never heard of"]
    found = engine.predict("hepg2", names).neighbours
    assert found[-1] == ()
    for name, heaviest in zip(lists["test"], found, strict=False):
        explained = engine.explain("hepg2", name)
        weights = {}
        for (_, other), weight in zip(explained.conditions, np.abs(explained.weights), strict=True):
            weights[other] = weights.get(other, 0) + weight
        largest = max(weights.values())
        assert [weight for _, weight in heaviest] == sorted((weight for _, weight in heaviest), reverse=True)
        assert heaviest[0][1] == pytest.approx(1)
        for other, weight in heaviest:
            assert weight == pytest.approx(weights[other] / largest, abs=1e-6)
