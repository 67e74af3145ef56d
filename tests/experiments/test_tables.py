import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import EVIDENCE
from state_rag.evaluation.run_evaluation import evaluate_run
from state_rag.evaluation.runs import find_run
from state_rag.experiments.finished import read_sweep, shared_places
from state_rag.experiments.jobs import write_job
from state_rag.experiments.lock import job_lock
from state_rag.experiments.methods import Method
from state_rag.experiments.tables import PAPER, save_table, table1, table2
from state_rag.metrics.significance import benjamini_hochberg, mann_whitney
from tests.evaluation.made_up import HELD_OUT, make_run, make_screen
from tests.experiments.made_up import make_job, mean_of

LINES = ("hepg2", "k562")


@pytest.fixture
def full(tmp_path):
    """Four methods, two lines, two seeds, all finished; returns folder and jobs by method, line, seed."""
    jobs = {
        (method, line, seed): make_job(tmp_path, method, line, seed, topk)
        for method, topk in (("none", None), ("genept", None), ("vanilla", 32), ("differentiable", 32))
        for line in LINES
        for seed in (0, 1)
    }
    return tmp_path, jobs


def cell(table, predictor, metric, held_out="all lines"):
    rows = table.rows
    found = rows[(rows["predictor"] == predictor) & (rows["metric"] == metric) & (rows["held_out"] == held_out)]
    assert len(found) == 1
    return found.iloc[0]


def shown(table, row, column):
    """Return the text of one cell of the printed table."""
    place = table.grid.columns.index(column)
    return next(cells[place] for names, cells in table.grid.rows if names[-1] == row)


def test_a_value_is_the_mean_over_seeds_of_the_mean_over_lines_and_conditions(full):
    folder, jobs = full
    table = table1(read_sweep(folder))
    by_seed = [np.mean([mean_of(jobs["vanilla", line, seed], "mse") for line in LINES]) for seed in (0, 1)]
    row = cell(table, "vanilla RAG", "mse")
    assert row["mean"] == pytest.approx(np.mean(by_seed))
    assert row["sd_over_seeds"] == pytest.approx(np.std(by_seed, ddof=1))
    assert (row["n"], row["n_seeds"], row["status"]) == (40, 2, "shown")
    assert shown(table, "MSE ↓", "vanilla RAG").plain.endswith(f"± {row['sd_over_seeds']:.3f}".replace("0.", ".", 1))


def test_folds_of_perturbations_stand_where_lines_would(tmp_path):
    for method in ("none", "genept"):
        for fold in ("fold0", "fold1"):
            make_job(tmp_path, method, fold, conditions=3)
    table = table1(read_sweep(tmp_path), by_line=True)
    assert table.grid.columns == ["fold0", "fold1", "all folds"]
    assert "Held-out folds fold0, fold1, every condition" in table.grid.notes
    assert cell(table, "STATE", "mae", "all folds")["n"] == 6


def test_lines_weigh_by_their_conditions(tmp_path):
    small = make_job(tmp_path, "none", "hepg2", conditions=10)
    large = make_job(tmp_path, "none", "k562", conditions=30)
    expected = (10 * mean_of(small, "mae") + 30 * mean_of(large, "mae")) / 40
    assert cell(table1(read_sweep(tmp_path)), "STATE", "mae")["mean"] == pytest.approx(expected)


def test_daggers_are_the_evaluations_tests_with_one_value_a_condition(full):
    folder, jobs = full

    def averaged(method, metric):
        tables = [
            pd.read_csv(jobs[method, line, seed].predictions / "gge/results.csv") for line in LINES for seed in (0, 1)
        ]
        return pd.concat(tables).groupby(["cell_line", "perturbation"])[metric].mean().to_numpy()

    p = [mann_whitney(averaged("genept", metric), averaged("differentiable", metric)) for metric in PAPER]
    table = table1(read_sweep(folder))
    assert [cell(table, "STATE+GenePT", metric)["p_mann_whitney"] for metric in PAPER] == pytest.approx(p)
    corrected = [cell(table, "STATE+GenePT", metric)["q_mann_whitney"] for metric in PAPER]
    assert corrected == pytest.approx(benjamini_hochberg(np.array(p)).tolist())
    assert shown(table, "MSE ↓", "STATE+GenePT").dagger == "†"
    assert shown(table, "MSE ↓", "PT-RAG").dagger == ""
    assert shown(table, "MSE ↓", "PT-RAG").best
    assert max(corrected) < 0.01


