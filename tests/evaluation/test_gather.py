import json
import shutil

import pytest
import yaml

from state_rag.cli import main
from state_rag.effects.conditions import Columns
from state_rag.effects.training_effects import training_effects
from state_rag.evaluation.baselines.naive import ADDITIVE, EVIDENCE, NAMES, STRONGER, naive_baselines
from state_rag.evaluation.gather import remarks


@pytest.fixture
def copies(runs, tmp_path):
    for name in ("good", "poor"):
        shutil.copytree(runs[name], tmp_path / name, ignore=shutil.ignore_patterns("gge"))
    return tmp_path


def rename(run, name):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["name"] = name
    path.write_text(yaml.safe_dump(config))


def compare(*arguments):
    return main(["compare", *map(str, arguments), "--metrics", "mse", "--no-baselines", "--quiet"])


def test_a_name_given_twice_is_refused_with_the_remedy(copies, capsys):
    assert compare(copies / "good", copies / "poor", "--names", "a", "a") == 1
    assert "--names: 'a' is there twice; give each run a name of its own" in capsys.readouterr().err


def test_the_same_predictions_twice_are_refused_before_any_work(copies, capsys):
    assert compare(copies / "good", copies / "good" / "eval_last.ckpt") == 1
    assert "these predictions were given twice" in capsys.readouterr().err
    assert not (copies / "good/eval_last.ckpt/gge").exists()


@pytest.mark.parametrize("by", ["--names", "configuration"])
def test_a_run_may_not_be_called_like_a_baseline(copies, capsys, by):
    options = []
    if by == "--names":
        options = ["--names", "no effect", "b"]
    else:
        rename(copies / "good", "no effect")
    assert compare(copies / "good", copies / "poor", *options) == 1
    error = capsys.readouterr().err
    assert "'no effect'" in error
    assert "--names" in error


def test_evaluate_shows_a_run_that_is_called_like_a_baseline_beside_that_baseline(copies, capsys):
    rename(copies / "good", "no effect")
    assert main(["evaluate", str(copies / "good"), "--metrics", "mse", "--no-baselines", "--quiet"]) == 0
    assert "no effect (run)" in " ".join(capsys.readouterr().out.split())


def test_every_name_of_a_baseline_is_reserved(screen):
    from state_rag.datasets.splitting.split_toml import read_split

    training = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    made = {*naive_baselines(training, len(screen.genes), screen.embeddings), ADDITIVE, STRONGER, EVIDENCE}
    assert made == set(NAMES)


def test_runs_of_one_name_in_folders_of_one_name_are_told_apart(runs, tmp_path, capsys):
    places = [tmp_path / part / "runs" / "x" for part in ("first", "second")]
    for place, name in zip(places, ("good", "poor"), strict=True):
        shutil.copytree(runs[name], place, ignore=shutil.ignore_patterns("gge"))
        rename(place, "x")
    assert compare(*places) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "first/runs/x/eval_last.ckpt" in shown
    assert "second/runs/x/eval_last.ckpt" in shown


@pytest.mark.parametrize(("blocked", "told"), [("gge", "results of good:"), ("split.toml", "-o")])
def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(copies, capsys, blocked, told):
    place = copies / "good/eval_last.ckpt/gge" if blocked == "gge" else copies / blocked
    place.write_text("a file")
    assert compare(copies / "good", "-o", copies / "split.toml" if blocked != "gge" else copies / "t") == 1
    error = capsys.readouterr().err
    assert told in error
    assert "is a file, not a folder" in error
    assert "Traceback" not in error
    if blocked != "gge":
        assert not (copies / "good/eval_last.ckpt/gge").exists()


def test_finished_evaluations_are_compared_where_nothing_can_be_written(copies, monkeypatch):
    assert compare(copies / "good") == 0
    monkeypatch.setattr("state_rag.evaluation.run_evaluation.writable_folder", lambda *_: pytest.fail("tried to write"))
    assert compare(copies / "good") == 0


def noted(folder, **notes):
    (folder / "summary.json").write_text(json.dumps({"metadata": {"notes": notes}}))
    return remarks(folder)


def test_what_an_evaluation_noted_on_its_baselines_and_spaces_stands_below_the_table(tmp_path):
    assert noted(tmp_path, conditions=12) == []
    assert noted(tmp_path, baselines_left_out="not asked for") == ["Baselines left out: not asked for."]
    assert noted(tmp_path, baselines_left_out="no such file. Correct it.") == [
        "Baselines left out: no such file. Correct it."
    ]
    told = noted(tmp_path, **{"fallbacks of embedding ridge": 3, "fallbacks of mean effect": 12})
    assert told == [
        "Conditions where a baseline had to fall back to a simpler one: embedding ridge in 3, mean effect in 12."
    ]
    assert noted(tmp_path, pca_of_other_size_than_the_labels_say="48 in hepg2") == [
        "Dimensions of PCA, whatever the labels say: 48 in hepg2."
    ]
