import json
import shutil

import anndata as ad
import gge
import numpy as np
import pandas as pd
import pytest
import yaml

from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import NAIVE
from state_rag.evaluation.evaluate import Settings
from state_rag.evaluation.results import definitions, load_profiles, load_tables
from state_rag.evaluation.run_evaluation import evaluate_run
from state_rag.evaluation.runs import find_run
from state_rag.metrics.registry import choose


@pytest.fixture(scope="module")
def evaluated(runs, screen):
    return evaluate_run(find_run(runs["good"]), embeddings=screen.embeddings, progress=False, per_gene=("mse", "mae"))


def test_results_lie_in_gges_layout_and_gge_reads_them(evaluated, screen):
    names = {path.name for path in evaluated.iterdir()}
    assert names >= {"results.csv", "summary.json", "per_gene_mse.csv", "per_gene_mae.csv", "baselines.csv", "plots"}
    assert (evaluated / "plots" / "distributions.png").is_file()
    loaded = gge.EvaluationResult.load(evaluated)
    assert loaded.get_split("test").n_conditions == len(screen.test)
    table = pd.read_csv(evaluated / "results.csv")
    assert table["condition_key"][0] == "P00####hepg2"
    assert {"split", "n_real_samples", "n_generated_samples", "n_genes", "gene", "cell_line"} <= set(table.columns)


def test_per_gene_tables_name_genes_and_average_to_the_metric(evaluated, screen):
    per_gene = pd.read_csv(evaluated / "per_gene_mse.csv", index_col=0)
    table = pd.read_csv(evaluated / "results.csv")
    assert per_gene.index.tolist() == screen.genes
    np.testing.assert_allclose(per_gene.mean().to_numpy(), table["mse"], rtol=1e-3)


