import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from state_rag.cli import main
from tests.evaluation.made_up import HELD_OUT
from tests.evaluation.test_ablation import ablated


@pytest.fixture
def retrieving(runs, screen, tmp_path):
    """Two runs, the better one with a retrieval file whose inclusion follows the true effects, and embeddings."""
    for name in ("poor", "good"):
        shutil.copytree(runs[name], tmp_path / name)
    rows = ["cell_type,pert_name,retrieved_perturbations,selected_perturbations,n_selected,n_retrieved,degs,n_degs"]
    effects = dict(zip(screen.perturbations, screen.effects[HELD_OUT], strict=True))
    for query in screen.test:
        others = [name for name in screen.perturbations if name != query][:6]
        weights = [0.5 + 0.5 * np.corrcoef(effects[query], effects[name])[0, 1] for name in others]
        found = "|".join(f"{name}(w={weight:.2f})" for name, weight in zip(others, weights, strict=True))
        rows += [f"{HELD_OUT},{query},{found},none,0,6,,0"] * 3
    (tmp_path / "good/eval_last.ckpt/retrieval_info.csv").write_text("\n".join(rows) + "\n")
    logged = pd.DataFrame({"step": [1, 2, 3], "train_loss": [3.0, 2.0, 1.5], "val_loss": [np.nan, 2.5, 2.0]})
    (tmp_path / "good/version_0").mkdir()
    logged.to_csv(tmp_path / "good/version_0/metrics.csv", index=False)
    np.savez(tmp_path / "vectors.npz", **screen.embeddings)
    return tmp_path


def test_retrieval_prints_headline_numbers_and_a_case_study_and_writes_tables(retrieving, capsys):
    place, vectors = str(retrieving / "good"), str(retrieving / "vectors.npz")
    assert main(["retrieval", place, "--embeddings", vectors, "--gene", "P03", "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 conditions in hepg2: 6.0 neighbours retrieved" in shown
    assert "neighbours of P03" in shown
    folder = retrieving / "good/eval_last.ckpt/retrieval"
    summary = json.loads((folder / "retrieval.json").read_text())
    assert summary["inclusion_against_agreement"]["mean_spearman_within_conditions"] > 0.8
    assert {"similarity", "agreement"} <= set(pd.read_csv(folder / "neighbours.csv").columns)
    assert (folder / "plots/inclusion_by_rank.svg").is_file()


def test_neighbours_are_switched_off_on_demand_and_the_report_shows_it(retrieving, capsys, monkeypatch):
    asked = []

    def ablate_run(folder, perturbations, **options):
        asked.append((folder.name, perturbations, options["checkpoint"], options["at_most"]))
        return [ablated(name, HELD_OUT, seed) for seed, name in enumerate(perturbations or ["P00", "P01", "P02"])]

    monkeypatch.setattr("state_rag.upstream.ablate.ablate_run", ablate_run)
    place = str(retrieving / "good")
    assert main(["retrieval", place, "--quiet", "--ablate", "--gene", "P03"]) == 0
    assert "P03 in hepg2: Pearson delta" in capsys.readouterr().out
    assert main(["retrieval", place, "--quiet", "--ablate", "--ablate-at-most", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Neighbours switched off: 12, one by one, in 3 conditions." in shown
    assert asked == [("good", ["P03"], "last.ckpt", 20), ("good", None, "last.ckpt", 3)]
    folder = retrieving / "good/eval_last.ckpt/retrieval"
    assert len(pd.read_csv(folder / "ablation.csv")) == 3 * 5
    assert (folder / "plots/ablation.svg").is_file()
    report = retrieving / "report"
    assert main(["report", place, "-o", str(report), "--no-baselines", "--quiet"]) == 0
    assert "Neighbours switched off" in (report / "index.html").read_text()
    assert (report / "plots/ablation.png").is_file()


def test_retrieval_refuses_runs_that_predict_the_same_condition_and_runs_without_retrieval(retrieving, capsys):
    good = str(retrieving / "good")
    assert main(["retrieval", good, good, "--quiet"]) == 1
    assert "predicted by more than one of the runs" in capsys.readouterr().err
    assert main(["retrieval", str(retrieving / "poor"), "--quiet"]) == 1
    assert "retrieval_info.csv" in capsys.readouterr().err


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
    assert main([*common, "--perturbations", "P99"]) == 1
    assert "--perturbations: 'P99' was not predicted" in capsys.readouterr().err
