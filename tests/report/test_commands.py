import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from state_rag.cli import main
from state_rag.effects.conditions import Columns


@pytest.fixture
def copies(runs, tmp_path):
    for name in ("good", "poor"):
        shutil.copytree(runs[name], tmp_path / name, ignore=shutil.ignore_patterns("gge"))
    return tmp_path


@pytest.fixture
def embeddings(screen, tmp_path):
    np.savez(tmp_path / "vectors.npz", **screen.embeddings)
    return str(tmp_path / "vectors.npz")


def test_evaluate_prints_the_run_beside_every_baseline_and_says_where_results_are(copies, embeddings, capsys):
    assert main(["evaluate", str(copies / "good"), "--embeddings", embeddings, "--quiet"]) == 0
    shown = capsys.readouterr().out
    for word in ("no effect", "embedding", "good", "Pearson (DEG)", "Energy"):
        assert word in shown
    assert (copies / "good/eval_last.ckpt/gge/results.csv").is_file()


def test_compare_writes_csv_markdown_and_latex_and_finds_the_planted_difference(copies, embeddings, capsys):
    places = [str(copies / name) for name in ("poor", "good")]
    output = copies / "tables"
    arguments = ["compare", *places, "--reference", places[1], "--embeddings", embeddings, "-o", str(output), "--quiet"]
    assert main([*arguments, "--paper"]) == 0
    assert {path.name for path in output.iterdir()} == {"comparison.csv", "comparison.md", "comparison.tex"}
    rows = pd.read_csv(output / "comparison.csv").set_index(["predictor", "metric"])
    assert rows.loc[("poor", "energy_pca50"), "q_wilcoxon"] < 0.01
    assert rows.loc[("poor", "energy_pca50"), "mean"] > rows.loc[("good", "energy_pca50"), "mean"]
    assert "evidence, controls scaled" in rows.index.unique("predictor")
    assert len(rows) == 7 * 9
    assert "poor" in capsys.readouterr().out


def test_runs_of_the_same_name_are_told_apart_by_their_folders(runs, copies, capsys):
    (copies / "other").mkdir()
    shutil.copytree(runs["poor"], copies / "other" / "poor")
    places = [str(copies / "poor"), str(copies / "other" / "poor")]
    assert main(["compare", *places, "--no-baselines", "--quiet", "-o", str(copies / "t")]) == 0
    predictors = set(pd.read_csv(copies / "t" / "comparison.csv")["predictor"])
    assert len(predictors) == 3


def evaluated_at(copies):
    return (copies / "good/eval_last.ckpt/gge/summary.json").stat().st_mtime_ns


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_both_commands_take_what_is_evaluated_already_and_force_evaluates_again(copies, command, capsys):
    arguments = [command, str(copies / "good"), "--metrics", "mse", "--no-baselines", "--quiet"]
    assert main(arguments) == 0
    first, shown = evaluated_at(copies), capsys.readouterr().out
    assert main(arguments) == 0
    assert evaluated_at(copies) == first
    assert capsys.readouterr().out == shown.replace("Written:", "Results:")
    assert main([*arguments, "--force"]) == 0
    assert evaluated_at(copies) > first


def test_only_the_metrics_and_baselines_asked_for_are_shown_of_a_larger_evaluation(copies, capsys):
    common = [str(copies / "good"), "--quiet"]
    assert main(["evaluate", *common, "--metrics", "mse", "mae"]) == 0
    assert "mean effect" in capsys.readouterr().out
    assert main(["compare", *common, "--metrics", "mae", "--no-baselines"]) == 0
    shown = capsys.readouterr().out
    assert "MAE" in shown
    assert "MSE" not in shown
    assert "no effect" in shown
    assert "mean effect" not in shown


def test_a_run_without_embeddings_takes_those_of_a_run_beside_it(copies, embeddings, capsys):
    good, poor = str(copies / "good"), str(copies / "poor")
    options = ["--metrics", "mse", "--quiet"]
    assert main(["compare", good, *options]) == 0
    assert "Baselines left out: embedding ridge: the run good names none; give" in capsys.readouterr().out
    config = copies / "poor" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    values["training"]["genept_path"] = embeddings
    config.write_text(yaml.safe_dump(values))
    assert main(["compare", good, poor, "--reference", good, *options]) == 0
    shown = capsys.readouterr().out
    assert "embedding" in shown
    assert "left out" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "{good}", "--reference", "nobody"], "--reference: 'nobody' is none of"),
        (["compare", "{good}", "--names", "a", "b"], "--names: 2 names for 1 runs"),
        (["evaluate", "{good}", "--metrics", "mze"], "--metrics: no metric 'mze'; close spellings: mze -> mse"),
        (["evaluate", "{good}", "--control", "ctrl"], "no control cells"),
        (["evaluate", "{good}", "--toml", "/none.toml"], "/none.toml: no such file; expected a split file"),
        (["evaluate", "{good}", "--embeddings", "/none.npz"], "/none.npz"),
        (["evaluate", "{good}", "--gge-metrics", "foo"], "GGE has no metric 'foo'"),
    ],
)
def test_wrong_arguments_are_one_line_on_standard_error(copies, capsys, arguments, message):
    assert main([part.format(good=copies / "good") for part in arguments] + ["--quiet"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.fixture
def passed_on(monkeypatch):
    """What GGE's command was asked for; it is not run."""
    calls = []
    monkeypatch.setattr(
        "state_rag.evaluation.gge_command.run_command", lambda arguments, columns: calls.append((arguments, columns))
    )
    return calls


@pytest.mark.parametrize("mark", [[], ["--"]])
def test_gges_options_reach_gge_with_and_without_the_two_dashes(passed_on, mark):
    theirs = ["--real", "a.h5ad", "--generated", "b.h5ad", "--conditions", "gene", "cell_line", "-o", "out"]
    assert main(["gge", "--control", "ctrl", *mark, *theirs]) == 0
    assert passed_on == [(theirs, Columns(control="ctrl"))]


def test_gges_help_is_shown_after_the_two_dashes(passed_on):
    assert main(["gge", "--", "--help"]) == 0
    assert passed_on[0][0] == ["--help"]