def test_the_summary_says_where_spaces_were_fitted_and_what_was_counted(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    metadata = summary["metadata"]
    assert "per condition" in metadata["spaces"]["degs"]
    assert "once per cell line" in metadata["spaces"]["pca"]
    assert metadata["spaces"]["fitted_on_cells"] == {"hepg2": 12 * 25 + 100}
    assert metadata["notes"]["training_conditions"] == 12 + 2 * 24
    table = pd.read_csv(evaluated / "results.csv")
    mean = summary["splits"]["test"]["aggregates"]["energy_pca50_mean"]
    assert mean == pytest.approx(table["energy_pca50"].mean())


def test_baselines_are_beside_the_model_and_rank_as_planted(evaluated):
    model, baselines, _ = load_tables(evaluated)
    means = baselines.groupby("predictor")["pearson_delta"].mean()
    assert means["no effect"] == 0
    assert means["mean effect"] < 0.5 < means["same pert., other lines"]
    assert means["embedding ridge"] > 0.5
    assert means["evidence, controls scaled"] > means["mean effect"]
    assert len(baselines) == 5 * len(model)


def test_profiles_can_be_read_back(evaluated, screen):
    profiles, features = load_profiles(evaluated)
    assert features == screen.genes
    assert profiles["hepg2"].real.shape == (12, 60)
    assert profiles["hepg2"].perturbations == screen.test


def test_a_finished_evaluation_is_kept_until_settings_or_predictions_change(runs, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy)
    shutil.rmtree(copy / "eval_last.ckpt" / "gge", ignore_errors=True)
    run = find_run(copy)
    folder = evaluate_run(run, with_baselines=False, progress=False)
    stamp = (folder / "summary.json").stat().st_mtime_ns
    evaluate_run(run, with_baselines=False, progress=False, force=False)
    assert (folder / "summary.json").stat().st_mtime_ns == stamp
    (copy / "eval_last.ckpt" / "adata_pred.h5ad").touch()
    evaluate_run(run, with_baselines=False, progress=False, force=False)
    assert (folder / "summary.json").stat().st_mtime_ns > stamp


def test_a_later_look_keeps_what_only_predict_was_told(runs, screen, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy)
    shutil.rmtree(copy / "eval_last.ckpt" / "gge", ignore_errors=True)
    run, told = find_run(copy), {"embeddings": screen.embeddings, "progress": False, "force": False}
    folder = evaluate_run(run, keep=set(screen.test[:4]), **told)
    stamp = (folder / "summary.json").stat().st_mtime_ns
    evaluate_run(run, progress=False, force=False)
    assert (folder / "summary.json").stat().st_mtime_ns == stamp
    evaluate_run(run, keep=set(screen.test[:3]), **told)
    assert (folder / "summary.json").stat().st_mtime_ns > stamp


@pytest.fixture
def fresh(runs, tmp_path):
    """A run without an evaluation, and a function that evaluates it where it must and says whether it did."""
    folder = shutil.copytree(runs["good"], tmp_path / "run")
    shutil.rmtree(folder / "eval_last.ckpt" / "gge", ignore_errors=True)

    def evaluates(**asked):
        summary = folder / "eval_last.ckpt" / "gge" / "summary.json"
        before = summary.stat().st_mtime_ns if summary.is_file() else 0
        evaluate_run(find_run(folder), progress=False, force=False, **asked)
        return summary.stat().st_mtime_ns > before

    return folder, evaluates


def test_an_evaluation_that_holds_more_than_is_asked_for_is_kept(fresh):
    _, evaluates = fresh
    some = choose(["mse", "mae"])
    assert evaluates(metrics=some, per_gene=("mse", "mae"))
    assert not evaluates(metrics=some[:1], per_gene=("mae",))
    assert not evaluates(metrics=some, with_baselines=False)
    assert evaluates(metrics=choose(["mse", "rmse"]))
    assert evaluates(metrics=some[:1], per_gene=("mae",))


def test_baselines_that_were_not_asked_for_before_are_added(fresh):
    _, evaluates = fresh
    some = choose(["mse"])
    assert evaluates(metrics=some, with_baselines=False)
    assert evaluates(metrics=some)
    assert not evaluates(metrics=some)


def test_other_settings_splits_and_embeddings_are_evaluated_anew(fresh, screen, tmp_path):
    folder, evaluates = fresh
    some = choose(["mse"])
    np.savez(tmp_path / "v.npz", **screen.embeddings)
    np.savez(tmp_path / "w.npz", **{name: -2 * row for name, row in screen.embeddings.items()})
    (tmp_path / "other.toml").write_text(screen.toml.read_text() + "# another\n")
    assert evaluates(metrics=some)
    assert evaluates(metrics=some, settings=Settings(deg_p=0.2))
    assert evaluates(metrics=some, toml=tmp_path / "other.toml")
    assert not evaluates(metrics=some, toml=tmp_path / "other.toml")
    assert evaluates(metrics=some, embeddings=tmp_path / "v.npz")
    assert not evaluates(metrics=some, embeddings=tmp_path / "v.npz")
    assert evaluates(metrics=some, embeddings=tmp_path / "w.npz")
    assert not evaluates(metrics=some)


def baselines_of(folder):
    return set(load_tables(folder / "eval_last.ckpt" / "gge")[1]["predictor"])


def test_the_ridge_baseline_is_added_once_embeddings_are_known(fresh, screen, tmp_path, monkeypatch):
    folder, evaluates = fresh
    some = choose(["mse"])
    np.savez(tmp_path / "v.npz", **screen.embeddings)
    assert evaluates(metrics=some)
    assert "embedding ridge" not in baselines_of(folder)
    why = load_tables(folder / "eval_last.ckpt" / "gge")[2]["metadata"]["notes"]["baselines_left_out"]
    assert why.startswith("embedding ridge: the run good names none; give a file of embeddings with --embeddings or")
    assert "\n" not in why
    monkeypatch.setenv("STATE_RAG_GENEPT", str(tmp_path / "v.npz"))
    assert evaluates(metrics=some)
    assert "embedding ridge" in baselines_of(folder)
    monkeypatch.delenv("STATE_RAG_GENEPT")
    assert not evaluates(metrics=some)


def test_a_run_whose_training_data_moved_still_evaluates_and_says_what_is_missing(runs, screen, tmp_path, caplog):
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy, ignore=shutil.ignore_patterns("gge"))
    config = (copy / "config.yaml").read_text().replace(str(screen.toml), "/nowhere/split.toml")
    (copy / "config.yaml").write_text(config)
    folder = evaluate_run(find_run(copy), progress=False)
    _, baselines, summary = load_tables(folder)
    assert set(baselines["predictor"]) == {"no effect"}
    assert "/nowhere/split.toml" in summary["metadata"]["notes"]["baselines_left_out"]
    assert "--toml" in summary["metadata"]["notes"]["baselines_left_out"]
    assert "/nowhere/split.toml" in caplog.text
    again = evaluate_run(find_run(copy), toml=screen.toml, embeddings=screen.embeddings, progress=False)
    assert set(load_tables(again)[1]["predictor"]) > {"no effect", "embedding ridge"}


