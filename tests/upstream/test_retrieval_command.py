import json

import pandas as pd
import pytest

from state_rag.cli import main
from tests.evaluation.made_up import HELD_OUT, make_run, make_screen, write_retrieval
from tests.evaluation.test_ablation import ablated


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, one of them with a retrieval file; and embeddings."""
    folder = tmp_path_factory.mktemp("retrieving")
    screen = make_screen(folder / "screen")
    for name, accuracy in (("good", 0.7), ("poor", 0.4)):
        make_run(folder / name, screen, accuracy=accuracy)
    write_retrieval(folder / "good", screen)
    return folder


@pytest.fixture
def good(folder, tmp_path):
    return [str(folder / "good"), "--quiet", "-o", str(tmp_path / "out")]


@pytest.fixture
def asked(monkeypatch):
    """What predictions were asked for; they are made up."""
    calls = []

    def ablate_run(folder, perturbations, **options):
        calls.append((folder.name, perturbations, options["checkpoint"], options["at_most"]))
        return [ablated(name, HELD_OUT) for name in perturbations or ["P00", "P01", "P02"]]

    monkeypatch.setattr("state_rag.upstream.ablate.ablate_run", ablate_run)
    monkeypatch.setattr("state_rag.upstream.ablate.made_with", lambda *_, **told: {"checkpoint": told["checkpoint"]})
    return calls


def test_headline_numbers_and_a_case_study_are_printed_and_tables_written(folder, good, tmp_path, capsys):
    assert main(["retrieval", *good, "--embeddings", str(folder / "vectors.npz"), "--gene", "P03"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 conditions in hepg2: 6.0 neighbours retrieved" in shown
    assert "neighbours of P03" in shown
    summary = json.loads((tmp_path / "out/retrieval.json").read_text())
    assert summary["inclusion_against_agreement"]["mean_spearman_within_conditions"] > 0.8
    assert {"similarity", "agreement"} <= set(pd.read_csv(tmp_path / "out/neighbours.csv").columns)
    assert (tmp_path / "out/plots/inclusion_by_rank.svg").is_file()


def test_neighbours_are_switched_off_on_demand_and_earlier_conditions_stay(good, asked, tmp_path, capsys):
    assert main(["retrieval", *good, "--ablate", "--gene", "P03"]) == 0
    first = capsys.readouterr().out
    assert "P03 in hepg2: Pearson delta" in first
    assert "from before" not in first
    assert main(["retrieval", *good, "--ablate", "--ablate-at-most", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Neighbours switched off: 12, one by one, in 3 conditions." in shown
    assert "Kept in ablation.csv from before, same checkpoint and settings: P03 in hepg2." in shown
    assert asked == [("good", ["P03"], "last.ckpt", 20), ("good", None, "last.ckpt", 3)]
    assert len(pd.read_csv(tmp_path / "out/ablation.csv")) == 4 * 5
    assert (tmp_path / "out/plots/ablation.svg").is_file()


def test_runs_that_predict_the_same_condition_and_runs_without_retrieval_are_refused(folder, good, capsys):
    assert main(["retrieval", good[0], *good]) == 1
    assert "predicted by more than one of the runs" in capsys.readouterr().err
    assert main(["retrieval", str(folder / "poor"), "--quiet"]) == 1
    assert "retrieval_info.csv" in capsys.readouterr().err


def test_a_misspelt_gene_is_refused_with_close_spellings(good, capsys):
    assert main(["retrieval", *good, "--gene", "p3"]) == 1
    error = capsys.readouterr().err
    assert "--gene: nothing was retrieved for 'p3'" in error
    assert "P03" in error
