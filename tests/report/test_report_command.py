import re
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml

from state_rag.analysis.ablation import ablation_table
from state_rag.analysis.ablation_files import save_ablation
from state_rag.cli import main
from state_rag.evaluation.results import load_tables
from tests.analysis.test_ablation import ablated
from tests.evaluation.made_up import HELD_OUT, write_retrieval


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
    assert "--perturbations: 'P011' was not predicted by every run; close spellings: P011 -> P11, P01;" in error


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
    page = (report / "index.html").read_text()
    section = page[page.index("Neighbours switched off</h2>") :]
    assert section.index("<h3>good</h3>") < section.index("does not say which checkpoint it was made with")
    assert (report / "plots/ablation.png").is_file()


def page_of(output):
    return (output / "index.html").read_text()


def other_line(run, line):
    """Say of a run's cells and of what it retrieved that they are of another cell line."""
    for name in ("adata_pred.h5ad", "adata_real.h5ad"):
        path = run / "eval_last.ckpt" / name
        cells = ad.read_h5ad(path)
        cells.obs["cell_line"] = cells.obs["cell_line"].astype(str).replace({HELD_OUT: line})
        path.unlink()
        cells.write_h5ad(path)
    path = run / "eval_last.ckpt/retrieval_info.csv"
    if path.is_file():
        path.write_text(path.read_text().replace(HELD_OUT, line))


def configure(run, **training):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["training"].update(training)
    config["name"] = run.name
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def two_lines(retrieving):
    """Runs of one method, each with a cell line of its own."""
    first, second = retrieving / "good", retrieving / "good_k562"
    shutil.copytree(first, second)
    for run in (first, second):
        configure(run, rag=True, topk_rag=6)
    other_line(second, "k562")
    return first, second


def report(*runs, output, options=()):
    places = [str(run) for run in runs]
    arguments = [*places, "-o", str(output), "--no-baselines", "--quiet", "--metrics", "mse", "pearson_delta"]
    return main(["report", *arguments, *options])


def test_runs_of_one_method_that_hold_out_a_line_each_share_the_retrieval_section(two_lines, tmp_path):
    first, second = two_lines
    assert report(second, tmp_path / "poor", first, output=tmp_path / "r") == 0
    page = page_of(tmp_path / "r")
    assert "Analysed: good, good_k562, 24 conditions in hepg2, k562." in page
    assert "12 conditions (perturbation in a cell line" in page
    assert "in the section on retrieval only: good_k562." in page
    assert (tmp_path / "r/plots/jaccard.png").is_file()


def test_each_method_that_retrieves_has_a_section_and_each_run_its_ablation(two_lines, tmp_path):
    first, second = two_lines
    other, other_second = tmp_path / "other", tmp_path / "other_k562"
    for run, copy in ((first, other), (second, other_second)):
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("gge"))
        configure(copy, topk_rag=3)
    for run, line in ((other, HELD_OUT), (first, HELD_OUT), (second, "k562")):
        save_ablation(ablation_table([ablated("P00", line)]), run / "eval_last.ckpt/retrieval")
    assert report(second, other_second, other, first, output=tmp_path / "r") == 0
    page = page_of(tmp_path / "r")
    assert "<h2>Retrieval: good, good_k562</h2>" in page
    assert "<h2>Retrieval: other, other_k562</h2>" in page
    parts = [page.index(f"<h3>{name}</h3>") for name in ("good", "good_k562", "other")]
    assert parts == sorted(parts)
    pictures = {path.stem for path in (tmp_path / "r/plots").glob("*.png")}
    assert {"jaccard_good", "jaccard_other", "ablation_good", "ablation_good_k562", "ablation_other"} <= pictures
    assert report(other, output=tmp_path / "r") == 0
    pictures = {path.stem for path in (tmp_path / "r/plots").glob("*.png")}
    assert "ablation" in pictures
    assert not any("good" in name for name in pictures)


def test_without_pearson_delta_the_page_says_why_no_conditions_are_drawn(retrieving):
    arguments = ["report", str(retrieving / "poor"), "-o", str(retrieving / "r"), "--no-baselines", "--quiet"]
    assert main([*arguments, "--metrics", "mae"]) == 0
    page = page_of(retrieving / "r")
    assert "None are drawn: they are chosen by Pearson delta, and it is not among the metrics shown" in page
    assert "Not drawn, since none of these metrics is shown (--metrics): Pearson (DEG)," in page


