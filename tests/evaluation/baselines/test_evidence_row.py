import json
import logging
import shutil

import anndata as ad
import numpy as np
import pytest
import torch

from state_rag.checkpoint import CHECKPOINT_KEY, pack
from state_rag.cli import main
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.conditions import Columns, Condition
from state_rag.effects.training_effects import training_effects
from state_rag.engine.bank import responses_of
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.held_out import conditions_of
from state_rag.engine.predict import predict
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import evidence_row
from state_rag.evaluation.baselines.evidence_row import FITTED, LEFT_OUT, EvidenceRow, why_too_large
from state_rag.evaluation.baselines.naive import EVIDENCE, cells_of, profile_of
from state_rag.evaluation.results import load_tables
from state_rag.evaluation.run_evaluation import evaluate_run
from state_rag.evaluation.runs import find_run
from state_rag.evidence.estimator import Evidence
from state_rag.metrics.registry import METRICS, choose
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings
from tests.evaluation.made_up import CONTROL, HELD_OUT

SOME = choose(["mse", "pearson_delta"])


@pytest.fixture(scope="module")
def vectors(screen, tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, **screen.embeddings)
    return path


@pytest.fixture
def copy(runs, tmp_path):
    return shutil.copytree(runs["good"], tmp_path / "good", ignore=shutil.ignore_patterns("gge"))


@pytest.fixture
def engine_run(screen, vectors, tmp_path):
    """An evidence run on the screen's split, predicted."""
    settings = evidence_row.SETTINGS
    fit(screen.toml, tmp_path / "engine", embeddings=vectors, settings=settings, progress=False)
    predict(read_run(tmp_path / "engine"), screen.toml, tmp_path / "engine" / "eval_last.ckpt", progress=False)
    return tmp_path / "engine"


@pytest.fixture
def counted(monkeypatch):
    """Count the fits."""
    fits, fitted = [], Evidence.fit

    def count(self, *args, **named):
        fits.append(self)
        return fitted(self, *args, **named)

    monkeypatch.setattr(Evidence, "fit", count)
    return fits


def row_of(folder):
    _, baselines, summary = load_tables(folder)
    return baselines[baselines["predictor"] == EVIDENCE], summary["metadata"]["notes"]


def made_row(training, toml, asked, vectors=None):
    responses = responses_of(training, [str(gene) for gene in range(60)], CONTROL)
    conditions = conditions_of(read_split(toml), Columns())
    given = (vectors, "given")
    return evidence_row.evidence_row(responses, conditions, CONTROL, asked, given, expression=True, progress=False)[0]


def test_the_row_is_what_the_engine_alone_gives_as_a_run(copy, engine_run, vectors):
    row, notes = row_of(evaluate_run(find_run(copy), embeddings=vectors, progress=False))
    own, _, _ = load_tables(evaluate_run(find_run(engine_run), embeddings=vectors, progress=False))
    of_cells = {metric.name for metric in METRICS if metric.on != "profiles"}
    for metric in METRICS:
        # cells start from other draws of the same controls
        tolerance = {"rtol": 0.1, "atol": 0.02} if metric.name in of_cells else {"rtol": 2e-4, "atol": 2e-5}
        np.testing.assert_allclose(row[metric.name], own[metric.name], err_msg=metric.name, **tolerance)
    assert notes[FITTED] == f"fitted on 60 training conditions and embeddings of 24 of 24 perturbations ({vectors})"


def test_a_run_of_the_engine_has_no_such_row_and_nothing_is_fitted(engine_run, vectors, counted):
    row, notes = row_of(evaluate_run(find_run(engine_run), embeddings=vectors, metrics=SOME, progress=False))
    assert row.empty
    assert notes[LEFT_OUT] == "the run is the evidence engine itself"
    assert not counted


def test_runs_on_the_same_split_share_one_fit(runs, vectors, tmp_path, counted, monkeypatch):
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "cache"))
    rows = []
    for name in ("good", "poor"):
        folder = evaluate_run(
            find_run(runs[name]), embeddings=vectors, metrics=SOME, output=tmp_path / name, progress=False
        )
        rows.append(row_of(folder)[0])
    assert len(counted) == 1
    np.testing.assert_array_equal(rows[0]["mse"], rows[1]["mse"])