def test_the_reference_can_be_chosen_by_name_mode_or_preset(full):
    sweep = read_sweep(full[0])
    for word in ("STATE+GenePT", "genept", "state+genept"):
        assert "differs from STATE+GenePT;" in table1(sweep, reference=word).grid.notes
    assert "differs from PT-RAG;" in table1(sweep, reference="ptrag").grid.notes
    with pytest.raises(StateRagError, match="--reference 'GPT' is none .* STATE, STATE.GenePT, vanilla RAG, PT-RAG"):
        table1(sweep, reference="GPT")


def test_naive_baselines_are_columns_of_their_own_without_a_spread(full):
    table = table1(read_sweep(full[0]))
    assert table.grid.columns == ["no effect", "mean effect", "STATE", "STATE+GenePT", "vanilla RAG", "PT-RAG"]
    assert shown(table, "MSE ↓", "mean effect").spread == ""
    assert pd.isna(cell(table, "mean effect", "mse")["expected_runs"])


def test_the_evidence_engine_stands_beside_the_naive_baselines_and_is_explained(full, tmp_path):
    assert EVIDENCE not in table1(read_sweep(full[0])).grid.notes
    folder = tmp_path / "with"
    for method in ("none", "genept"):
        make_job(folder, method, "hepg2", baselines={"no effect": 0.1, EVIDENCE: 0.45})
    table = table1(read_sweep(folder))
    assert list(table.grid.columns) == ["no effect", EVIDENCE, "STATE", "STATE+GenePT"]
    assert table.grid.notes.count(EVIDENCE) == 1
    assert "fitted on the training cells of each split" in table.grid.notes


def test_one_seed_has_no_spread_and_says_so(tmp_path):
    for method in ("none", "genept"):
        make_job(tmp_path, method, "k562")
    table = table1(read_sweep(tmp_path))
    assert "seed 0 only, so no standard deviation" in table.grid.notes
    assert all(not entry.spread for _, cells in table.grid.rows for entry in cells)
    assert np.isnan(cell(table, "STATE", "mse")["sd_over_seeds"])


def test_methods_are_compared_on_the_lines_and_seeds_that_all_have_finished(tmp_path):
    jobs = {(line, seed): make_job(tmp_path, "none", line, seed) for line in LINES for seed in (0, 1)}
    statuses = {("hepg2", 0): "finished", ("hepg2", 1): "finished", ("k562", 0): "failed", ("k562", 1): "running"}
    for (line, seed), status in statuses.items():
        make_job(tmp_path, "differentiable", line, seed, 32, status=status)
    with job_lock(tmp_path, "ptrag_k562_k32_s1"):
        table = table1(read_sweep(tmp_path))
    expected = np.mean([mean_of(jobs["hepg2", seed], "mse") for seed in (0, 1)])
    assert cell(table, "STATE", "mse")["mean"] == pytest.approx(expected)
    assert cell(table, "STATE", "mse")["lines"] == "hepg2"
    assert "Held-out line hepg2" in table.grid.notes
    assert "Finished but not used, since others lack these lines or seeds: STATE (2)." in table.grid.notes
    assert "Missing: 2 of 8 runs." in table.grid.notes
    assert re.search(r"PT-RAG, failed; see .*ptrag_k562_k32_s0.log: k562 seed 0\.", table.grid.notes)
    assert "PT-RAG, running: k562 seed 1." in table.grid.notes
    assert "PT-RAG, stopped, or running on another machine: k562 seed 1." in table1(read_sweep(tmp_path)).grid.notes
    assert shown(table, "finished runs", "PT-RAG").text == "2/4"
    assert shown(table, "finished runs", "STATE").text == "4/4"


