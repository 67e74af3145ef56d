import shutil

import pandas as pd
import pytest

from state_rag.cli import main
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.engine.explaining.explain import explain
from state_rag.engine.folder import read_run
from state_rag.engine.predict import predict
from state_rag.evaluation.results import load_tables
from state_rag.evaluation.runs import find_run
from state_rag.report.evidence import ranked_conditions, show_evidence
from state_rag.report.page import Report
from tests.engine.runs import make_run

VALUES = pd.DataFrame(
    {
        "cell_line": "hepg2",
        "perturbation": list("ABCDEFG"),
        "pearson_delta": [0.1, 0.9, 0.4, 0.5, float("nan"), 0.7, 0.2],
    }
)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    _, split, place = make_run(folder)
    predict(read_run(place), split, place / "eval_last.ckpt", progress=False)
    assert main(["evaluate", str(place), "--no-baselines", "--quiet", "--metrics", "pearson_delta", "mse"]) == 0
    run = find_run(place)
    return run, run.results, load_tables(run.results)[0]


def page_of(evaluated, folder, **options):
    run, results, values = evaluated
    report = Report("page", folder)
    show_evidence(report, {"evidence": (run, results)}, {"evidence": values}, **options)
    return "\n".join(report.parts), report


def test_the_best_the_worst_and_some_between_are_shown():
    assert [(name, how.partition(":")[0]) for _, name, how in ranked_conditions(VALUES)] == [
        ("B", "best"),
        ("F", "upper quartile"),
        ("C", "typical"),
        ("G", "lower quartile"),
        ("A", "worst"),
    ]
    two = ranked_conditions(VALUES[VALUES["perturbation"].isin(["A", "B"])])
    assert [(name, how.partition(":")[0]) for _, name, how in two] == [("B", "best"), ("A", "worst")]
    assert ranked_conditions(VALUES.drop(columns="pearson_delta")) == []
    assert [name for _, name, _ in ranked_conditions(VALUES, ["E", "C"])] == ["C", "E"]


def test_each_condition_has_its_table_and_picture(evaluated, tmp_path):
    text, report = page_of(evaluated, tmp_path)
    run, _, values = evaluated
    best = values.loc[values["pearson_delta"].idxmax()]
    assert "Why: evidence behind predictions" in text
    assert f"Best: {best['perturbation']} in {best['cell_line']}" in text
    assert text.count("<table") == text.count("<figure>") == len(ranked_conditions(values))
    found = explain(read_run(run.folder), best["perturbation"], best["cell_line"])
    assert f"<td>{found.conditions[0][1]} in {found.conditions[0][0]}</td>" in text
    assert text.count("<b>100.0 %</b>") == len(ranked_conditions(values))
    assert {name for name, _ in report.pictures} >= {f"evidence_hepg2_{best['perturbation']}"}


def test_a_run_without_its_checkpoint_is_reported_with_a_remark(evaluated, tmp_path):
    run, results, values = evaluated
    copy = shutil.copytree(run.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.ckpt"))
    report = Report("page", tmp_path)
    moved = type(run)(copy, run.predictions, run.config)
    show_evidence(report, {"evidence": (moved, results)}, {"evidence": values})
    assert "Not shown" in report.parts[-1]
    assert "is missing" in report.parts[-1]


def test_a_run_without_evidence_has_no_such_section(evaluated, tmp_path):
    run, results, values = evaluated
    report = Report("page", tmp_path)
    other = type(run)(run.folder, run.predictions, {"model": {"name": "state"}})
    show_evidence(report, {"other": (other, results)}, {"other": values})
    assert not report.parts


def test_the_report_of_an_evidence_run_has_the_section_and_that_on_retrieval(evaluated, tmp_path):
    run, _, _ = evaluated
    (lists,) = read_split(run.split_path()).fewshot.values()
    name = lists["test"][0]
    words = ["report", str(run.folder), "-o", str(tmp_path), "--no-baselines", "--quiet", "--perturbations", name]
    assert main([*words, "--metrics", "pearson_delta", "mse"]) == 0
    page = (tmp_path / "index.html").read_text()
    for section in ("Why: evidence behind predictions", "Retrieval", "genes it moves most", "mean of hepg2"):
        assert section in page
    assert (tmp_path / "plots" / f"evidence_hepg2_{name}.png").is_file()
