import re
import shutil

import numpy as np
import pandas as pd
import pytest

from state_rag.cli import main
from state_rag.evaluation.ablation import ablation_table
from state_rag.evaluation.ablation_files import save_ablation
from tests.evaluation.made_up import HELD_OUT, write_retrieval
from tests.evaluation.test_ablation import ablated


@pytest.fixture
def retrieving(runs, screen, tmp_path):
    """Two runs, the better one with a retrieval file and a log, and embeddings."""
    for name in ("poor", "good"):
        shutil.copytree(runs[name], tmp_path / name, ignore=shutil.ignore_patterns("gge"))
    write_retrieval(tmp_path / "good", screen)
    logged = pd.DataFrame({"step": [1, 2, 3], "train_loss": [3.0, 2.0, 1.5], "val_loss": [np.nan, 2.5, 2.0]})
    (tmp_path / "good/version_0").mkdir()
    logged.to_csv(tmp_path / "good/version_0/metrics.csv", index=False)
    return tmp_path


def test_the_report_is_one_page_that_needs_nothing_else(retrieving, capsys):
    places = [str(retrieving / name) for name in ("poor", "good")]
    output = retrieving / "report"
    vectors = str(retrieving / "vectors.npz")
    assert main(["report", *places, "-o", str(output), "--embeddings", vectors, "--quiet"]) == 0
    page = (output / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    for section in ("Summary", "All metrics", "Per condition", "Learning curves", "Retrieval", "embedding ridge"):
        assert section in page
    pictures = {path.stem for path in (output / "plots").glob("*.png")}
    assert pictures == {path.stem for path in (output / "plots").glob("*.svg")}
    wanted = {"distributions", "effects_good", "cells_poor", "umap_good", "inclusion_by_rank", "inclusion_by_agreement"}
    assert wanted | {"curve_train_loss"} <= pictures


def test_chosen_perturbations_are_drawn_and_unknown_ones_refused(retrieving, capsys):
    place = str(retrieving / "poor")
    common = ["report", place, "-o", str(retrieving / "r"), "--no-baselines", "--quiet"]
    assert main([*common, "--perturbations", "P01", "P02"]) == 0
    capsys.readouterr()
    assert main([*common, "--perturbations", "P011"]) == 1
    error = capsys.readouterr().err
    assert "--perturbations: 'P011' was not predicted; close spellings: P011 -> P11, P01;" in error


def test_the_report_explains_its_metrics_behind_a_fold_and_lacks_no_baseline_silently(retrieving):
    output = retrieving / "r"
    arguments = ["report", str(retrieving / "poor"), "-o", str(output), "--metrics", "mse", "pearson_delta", "--quiet"]
    assert main(arguments) == 0
    page = (output / "index.html").read_text()
    glossary = page[page.index("<details>") : page.index("</details>")]
    assert "<summary>What the metrics mean</summary>" in glossary
    assert "<code>corr_g(r - c, q - c)</code>" in glossary
    assert "W1" not in glossary
    assert "Baselines left out: embedding ridge: the run poor names none; give a file" in page


def test_the_report_shows_neighbours_that_were_switched_off(retrieving):
    table = ablation_table([ablated(name, HELD_OUT, seed) for seed, name in enumerate(["P00", "P01"])])
    save_ablation(table, retrieving / "good/eval_last.ckpt/retrieval")
    report = retrieving / "report"
    assert main(["report", str(retrieving / "good"), "-o", str(report), "--no-baselines", "--quiet"]) == 0
    assert "Neighbours switched off" in (report / "index.html").read_text()
    assert (report / "plots/ablation.png").is_file()
