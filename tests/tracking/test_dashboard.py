import json
import re
import sys

import pytest

from state_rag import cli
from state_rag.errors import StateRagError
from state_rag.metrics.registry import BY_NAME
from state_rag.tracking import dashboard
from tests import tiny_model as tiny
from tests.tracking.training import metrics, train

pytest.importorskip("wandb_workspaces")


@pytest.fixture(scope="module")
def specification():
    return dashboard.specification(dashboard.build("team/state", group="sweep1"))


def panels(specification):
    sections = specification["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_there_is_a_panel_for_everything_that_is_logged(specification):
    text = json.dumps(specification)
    drawn = set(re.findall(r'"((?:train|retrieval|val_retrieval|evaluation)/[\w/]+)"', text))
    assert {
        "train/gumbel_active_ratio",
        "retrieval/n_selected",
        "retrieval/score_mean",
        "retrieval/score_std",
        "retrieval/temperature",
        "train/gradient_norm_ratio",
        "val_retrieval/jaccard_mean",
        "val_retrieval/jaccard_heatmap",
        "evaluation/pearson_delta",
    } <= drawn
    assert "val_retrieval/watched" in text
    assert "evaluation/table" in text
    assert all(f"evidence/{name}" in text for name in ("scores", "sources", "trust"))
    assert all(panels(specification).values())


def logged_by(mode, folder):
    train(tiny.build(mode, check_gradients=True, gradient_check_interval=2), folder)
    return {key for row in metrics(folder) for key in row}


def test_every_curve_draws_a_series_that_some_method_logs(tmp_path):
    logged = logged_by("differentiable", tmp_path / "selector") | logged_by("vanilla", tmp_path / "attention")
    assert {name for titles in dashboard.LINES.values() for series in titles.values() for name in series} <= logged
    for titles in dashboard.FAMILIES.values():
        for pattern in titles.values():
            assert any(re.search(pattern, name) for name in logged), pattern


def test_bars_are_metrics_of_the_evaluation():
    assert {name for names in dashboard.BARS.values() for name in names} <= set(BY_NAME)


def test_runs_are_grouped_by_method_line_and_k_and_limited_to_a_sweep(specification):
    (runs,) = specification["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["method.value", "held_out.value", "topk.value"]
    (condition,) = runs["filters"]["filters"]
    assert (condition["key"]["name"], condition["value"]) == ("group", "sweep1")


def test_without_a_group_every_run_is_shown():
    (runs,) = dashboard.specification(dashboard.build("team/state"))["section"]["runSets"]
    assert not runs["filters"].get("filters")


@pytest.mark.parametrize("project", ["state", "a/b/c", "a/", "/b", "a b/c"])
def test_a_project_of_another_form_is_refused(project):
    with pytest.raises(StateRagError, match="ENTITY/PROJECT"):
        dashboard.build(project)


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(StateRagError, match=r"pip install 'state-rag\[dashboard\]'"):
        dashboard.build("team/state")


def test_without_a_login_nothing_is_sent(monkeypatch, capsys):
    monkeypatch.setattr(dashboard, "is_logged_in", lambda: False)
    assert cli.main(["dashboard", "team/state"]) == 1
    assert "wandb login" in capsys.readouterr().err


def test_a_failure_to_save_is_one_message(monkeypatch):
    class View:
        entity, project = "team", "state"

        def save(self):
            raise OSError("no route to host\nmore")

    monkeypatch.setattr(dashboard, "is_logged_in", lambda: True)
    with pytest.raises(StateRagError, match=r"team/state could not be saved: no route to host\. `--dry-run`"):
        dashboard.save(View())


def test_a_dry_run_writes_what_would_be_sent(tmp_path, capsys):
    target = tmp_path / "view.json"
    assert cli.main(["dashboard", "team/state", "--dry-run", "-o", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert "Watched perturbations" in panels(json.loads(target.read_text()))
    assert cli.main(["dashboard", "team/state", "--dry-run"]) == 0
    assert "section" in json.loads(capsys.readouterr().out)
