import os

import pytest
from state.tx import utils

from state_rag.settings import RagSettings
from state_rag.upstream.training import wandb_run
from tests import tiny_model as tiny


def values(toml=None, **changes):
    return {"data": {"kwargs": {"toml_config_path": toml}}, "output_dir": "runs", "name": "x", "wandb": {}, **changes}


@pytest.mark.parametrize(
    ("tables", "lines"),
    [
        ('[training]\ns = "train"\n[zeroshot]\n[fewshot."s.hepg2"]\nval = ["A"]\ntest = ["B"]\n', "hepg2"),
        ('[training]\ns = "train"\n[zeroshot]\n"s.k562" = "test"\n"s.rpe1" = "val"\n[fewshot]\n', "k562"),
        ('[training]\ns = "train"\n[zeroshot]\n"s.k562" = "test"\n[fewshot."s.hepg2"]\ntest = ["B"]\n', "hepg2+k562"),
        ('[training]\ns = "train"\n[zeroshot]\n[fewshot]\n', None),
    ],
)
def test_the_held_out_lines_are_those_with_test_perturbations(tables, lines, tmp_path):
    (tmp_path / "split.toml").write_text(f'[datasets]\ns = "s.h5ad"\n{tables}')
    assert wandb_run.held_out(values(str(tmp_path / "split.toml"))) == lines


@pytest.mark.parametrize("path", [None, "absent.toml"])
def test_without_a_readable_split_no_line_is_named(path):
    assert wandb_run.held_out(values(path)) is None


@pytest.mark.parametrize("mode", ["none", *tiny.MODES])
def test_k_is_a_label_of_retrieval_only(mode):
    settings = RagSettings.from_mapping(tiny.FLAGS.get(mode, {}))
    labels = wandb_run.labels_of(values(), settings)
    assert labels["method"] == mode
    assert labels["topk"] == (settings.topk_rag if settings.retrieves else None)


def test_an_anchored_network_is_told_from_one_that_is_not():
    settings = RagSettings.from_mapping({**tiny.FLAGS["genept"], "rag_evidence": "predict"})
    assert wandb_run.labels_of(values(), settings)["method"] == "genept+evidence"


def test_tags_are_short_and_leave_out_what_does_not_apply():
    tags = wandb_run.tags_of({"method": "none", "held_out": "+".join(["line"] * 40), "topk": None})
    assert tags[0] == "method=none"
    assert len(tags) == 2
    assert max(map(len, tags)) == 64


@pytest.mark.parametrize(
    ("section", "environ", "expected"),
    [
        ({"entity": "your_entity_name", "project": "state"}, {}, (None, "state")),
        ({"entity": "your_entity_name", "project": "state"}, {"WANDB_PROJECT": "mine"}, (None, "mine")),
        ({"entity": "team", "project": "screen"}, {"WANDB_PROJECT": "mine"}, ("team", "screen")),
        ({"entity": None, "project": None}, {}, (None, None)),
    ],
)
def test_states_placeholders_give_way_to_wandbs_own_defaults(section, environ, expected):
    assert wandb_run.entity_and_project(section, environ) == expected


def test_what_we_replace_is_what_states_configuration_says(compose):
    section = compose()["wandb"]
    assert (section["entity"], section["project"]) == (wandb_run.PLACEHOLDER_ENTITY, wandb_run.DEFAULT_PROJECT)


def test_a_variable_that_is_set_is_not_changed(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep")
    monkeypatch.delenv("WANDB_JOB_TYPE", raising=False)
    with wandb_run.environment(WANDB_RUN_GROUP="other", WANDB_JOB_TYPE="train", WANDB_NOTES=None):
        assert (os.environ["WANDB_RUN_GROUP"], os.environ["WANDB_JOB_TYPE"]) == ("sweep", "train")
    assert os.environ["WANDB_RUN_GROUP"] == "sweep"
    assert "WANDB_JOB_TYPE" not in os.environ


def test_without_wandb_states_loggers_are_its_own():
    original = utils.get_loggers
    with wandb_run.described_run(values(use_wandb=False), RagSettings()):
        assert utils.get_loggers is original


def test_tags_and_group_of_the_configuration_reach_wandb(monkeypatch, tmp_path):
    seen = {}

    def get_loggers(**given):
        seen.update(given, group=os.environ.get("WANDB_RUN_GROUP"), job=os.environ.get("WANDB_JOB_TYPE"))
        return []

    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(utils, "get_loggers", get_loggers)
    config = {"wandb": {"entity": "your_entity_name", "project": "state", "tags": ["mine"], "group": "paper"}}
    with wandb_run.described_run(values(use_wandb=True), RagSettings()):
        utils.get_loggers(cfg=config, name="x", wandb_entity="your_entity_name", wandb_project="state")
    assert utils.get_loggers is get_loggers
    assert (seen["group"], seen["job"], seen["wandb_entity"]) == ("paper", "train", None)
    assert seen["cfg"]["wandb"]["tags"] == ["mine", "method=none"]
    assert config["wandb"]["tags"] == ["mine"]