def moved_split(folder, screen):
    """Make a run name a split that is not there yet, and return its path."""
    split = folder / "moved.toml"
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(screen.toml), str(split)))
    return split


def test_baselines_that_lacked_training_data_are_added_once_these_can_be_read(fresh, screen):
    folder, evaluates = fresh
    split, some = moved_split(folder, screen), choose(["mse"])
    assert evaluates(metrics=some)
    assert not evaluates(metrics=some)
    split.write_text(screen.toml.read_text().replace(str(screen.h5ad), "/nowhere/data.h5ad"))
    assert not evaluates(metrics=some)
    shutil.copy(screen.toml, split)
    assert evaluates(metrics=some)
    assert "mean effect" in baselines_of(folder)
    assert not evaluates(metrics=some)


def test_training_data_that_are_there_but_of_no_use_are_read_again_only_when_changed(fresh, screen):
    folder, evaluates = fresh
    split, some = moved_split(folder, screen), choose(["mse"])
    training = ad.read_h5ad(screen.h5ad)
    training.obs["gene"] = training.obs["gene"].astype(str).replace("non-targeting", "NTC")
    training.write_h5ad(folder / "training.h5ad")
    split.write_text(screen.toml.read_text().replace(str(screen.h5ad), str(folder / "training.h5ad")))
    assert evaluates(metrics=some)
    assert baselines_of(folder) == {"no effect"}
    assert not evaluates(metrics=some)
    shutil.copy(screen.h5ad, folder / "training.h5ad")
    assert evaluates(metrics=some)
    assert "mean effect" in baselines_of(folder)


def test_baselines_are_not_lost_to_an_evaluation_that_cannot_have_them(fresh, screen):
    folder, evaluates = fresh
    split, some = moved_split(folder, screen), choose(["mse"])
    shutil.copy(screen.toml, split)
    assert evaluates(metrics=some)
    split.unlink()
    assert not evaluates(metrics=some)
    before = baselines_of(folder)
    for asked in ({"force": True}, {"force": False, "settings": Settings(deg_p=0.2)}):
        with pytest.raises(StateRagError, match="has baselines that a new one would lack.*--toml.*--no-baselines"):
            evaluate_run(find_run(folder), metrics=some, progress=False, **asked)
    assert baselines_of(folder) == before
    (folder / "eval_last.ckpt" / "adata_pred.h5ad").touch()
    assert evaluates(metrics=some)
    assert baselines_of(folder) == {"no effect"}


def test_embeddings_that_cannot_be_read_are_tried_again_only_when_changed(fresh, screen, tmp_path, monkeypatch):
    folder, evaluates = fresh
    some, place = choose(["mse"]), tmp_path / "v.npz"
    monkeypatch.setenv("STATE_RAG_GENEPT", str(place))
    place.write_bytes(b"not an archive")
    assert evaluates(metrics=some)
    assert not evaluates(metrics=some)
    place.write_bytes(b"another that is none")
    assert evaluates(metrics=some)
    np.savez(place, **screen.embeddings)
    assert evaluates(metrics=some)
    assert "embedding ridge" in baselines_of(folder)


