import json
import threading
import time

import pandas as pd
import pytest

from state_rag.cli import main
from state_rag.experiments.jobs import read_job, write_job
from tests.experiments.made_up import make_job, write_evaluation


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    make_job(folder, "genept", "k562")
    for k in (2, 10):
        make_job(folder, "differentiable", "k562", 0, k)
    return folder


def test_table1_prints_the_table_and_names_the_files_it_wrote(sweep, capsys):
    assert main(["table1", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "STATE+GenePT" in out
    assert "Mean over 20 conditions" in " ".join(out.split())
    for suffix in ("csv", "md", "tex"):
        path = sweep / "tables" / f"table1.{suffix}"
        assert path.is_file()
        assert f"Written: {path}" in out


def test_table2_writes_a_table_and_a_plot_for_each_metric(sweep, tmp_path, capsys):
    assert main(["table2", str(sweep), "--metric", "mse", "mae", "-o", str(tmp_path / "out")]) == 0
    expected = {f"table2_{metric}{end}" for metric in ("mse", "mae") for end in (".csv", ".md", ".tex", *ENDS)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert f"Written: {tmp_path}/out/table2_mae_by_k.svg" in capsys.readouterr().out
    assert not (sweep / "tables").exists()


ENDS = ("_by_k.png", "_by_k.svg")


def test_table2_shows_and_draws_a_metric_that_only_the_results_define(sweep):
    for folder in sweep.glob("runs/*/*/gge"):
        for name in ("results.csv", "baselines.csv"):
            pd.read_csv(folder / name).assign(own=2.0).to_csv(folder / name, index=False)
        summary = json.loads((folder / "summary.json").read_text())
        summary["metadata"]["definitions"]["own"] = {"label": "My own", "higher_is_better": True}
        (folder / "summary.json").write_text(json.dumps(summary))
    assert main(["table2", str(sweep), "--metric", "own"]) == 0
    assert "My own" in (sweep / "tables" / "table2_own.md").read_text()
    assert (sweep / "tables" / "table2_own_by_k.png").is_file()


def test_methods_and_metrics_can_be_chosen(sweep, capsys):
    arguments = ["--methods", "genept", "--metrics", "all", "--by-line"]
    assert main(["table1", str(sweep), *arguments]) == 0
    out = capsys.readouterr().out
    assert "Discrimination" in out
    assert "PT-RAG" not in out
    assert (sweep / "tables" / "table1_by_line.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--watch", "0"], "--watch 0: expected a number of seconds above 0"),
        (["--methods", "none"], "--methods 'none' is none of the sweep's methods"),
        (["--metrics", "mze"], "no metric 'mze'"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_written(sweep, arguments, message, capsys):
    assert main(["table1", str(sweep), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (sweep / "tables").exists()


def test_table2_names_close_spellings_of_an_unknown_metric(sweep, capsys):
    assert main(["table2", str(sweep), "--metric", "pearson_dge"]) == 1
    assert "--metric: no metric 'pearson_dge'; close spellings: pearson_dge -> pearson_de" in capsys.readouterr().err


def test_a_folder_that_is_no_sweep_is_refused(tmp_path, capsys):
    assert main(["table1", str(tmp_path)]) == 1
    assert "it is no sweep" in capsys.readouterr().err
    (tmp_path / "jobs").mkdir()
    assert main(["table2", str(tmp_path)]) == 1
    assert "has no jobs yet" in capsys.readouterr().err


def test_watching_shows_each_finished_job_and_ends_with_the_sweep(tmp_path, capsys):
    make_job(tmp_path, "genept", "k562")
    waiting = make_job(tmp_path, "genept", "hepg2", status="running")

    def finish():
        time.sleep(1)
        predictions = waiting.run_folder / "eval_last.ckpt"
        write_evaluation(predictions / "gge", "hepg2", 0.5, 0)
        values = {**vars(read_job(tmp_path, waiting.name)), "status": "finished", "predictions": predictions}
        write_job(tmp_path, type(waiting)(**values))

    worker = threading.Thread(target=finish)
    worker.start()
    assert main(["table1", str(tmp_path), "--watch", "0.1"]) == 0
    worker.join()
    out = " ".join(capsys.readouterr().out.split())
    assert "Missing: 1 of 2 runs." in out
    assert "Mean over 20 conditions" in out
    assert "Mean over 40 conditions" in out
    assert "2/2" in (tmp_path / "tables" / "table1.md").read_text()


def test_tables_do_not_need_the_sweeps_other_files(sweep):
    record = next((sweep / "jobs").glob("*.json"))
    assert json.loads(record.read_text())["run_folder"].startswith("runs/")
    moved = sweep.rename(sweep.parent / "moved")
    assert main(["table1", str(moved)]) == 0