def test_a_seed_that_lacks_a_line_is_not_averaged_with_seeds_that_have_it(tmp_path):
    for line, seed in (("hepg2", 0), ("k562", 0), ("hepg2", 1), ("k562", 1), ("hepg2", 2)):
        make_job(tmp_path, "none", line, seed)
    table = table1(read_sweep(tmp_path))
    assert (cell(table, "STATE", "mse")["lines"], cell(table, "STATE", "mse")["seeds"]) == ("hepg2 k562", "0 1")
    assert "STATE, not in the sweep: k562 seed 2." in table.grid.notes


def test_a_method_without_a_finished_run_is_a_column_of_missing(full):
    folder, _ = full
    for line in LINES:
        make_job(folder, "hidden", line, 0, 32, status="waiting")
    table = table1(read_sweep(folder))
    column = table.grid.columns.index("hidden-space RAG")
    assert {cells[column].text for _, cells in table.grid.rows} == {"missing", "0/4"}
    assert cell(table, "hidden-space RAG", "mse")["status"] == "missing"
    assert "hepg2 seed 1 (not in the sweep)" in cell(table, "hidden-space RAG", "mse")["missing_runs"]
    assert cell(table, "STATE", "mse")["n"] == 40


def test_results_that_share_no_line_with_the_reference_are_missing_and_not_mixed_in(tmp_path):
    make_job(tmp_path, "none", "k562")
    make_job(tmp_path, "differentiable", "hepg2", 0, 32)
    table = table1(read_sweep(tmp_path))
    assert shown(table, "MSE ↓", "STATE").text == "missing"
    assert shown(table, "finished runs", "STATE").text == "1/2"
    assert "Finished but not used" in table.grid.notes
    assert "STATE (1)" in table.grid.notes


def test_without_results_of_the_reference_there_are_no_tests(tmp_path):
    for line in LINES:
        make_job(tmp_path, "none", line)
        make_job(tmp_path, "genept", line)
        make_job(tmp_path, "differentiable", line, 0, 32, status="waiting")
    table = table1(read_sweep(tmp_path))
    assert "No tests: PT-RAG" in table.grid.notes
    assert not shown(table, "MSE ↓", "STATE").dagger
    assert np.isnan(cell(table, "STATE", "mse")["q_wilcoxon"])
    assert cell(table, "STATE", "mse")["n"] == 40


def test_a_sweep_in_which_nothing_has_finished_is_a_table_of_missing(tmp_path):
    for method, topk in (("none", None), ("vanilla", 5)):
        make_job(tmp_path, method, "k562", 0, topk, status="waiting")
    sweep = read_sweep(tmp_path)
    for table in (table1(sweep), table1(sweep, by_line=True), table2(sweep)):
        assert "No run has been evaluated yet." in table.grid.notes
        assert set(table.rows["status"]) == {"missing"}


def test_a_finished_job_whose_evaluation_is_being_written_counts_as_missing(full):
    folder, jobs = full
    (jobs["none", "k562", 1].predictions / "gge" / "summary.json").unlink()
    notes = table1(read_sweep(folder)).grid.notes
    assert "STATE, not evaluated" in notes
    assert "Missing: 1 of 16 runs." in notes


def test_conditions_that_one_method_lacks_are_left_out_of_all_and_counted(tmp_path):
    make_job(tmp_path, "none", "k562", conditions=20)
    make_job(tmp_path, "genept", "k562", conditions=15)
    table = table1(read_sweep(tmp_path))
    assert cell(table, "STATE", "mse")["n"] == 15
    assert "STATE: 5 conditions not shared by all, left out." in table.grid.notes
    assert "Methods were predicted for different conditions: PCA metrics" in table.grid.notes


def test_table_2_and_a_table_without_tests_say_what_their_means_leave_out(tmp_path):
    job = make_job(tmp_path, "differentiable", "k562", 0, 2)
    path = job.predictions / "gge" / "results.csv"
    values = pd.read_csv(path)
    values.loc[:2, "mse"] = np.nan
    values.to_csv(path, index=False)
    make_job(tmp_path, "differentiable", "k562", 0, 5, conditions=15)
    make_job(tmp_path, "none", "k562", status="waiting")
    sweep = read_sweep(tmp_path)
    whole = table1(sweep, topk=2, reference="none")
    for table, told in (
        (table2(sweep, metric="mse"), "PT-RAG, K = 2 has no value in 3 of 15 conditions: mse."),
        (whole, "PT-RAG has no value in 3 of 20 conditions: mse."),
    ):
        assert told in table.grid.notes
        assert "conditions where every predictor has a value." in table.grid.notes
    assert "PT-RAG, K = 2: 5 conditions not shared by all, left out." in table2(sweep, metric="mse").grid.notes