def test_pictures_of_an_earlier_evaluation_go_when_they_are_not_drawn_again(fresh):
    folder, evaluates = fresh
    pictures = folder / "eval_last.ckpt" / "gge" / "plots"
    assert evaluates(metrics=choose(["mse", "pearson_delta"]), with_baselines=False)
    assert (pictures / "distributions.png").is_file()
    assert evaluates(metrics=choose(["rmse"]), with_baselines=False)
    assert not list(pictures.glob("distributions.*"))


def test_a_place_where_nothing_can_be_written_is_told_before_the_evaluation(fresh, monkeypatch):
    folder, evaluates = fresh
    (folder / "eval_last.ckpt" / "gge").write_text("a file")
    monkeypatch.setattr("state_rag.evaluation.run_evaluation.open_pair", lambda *_, **__: pytest.fail("evaluated"))
    with pytest.raises(StateRagError, match="is a file, not a folder.*copy .* and name the copy"):
        evaluates()


def evaluated_on(training, run, folder, held_out='[zeroshot]\n"s.hepg2" = "test"\n', **options):
    """Evaluate a run with other training data; return the baselines' table and the notes."""
    training.write_h5ad(folder / "training.h5ad")
    (folder / "training.toml").write_text(
        f'[datasets]\ns = "{folder / "training.h5ad"}"\n[training]\ns = "train"\n{held_out}'
    )
    made = evaluate_run(
        find_run(run), toml=folder / "training.toml", output=folder / "out", progress=False, per_gene=(), **options
    )
    _, baselines, summary = load_tables(made)
    return baselines, summary["metadata"]["notes"]


def test_nan_in_one_training_cell_costs_that_condition_only_and_is_said(runs, screen, tmp_path, caplog):
    training = ad.read_h5ad(screen.h5ad)
    options = {"embeddings": screen.embeddings, "metrics": choose(["mse", "pearson_delta"])}
    (tmp_path / "whole").mkdir()
    whole, _ = evaluated_on(training, runs["good"], tmp_path / "whole", **options)
    bad = np.flatnonzero((training.obs["cell_line"] == "k562") & (training.obs["gene"] == "P20"))[0]
    training.obsm["X_hvg"][bad, 0] = np.nan
    (tmp_path / "bad").mkdir()
    baselines, notes = evaluated_on(training, runs["good"], tmp_path / "bad", **options)
    assert notes["training_conditions"] == 47
    assert notes["training_conditions_with_nan"] == 1
    assert notes["training_conditions_with_nan_are"] == "P20 in k562"
    assert "1 training conditions, since NaN or infinity is among their cells: P20 in k562" in caplog.text
    assert baselines[["mse", "pearson_delta"]].notna().all().all()
    naive = baselines["predictor"].isin(NAIVE)
    np.testing.assert_allclose(baselines["mse"][naive], whole["mse"][naive], rtol=0.1)


def test_training_data_without_the_control_label_are_one_line_of_warning_and_a_note(runs, screen, tmp_path, caplog):
    training = ad.read_h5ad(screen.h5ad)
    training.obs["gene"] = training.obs["gene"].astype(str).replace("non-targeting", "NTC")
    baselines, notes = evaluated_on(training, runs["good"], tmp_path, metrics=choose(["mse"]))
    assert set(baselines["predictor"]) == {"no effect"}
    assert "all that need training data: no training condition can be used; " in notes["baselines_left_out"]
    assert (
        "k562: no control cells (nothing in column 'gene' equals 'non-targeting'; found NTC,"
        in (notes["baselines_left_out"])
    )
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.startswith("Only the no-effect baseline is shown: ") for message in warned] == [True]


def test_a_line_with_nan_among_its_training_controls_is_left_out_of_the_baselines(runs, screen, tmp_path, caplog):
    training = ad.read_h5ad(screen.h5ad)
    bad = np.flatnonzero((training.obs["cell_line"] == "k562") & (training.obs["gene"] == "non-targeting"))[0]
    training.obsm["X_hvg"][bad, 0] = np.inf
    baselines, notes = evaluated_on(training, runs["good"], tmp_path, metrics=choose(["mse"]))
    assert notes["training_lines_left_out"] == "k562: NaN or infinity in its control cells"
    assert notes["training_conditions"] == 24
    assert "k562: NaN or infinity in its control cells" in caplog.text
    assert baselines["mse"].notna().all()