def test_mistaken_arguments_are_refused_before_any_work_and_leave_no_folder(retrieving, capsys):
    run, output = retrieving / "poor", retrieving / "r"
    (retrieving / "t.json").write_text("[]")
    for options in (["--perturbations", "NOPE"], ["--truth", str(retrieving / "t.json")]):
        assert report(run, retrieving / "good", output=output, options=options) == 1
        assert options[0] in capsys.readouterr().err
    assert not output.exists()
    assert not (run / "eval_last.ckpt/gge").exists()


def test_training_cells_that_give_no_true_effects_are_told(retrieving, screen):
    cells = ad.read_h5ad(screen.h5ad)
    rows = (cells.obs["cell_line"] == "k562") & (cells.obs["gene"] == "non-targeting")
    cells.X[np.flatnonzero(rows)[0]] = cells.obsm["X_hvg"][np.flatnonzero(rows)[0]] = np.nan
    rows = (cells.obs["cell_line"] == "jurkat") & (cells.obs["gene"] == "P03")
    cells.X[np.flatnonzero(rows)[0]] = cells.obsm["X_hvg"][np.flatnonzero(rows)[0]] = np.nan
    cells.write_h5ad(retrieving / "spoilt.h5ad")
    split = screen.toml.read_text().replace(str(screen.h5ad), str(retrieving / "spoilt.h5ad"))
    (retrieving / "split.toml").write_text(split)
    options = ["--toml", str(retrieving / "split.toml")]
    assert report(retrieving / "good", output=retrieving / "r", options=options) == 0
    page = page_of(retrieving / "r")
    assert "no true effects come from the training cells of k562: NaN or infinity in its control cells" in page
    assert "1 training conditions give no true effects" in page
    assert "P03 in jurkat" in page


def test_a_run_of_another_line_that_retrieves_otherwise_is_refused(two_lines, tmp_path, capsys):
    first, second = two_lines
    configure(second, topk_rag=3)
    assert report(second, first, output=tmp_path / "r") == 1
    assert "good_k562 has no condition (perturbation in cell line) in common with good" in capsys.readouterr().err


def test_all_runs_are_drawn_at_the_references_conditions(retrieving, monkeypatch):
    seen = {}

    def draw(report, runs, chosen, how):
        seen.update(dict.fromkeys(runs, chosen), how=how)

    monkeypatch.setattr("state_rag.report.build.draw_conditions", draw)
    assert report(retrieving / "poor", retrieving / "good", output=retrieving / "r") == 0
    table = load_tables(retrieving / "good/eval_last.ckpt/gge")[0].sort_values("pearson_delta")
    assert seen["poor"] == seen["good"]
    assert seen["good"][0][1] == table["perturbation"].iloc[round(0.9 * (len(table) - 1))]
    assert "good's Pearson delta" in seen["how"]


def test_the_controls_label_holds_for_the_pictures_too(retrieving):
    run = retrieving / "poor"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["kwargs"] |= {"control_pert": "wrong", "pert_col": "wrong", "cell_type_key": "wrong"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    columns = ["--control", "non-targeting", "--pert-col", "gene", "--cell-type-key", "cell_line"]
    assert report(run, output=retrieving / "r", options=columns) == 0
    assert (retrieving / "r/plots/cells_poor.png").is_file()


def test_a_condition_with_undefined_cells_is_named_instead_of_drawn(retrieving):
    path = retrieving / "poor/eval_last.ckpt/adata_pred.h5ad"
    cells = ad.read_h5ad(path)
    cells.X[np.flatnonzero(cells.obs["gene"] == "P01")[0]] = np.nan
    path.unlink()
    cells.write_h5ad(path)
    output = retrieving / "r"
    assert report(retrieving / "poor", output=output, options=["--perturbations", "P01", "P02"]) == 0
    assert "Not drawn, since cells hold NaN or infinity: P01 in hepg2." in page_of(output)


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(retrieving, capsys):
    (retrieving / "file").write_text("")
    assert report(retrieving / "poor", output=retrieving / "file") == 1
    assert "-o" in capsys.readouterr().err
    assert not (retrieving / "poor/eval_last.ckpt/gge").exists()