def test_a_value_that_one_method_lacks_for_a_seed_is_left_out_of_all_for_that_seed(tmp_path):
    jobs = {
        (method, seed): make_job(tmp_path, method, "k562", seed) for method in ("none", "genept") for seed in (0, 1)
    }
    tables = {key: pd.read_csv(job.predictions / "gge/results.csv") for key, job in jobs.items()}
    tables["genept", 0].loc[:4, "mse"] = np.nan
    tables["genept", 0].to_csv(jobs["genept", 0].predictions / "gge/results.csv", index=False)
    shown = table1(read_sweep(tmp_path), metrics=["mse"])
    rest = tables["none", 0]["perturbation"].isin(tables["genept", 0].dropna(subset="mse")["perturbation"])
    expected = (tables["none", 0].loc[rest, "mse"].mean() + tables["none", 1]["mse"].mean()) / 2
    assert cell(shown, "STATE", "mse")["mean"] == pytest.approx(expected)
    assert cell(shown, "STATE+GenePT", "mse")["n_missing"] == 5
    assert "STATE+GenePT has no value in 5 of 20 conditions: mse." in shown.grid.notes


def test_a_metric_that_a_run_lacks_is_refused_with_that_run_and_close_spellings(tmp_path):
    job = make_job(tmp_path, "none", "k562")
    path = job.predictions / "gge/results.csv"
    pd.read_csv(path).drop(columns="energy_pca50").to_csv(path, index=False)
    with pytest.raises(StateRagError, match="k562_s0.*has none.*close spellings: energy_pca50 -> .*mse_pca50"):
        table1(read_sweep(tmp_path), metrics=["energy_pca50"])


def test_columns_by_line_use_each_lines_own_seeds_and_tests(tmp_path):
    for line in LINES:
        for seed in (0, 1):
            make_job(tmp_path, "none", line, seed)
            done = (line, seed) != ("k562", 1)
            make_job(tmp_path, "differentiable", line, seed, 32, status="finished" if done else "waiting")
    table = table1(read_sweep(tmp_path), by_line=True)
    assert table.grid.columns == ["hepg2", "k562", "all lines"]
    assert cell(table, "STATE", "mse", "hepg2")["n_seeds"] == 2
    assert cell(table, "STATE", "mse", "k562")["n_seeds"] == 1
    assert (cell(table, "STATE", "mse")["lines"], cell(table, "STATE", "mse")["seeds"]) == ("hepg2 k562", "0")
    assert {names[0] for names, _ in table.grid.rows} >= {"MSE ↓", "finished runs"}
    counts = next(cells for names, cells in table.grid.rows if names == ("finished runs", "PT-RAG"))
    assert [entry.text for entry in counts] == ["2/2", "1/2", "3/4"]


def test_table_1_takes_the_largest_k_or_the_one_asked_for(tmp_path):
    for k in (2, 10):
        make_job(tmp_path, "differentiable", "k562", 0, k)
    sweep = read_sweep(tmp_path)
    assert set(table1(sweep).rows["K"].dropna()) == {10}
    assert set(table1(sweep, topk=2).rows["K"].dropna()) == {2}
    assert "K: PT-RAG 2." in table1(sweep, topk=2).grid.notes
    with pytest.raises(StateRagError, match=r"--topk 3: the sweep has K = 2, 10\."):
        table1(sweep, topk=3)


def test_jobs_that_differ_in_a_setting_are_methods_of_their_own(tmp_path):
    for fusion in ("replace", "residual"):
        make_job(tmp_path, "differentiable", "k562", 0, 8, overrides=(f"training.rag_fusion={fusion}",))
    make_job(tmp_path, "differentiable", "k562", 0, 8, preset="ptrag_paper")
    table = table1(read_sweep(tmp_path), reference="PT-RAG (rag_fusion=replace)")
    assert "differs from PT-RAG (ptrag_paper);" in table1(read_sweep(tmp_path), reference="ptrag_paper").grid.notes
    names = ["PT-RAG (ptrag_paper)", "PT-RAG (rag_fusion=replace)", "PT-RAG (rag_fusion=residual)"]
    assert table.grid.columns[-3:] == names


