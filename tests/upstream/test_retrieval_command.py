import json
import logging
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml

from state_rag.cli import main
from state_rag.upstream.retrieval_command import without_remarks_on_log1p
from tests.analysis.test_ablation import ablated
from tests.evaluation.made_up import CONTROL, HELD_OUT, make_run, make_screen, write_retrieval


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

    monkeypatch.setattr("state_rag.upstream.ablation.ablate.ablate_run", ablate_run)
    monkeypatch.setattr(
        "state_rag.upstream.ablation.ablate.made_with", lambda *_, **told: {"checkpoint": told["checkpoint"]}
    )
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
    assert not (folder / "poor/eval_last.ckpt/retrieval").exists()


def test_a_misspelt_gene_is_refused_with_close_spellings(good, tmp_path, capsys):
    assert main(["retrieval", *good, "--gene", "p3"]) == 1
    error = capsys.readouterr().err
    assert "--gene: nothing was retrieved for 'p3'" in error
    assert "P03" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--ablate", "--ablate-at-most", "0"], ["--truth", "/nowhere.json"]])
def test_mistaken_arguments_are_refused_before_any_work(good, tmp_path, capsys, options):
    assert main(["retrieval", *good, *options]) == 1
    shown = capsys.readouterr()
    assert options[-2] in shown.err
    assert not shown.out
    assert not (tmp_path / "out").exists()


def changed(run, place, edit):
    """Copy a run with its real cells as `edit` returns them."""
    shutil.copytree(run, place)
    path = place / "eval_last.ckpt/adata_real.h5ad"
    cells = edit(ad.read_h5ad(path))
    path.unlink()
    cells.write_h5ad(path)
    return place


def test_undefined_controls_are_told_as_the_reason_why_true_effects_are_missing(folder, tmp_path, capsys):
    def spoil(cells):
        cells.X[np.flatnonzero(cells.obs["gene"] == CONTROL)[0], 3] = np.nan
        return cells

    run = changed(folder / "good", tmp_path / "spoilt", spoil)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["kwargs"]["toml_config_path"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["retrieval", str(run), "--quiet", "-o", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of selected ones unknown, of others unknown" in shown
    assert "good: NaN or infinity in the real control cells of hepg2 (1 of 60 genes)" in shown
    assert "NaN or infinity" in json.loads((tmp_path / "out/retrieval.json").read_text())["remarks"][0]


def test_columns_that_were_given_hold_in_place_of_the_configurations(folder, tmp_path, capsys):
    run = tmp_path / "odd"
    shutil.copytree(folder / "good", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["kwargs"] |= {"control_pert": "wrong", "pert_col": "wrong"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["retrieval", str(run), "--quiet", "-o", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert main([*arguments, "--control", CONTROL, "--pert-col", "gene"]) == 0


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["retrieval", str(folder / "good"), "--quiet", "-o", str(tmp_path / "file")]) == 1
    error = capsys.readouterr()
    assert "-o" in error.err
    assert "is a file, not a folder" in error.err
    assert not error.out


def test_both_indices_of_overlap_are_written(good, tmp_path):
    assert main(["retrieval", *good]) == 0
    assert {"jaccard.csv", "jaccard_weighted.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_switching_off_says_that_it_starts_from_other_controls_than_evaluate(good, asked, capsys):
    assert main(["retrieval", *good, "--ablate", "--gene", "P03"]) == 0
    assert "near but not equal to that of `evaluate`" in " ".join(capsys.readouterr().out.split())


def test_cell_loads_remark_on_log1p_is_kept_back_and_nothing_else_is(caplog):
    logger = logging.getLogger("cell_load.data_modules.perturbation_dataloader")
    with without_remarks_on_log1p():
        logger.warning("is_log1p mode is ENABLED. Detected uns/log1p metadata (example: %s).", "x")
        logger.warning("No control cells in x")
    logger.warning("is_log1p mode is DISABLED.")
    assert [record.getMessage() for record in caplog.records] == ["No control cells in x", "is_log1p mode is DISABLED."]