def test_predictions_written_without_adatas_are_a_user_error(runs, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy)
    (copy / "eval_last.ckpt" / "adata_real.h5ad").unlink()
    with pytest.raises(StateRagError, match="adata_real.h5ad.*--skip-adatas"):
        evaluate_run(find_run(copy), progress=False)


def test_an_unknown_per_gene_table_is_refused_before_anything_is_written(runs, tmp_path):
    with pytest.raises(StateRagError, match="--per-gene.*'mze'"):
        evaluate_run(
            find_run(runs["poor"]), with_baselines=False, per_gene=("mze",), output=tmp_path / "out", progress=False
        )
    assert not (tmp_path / "out").exists()


def test_definitions_of_unknown_metrics_are_read_from_the_summary(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    summary["metadata"]["definitions"]["gge_new"] = {"label": "GGE new", "higher_is_better": False, "space": "genes"}
    path = evaluated.parent / "copy"
    path.mkdir(exist_ok=True)
    (path / "summary.json").write_text(json.dumps(summary))
    assert not definitions([path])["gge_new"].higher_is_better
    assert "gge_new" not in definitions([path, evaluated])


@pytest.mark.parametrize("with_copy", [True, False])
def test_an_embedding_is_evaluated_unclipped_where_predict_kept_a_copy(runs, tmp_path, caplog, with_copy):
    folder = shutil.copytree(runs["good"], tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["kwargs"] |= {"output_space": "embedding", "embed_key": "X_state"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("adata_pred.h5ad", "adata_real.h5ad"):
        adata = ad.read_h5ad(folder / "eval_last.ckpt" / name)
        adata.X -= 3
        if with_copy:
            adata.obsm["X_state"] = adata.X.copy()
        np.clip(adata.X, 0, 14, out=adata.X)
        adata.write_h5ad(folder / "eval_last.ckpt" / name)
    written = evaluate_run(find_run(folder), with_baselines=False, progress=False)
    clipped = not (load_profiles(written)[0]["hepg2"].real < 0).any()
    assert clipped == (not with_copy)
    assert ("negative coordinates are lost" in caplog.text) == (not with_copy)


def test_conditions_that_ask_different_questions_are_told(runs, screen, tmp_path):
    training = ad.read_h5ad(screen.h5ad)
    (tmp_path / "few").mkdir()
    every = f'[fewshot."s.hepg2"]\nval = []\ntest = {[f"P{number:02d}" for number in range(12)]}\n'
    _, notes = evaluated_on(training, runs["good"], tmp_path / "few", every, metrics=choose(["mse"]))
    assert "conditions_ask_different_questions" not in notes
    without = training[~((training.obs["cell_line"] != "hepg2") & (training.obs["gene"] == "P03"))].copy()
    (tmp_path / "mixed").mkdir()
    _, notes = evaluated_on(without, runs["good"], tmp_path / "mixed", every, metrics=choose(["mse"]))
    assert notes["conditions_ask_different_questions"].startswith("11 few-shot line (hepg2); 1 unseen perturbation (h")


def test_a_screen_of_one_line_has_no_row_for_other_lines_and_a_note_why(runs, screen, tmp_path):
    training = ad.read_h5ad(screen.h5ad)
    one = training[training.obs["cell_line"] == "hepg2"].copy()
    lists = f'[fewshot."s.hepg2"]\nval = []\ntest = {[f"P{number:02d}" for number in range(12)]}\n'
    baselines, notes = evaluated_on(one, runs["good"], tmp_path, lists, metrics=choose(["mse"]))
    assert set(baselines["predictor"]) == {"no effect", "mean effect"}
    assert notes["not_applicable"].startswith("same pert., other lines (no test perturbation has training cells")
    assert notes["evidence_row_left_out"].startswith("no tested perturbation has an embedding")
    assert not [note for note in notes if note.startswith("fallbacks")]