def test_two_jobs_for_one_cell_of_the_table_are_refused(tmp_path):
    make_job(tmp_path, "none", "k562")
    make_job(tmp_path, "none", "k562", overrides=("name=again",))
    with pytest.raises(
        StateRagError, match=r"none_k562_name-again_s0 and none_k562_s0 are both STATE.*differ in name=a"
    ):
        read_sweep(tmp_path)


def test_a_condition_that_was_tested_with_two_lines_held_out_is_refused(tmp_path):
    make_job(tmp_path, "none", "k562")
    job = make_job(tmp_path, "none", "rpe1")
    for name in ("results.csv", "baselines.csv"):
        path = job.predictions / "gge" / name
        path.write_text(path.read_text().replace("rpe1", "k562"))
    with pytest.raises(StateRagError, match="P00 in k562 was tested both with k562 and with rpe1 held out .seed 0."):
        table1(read_sweep(tmp_path))


def test_a_split_that_holds_out_two_lines_at_once_is_a_line_of_its_own(tmp_path):
    job = make_job(tmp_path, "none", "k562+rpe1")
    for name in ("results.csv", "baselines.csv"):
        path = job.predictions / "gge" / name
        path.write_text(path.read_text().replace("k562+rpe1", "k562", 10))
    assert cell(table1(read_sweep(tmp_path)), "STATE", "mse")["lines"] == "k562+rpe1"


def test_runs_with_other_embeddings_are_methods_of_their_own_unless_they_use_none(tmp_path):
    for place in ("/a/text.npz", "/a/protein.npz"):
        make_job(tmp_path, "genept", "k562", overrides=(f"training.genept_path={place}",))
    for line, place in (("k562", "/a/text.npz"), ("rpe1", "/a/protein.npz")):
        make_job(tmp_path, "none", line, overrides=(f"training.genept_path={place}",))
    names = ["STATE", "STATE+GenePT (genept_path=protein.npz)", "STATE+GenePT (genept_path=text.npz)"]
    sweep = read_sweep(tmp_path)
    assert [method.name for method in sweep.methods] == names
    assert table1(sweep, methods=["genept"]).grid.columns[-2:] == names[1:]
    with pytest.raises(StateRagError, match="--reference 'genept' could be any of: .*protein.npz"):
        table1(sweep, reference="genept")


def test_flags_that_a_method_does_not_look_at_make_no_column(tmp_path):
    for line, fusion in (("k562", "training.rag_fusion=residual"), ("rpe1", "wandb.project=x")):
        make_job(tmp_path, "none", line, overrides=(fusion, f"data.kwargs.num_workers={len(fusion)}"))
    table = table1(read_sweep(tmp_path))
    assert table.grid.columns[-1] == "STATE"
    assert cell(table, "STATE", "mse")["n"] == 40


def test_table_2_has_a_column_for_each_k_and_one_for_what_retrieves_nothing(tmp_path):
    make_job(tmp_path, "genept", "k562")
    jobs = {k: make_job(tmp_path, "differentiable", "k562", 0, k, overrides=("training.lr=1",)) for k in (2, 32)}
    make_job(tmp_path, "vanilla", "k562", 0, 2)
    make_job(tmp_path, "vanilla", "k562", 0, 32, status="failed")
    table = table2(read_sweep(tmp_path), metric="mae")
    assert table.grid.columns == ["no retrieval", "K = 2", "K = 32"]
    assert [names[0] for names, _ in table.grid.rows] == [
        "no effect",
        "mean effect",
        "STATE+GenePT",
        "vanilla RAG",
        "PT-RAG",
    ]
    assert shown(table, "vanilla RAG", "K = 32").text == "missing 0/1"
    assert shown(table, "STATE+GenePT", "K = 2").text == ""
    assert cell(table, "PT-RAG, K = 2", "mae")["mean"] == pytest.approx(mean_of(jobs[2], "mae"))
    best = [(names[0], place) for names, cells in table.grid.rows for place, entry in enumerate(cells) if entry.best]
    assert best
    assert {name for name, _ in best} == {"PT-RAG"}