def test_embeddings_or_none_are_told_and_make_another_fit(copy, vectors, tmp_path, counted, monkeypatch):
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "cache"))
    told_of = {}
    for name, told in (("with", {"embeddings": vectors}), ("without", {})):
        folder = evaluate_run(find_run(copy), metrics=SOME, output=tmp_path / name, progress=False, **told)
        told_of[name] = row_of(folder)[1][FITTED]
    assert told_of["without"] == "fitted on 60 training conditions and no embeddings"
    assert str(vectors) in told_of["with"]
    assert [[source.name for source in engine.similarity.sources] for engine in counted] == [["text"], []]


def test_embeddings_that_travel_in_the_checkpoint_are_taken_where_there_is_no_file(copy, screen, counted, monkeypatch):
    monkeypatch.setenv("STATE_RAG_CACHE", str(copy / "cache"))
    names = screen.perturbations[:20]
    knowledge = Knowledge(names, {"text": np.stack([screen.embeddings[name] for name in names])})
    (copy / "checkpoints").mkdir()
    torch.save({CHECKPOINT_KEY: pack(knowledge, RagSettings())}, copy / "checkpoints" / "last.ckpt")
    folder = evaluate_run(find_run(copy), metrics=SOME, progress=False)
    _, baselines, summary = load_tables(folder)
    assert summary["metadata"]["notes"][FITTED].endswith(
        "embeddings of 20 of 24 perturbations (in the run's checkpoint)"
    )
    assert "embedding ridge" in set(baselines["predictor"])
    (engine,) = counted
    assert int(engine.similarity.sources[0].known.sum()) == 20


def test_no_held_out_cell_changes_the_row(screen, vectors, tmp_path):
    cells = ad.read_h5ad(screen.h5ad)
    hidden = ((cells.obs["cell_line"] == HELD_OUT) & cells.obs["gene"].isin(screen.test)).to_numpy()
    cells.obsm["X_hvg"][hidden] = 9 - cells.obsm["X_hvg"][hidden]
    cells.write_h5ad(tmp_path / "screen.h5ad")
    (tmp_path / "split.toml").write_text(
        screen.toml.read_text().replace(str(screen.h5ad), str(tmp_path / "screen.h5ad"))
    )
    found = []
    for toml in (screen.toml, tmp_path / "split.toml"):
        training = training_effects(read_split(toml), Columns(), "obsm/X_hvg", len(screen.genes), progress=False)
        asked = [Condition(name, HELD_OUT, np.arange(3), np.arange(3)) for name in screen.test]
        row = made_row(training, toml, asked, screen.embeddings)
        found.append(np.stack([row.effect(name, HELD_OUT) for name in screen.test]))
    np.testing.assert_array_equal(*found)


def test_without_evidence_nothing_is_fitted_and_asking_adds_the_row(copy, counted):
    def evaluates(**asked):
        summary = copy / "eval_last.ckpt" / "gge" / "summary.json"
        before = summary.stat().st_mtime_ns if summary.is_file() else 0
        folder = evaluate_run(find_run(copy), metrics=SOME, progress=False, force=False, **asked)
        return summary.stat().st_mtime_ns > before, row_of(folder)

    new, (row, notes) = evaluates(with_evidence=False)
    assert new
    assert row.empty
    assert notes[LEFT_OUT] == "not asked for"
    assert not counted
    assert not evaluates(with_evidence=False)[0]
    new, (row, _) = evaluates()
    assert new
    assert len(row) == 12
    assert not evaluates()[0]
    assert not evaluates(with_evidence=False)[0]


def test_an_evaluation_from_before_there_was_the_row_is_made_again(copy):
    folder = evaluate_run(find_run(copy), metrics=SOME, progress=False)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["metadata"]["notes"][FITTED]
    (folder / "summary.json").write_text(json.dumps(summary))
    again = evaluate_run(find_run(copy), metrics=SOME, progress=False, force=False)
    assert FITTED in row_of(again)[1]