def test_table_2_of_a_sweep_without_retrieval_says_what_to_sweep(tmp_path):
    make_job(tmp_path, "none", "k562")
    with pytest.raises(StateRagError, match=r"no method of this sweep retrieves.*topk_rag=2,5,10,32"):
        table2(read_sweep(tmp_path))


def test_an_unknown_metric_is_refused_with_the_known_ones(full):
    with pytest.raises(StateRagError, match="--metrics: no metric 'mze'; close spellings: mze -> mse.*pearson_deg"):
        table1(read_sweep(full[0]), metrics=["mze"])


def test_a_table_is_written_in_three_formats_and_the_csv_holds_every_digit(full, tmp_path):
    table = table1(read_sweep(full[0]))
    written = save_table(table, tmp_path / "out")
    assert [path.name for path in written] == ["table1.csv", "table1.md", "table1.tex"]
    back = pd.read_csv(written[0])
    assert back["mean"].to_numpy() == pytest.approx(table.rows["mean"].to_numpy())
    assert "| MSE ↓ |" in written[1].read_text()
    assert r"\toprule" in written[2].read_text()


def test_notes_say_what_the_paired_test_cannot_show_on_few_conditions(tmp_path):
    for line, conditions in (("hepg2", 4), ("k562", 20)):
        make_job(tmp_path, "none", line, conditions=conditions)
        make_job(tmp_path, "differentiable", line, 0, 32, conditions=conditions)
    sweep = read_sweep(tmp_path)
    assert "the paired test" not in table1(sweep).grid.notes
    line = "hepg2, 4 conditions: the paired test cannot go below p = .125; no * or ** can appear."
    assert line in table1(sweep, by_line=True).grid.notes.splitlines()
    assert "k562, 20 conditions: the paired test" not in table1(sweep, by_line=True).grid.notes


def test_the_largest_rectangle_of_lines_and_seeds_is_taken():
    method = Method("STATE", "none", None)
    finished = {(line, 0) for line in "abcd"} | {("a", 1), ("b", 1), ("a", 2), ("b", 2)}
    assert shared_places({method: finished}) == ([method], {"a", "b"}, {0, 1, 2})
    assert shared_places({method: finished - {("b", 2)}}) == ([method], {"a", "b", "c", "d"}, {0})


def test_what_the_evaluation_writes_is_what_the_tables_read(tmp_path):
    screen = make_screen(tmp_path / "screen", perturbations=20, genes=30, cells=10)
    for method, accuracy, topk in (("genept", 0.3, None), ("differentiable", 0.9, 32)):
        job = make_job(tmp_path / "sweep", method, HELD_OUT, 0, topk, status="waiting")
        run = find_run(make_run(job.run_folder, screen, accuracy=accuracy))
        evaluate_run(run, embeddings=screen.embeddings, progress=False)
        write_job(tmp_path / "sweep", replace(job, status="finished", predictions=run.predictions))
    table = table1(read_sweep(tmp_path / "sweep"), metrics=["pearson_delta"])
    naive = ["no effect", "mean effect", "same pert., other lines", "embedding ridge"]
    assert table.grid.columns == [*naive, EVIDENCE, "STATE+GenePT", "PT-RAG"]
    assert shown(table, "Pearson delta ↑", "PT-RAG").best
    expected = mean_of(replace(job, predictions=run.predictions), "pearson_delta")
    assert cell(table, "PT-RAG", "pearson_delta")["mean"] == pytest.approx(expected)
    assert cell(table, "PT-RAG", "pearson_delta")["n"] == len(screen.test)


def test_runs_of_a_sweep_scored_on_other_real_data_are_refused_with_line_and_seed(tmp_path):
    for method, genes in (("none", 2000), ("genept", 1000)):
        path = make_job(tmp_path, method, "k562").predictions / "gge/summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "n_genes": genes}))
    with pytest.raises(StateRagError, match=r"\(held-out line k562, seed 0\).*1000 genes against 2000"):
        table1(read_sweep(tmp_path))