def test_a_large_screen_has_the_row_only_when_it_is_asked_for(copy, monkeypatch, counted):
    monkeypatch.setattr(evidence_row, "MOST_VALUES", 60 * 60 - 1)
    row, notes = row_of(evaluate_run(find_run(copy), metrics=SOME, progress=False))
    assert row.empty
    assert notes[LEFT_OUT].startswith("a large screen: 60 training conditions x 60 genes take")
    assert "--evidence" in notes[LEFT_OUT]
    again = evaluate_run(find_run(copy), metrics=SOME, progress=False, force=False)
    assert row_of(again)[0].empty
    assert not counted
    asked = evaluate_run(find_run(copy), metrics=SOME, progress=False, force=False, with_evidence=True)
    assert len(row_of(asked)[0]) == 12


def test_what_cannot_be_fitted_is_one_line_of_warning_unless_it_was_asked_for(copy, monkeypatch, caplog):
    def fails(*_, **__):
        raise StateRagError("nothing to fit on.")

    monkeypatch.setattr(evidence_row, "kept_fit", fails)
    caplog.set_level(logging.WARNING)
    row, notes = row_of(evaluate_run(find_run(copy), metrics=SOME, progress=False))
    assert row.empty
    assert notes[LEFT_OUT] == "nothing to fit on."
    assert "There is no row of the evidence engine: nothing to fit on." in caplog.text
    with pytest.raises(StateRagError, match="nothing to fit on"):
        evaluate_run(find_run(copy), metrics=SOME, progress=False, with_evidence=True)


def test_cells_of_the_row_have_its_mean_and_as_many_zeros_as_go_with_it(screen):
    training = training_effects(read_split(screen.toml), Columns(), "obsm/X_hvg", len(screen.genes), progress=False)
    one = Condition(screen.test[0], HELD_OUT, np.arange(3), np.arange(3))
    row = made_row(training, screen.toml, [one])
    cells = ad.read_h5ad(screen.h5ad)
    controls = cells[(cells.obs["cell_line"] == HELD_OUT) & (cells.obs["gene"] == CONTROL)].X.copy()
    controls[:5, 0] = 0
    control = controls.mean(axis=0, dtype=np.float64)
    wanted = np.clip(control + row.effect(screen.test[0], HELD_OUT), 0, 14)
    np.testing.assert_allclose(profile_of(row, one, control), wanted)
    moved = cells_of(row, one, controls, control, 0.0)
    np.testing.assert_allclose(moved.mean(axis=0), wanted, atol=1e-4)
    assert isinstance(row, EvidenceRow)
    assert row.knows(screen.test[0], HELD_OUT)
    showing = 1 - (1 - (controls[:, 0] > 0).mean()) ** (wanted[0] / control[0])
    assert (moved[:, 0] > 0).sum() == round(showing * len(controls))
    assert why_too_large(training, len(screen.genes)) == ""


def test_compare_and_report_show_the_row_once_and_an_evidence_run_in_its_place(
    runs, engine_run, vectors, tmp_path, capsys
):
    options = ["--embeddings", str(vectors), "--metrics", "pearson_delta", "energy_pca50", "--quiet"]
    both = [str(runs["good"]), str(runs["poor"])]
    assert main(["compare", *both, *options, "-o", str(tmp_path / "both")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    table = (tmp_path / "both" / "comparison.md").read_text()
    assert table.splitlines()[0].count(EVIDENCE) == 1
    assert "evidence, controls scaled: the evidence engine, fitted on 60 training conditions and emb" in shown
    assert main(["compare", *both, *options, "--no-evidence", "-o", str(tmp_path / "none")]) == 0
    assert EVIDENCE not in (tmp_path / "none" / "comparison.md").read_text()
    capsys.readouterr()
    assert main(["compare", str(engine_run), *both, *options, "-o", str(tmp_path / "engine")]) == 0
    assert EVIDENCE not in (tmp_path / "engine" / "comparison.md").read_text()
    assert "The evidence engine alone: engine." in " ".join(capsys.readouterr().out.split())
    assert main(["report", *both, *options, "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count(f"<th>{EVIDENCE}</th>") == 1
