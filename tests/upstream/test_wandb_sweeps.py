"""W&B sweep definitions, run as W&B's own agent runs them."""

import importlib.util
import json
import math
import random
from pathlib import Path

import pytest
import yaml

from state_rag.settings import RagSettings
from state_rag.upstream.search_path import config_dir
from tests.end_to_end import commands

FOLDER = Path(config_dir()) / "sweep" / "wandb"
DEFINITIONS = sorted(FOLDER.glob("*.yaml"))
RUN_ID = "abcd1234"


def sampled(definition: dict, seed: int) -> dict:
    """A value of each parameter, as W&B's search would choose one."""
    draw = random.Random(seed)
    values = {}
    for name, parameter in definition["parameters"].items():
        if "value" in parameter:
            values[name] = parameter["value"]
        elif "values" in parameter:
            values[name] = draw.choice(parameter["values"])
        elif parameter["distribution"] == "log_uniform_values":
            values[name] = math.exp(draw.uniform(math.log(parameter["min"]), math.log(parameter["max"])))
        else:
            assert parameter["distribution"] == "uniform"
            values[name] = draw.uniform(parameter["min"], parameter["max"])
    return values


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Return a function that has W&B's agent start a run; it returns the command and its environment."""
    from wandb import wandb_agent

    for name, value in {"WANDB_DIR": str(tmp_path), "WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    seen = []

    class Process:
        def __init__(self, env=None, command=None, **_):
            seen.append((command, env))

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)

    def start(definition: dict, values: dict):
        agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
        agent._sweep_command = definition["command"]
        arguments = {name: {"value": value} for name, value in values.items()}
        agent._command_run({"type": "run", "run_id": RUN_ID, "program": definition["program"], "args": arguments})
        return seen[-1]

    return start


def test_there_are_definitions_for_tuning_and_for_the_papers_ablations():
    assert {path.stem for path in DEFINITIONS} >= {"ptrag_bayes", "table2_topk", "sparsity"}


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_a_definition_validates_against_wandbs_schema(path):
    found = importlib.util.find_spec("sweeps")
    if found is None or found.origin is None:
        pytest.skip("W&B's schema is not installed: pip install --no-deps sweeps")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(found.origin).parent / "config" / "schema.json").read_text())
    definition = yaml.safe_load(path.read_text())
    jsonschema.Draft7Validator(schema).validate(definition)
    definition["parameters"]["training.lr"] = {"values": [], "min": "low"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(definition)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_what_the_agent_starts_is_a_training_with_the_sampled_values(path, seed, started, compose, monkeypatch):
    definition = yaml.safe_load(path.read_text())
    values = sampled(definition, seed)
    command, env = started(definition, values)
    assert command[:4] == ["/usr/bin/env", "state", "tx", "train"]
    monkeypatch.setenv("WANDB_RUN_ID", env["WANDB_RUN_ID"])
    config = compose(*command[4:])
    assert config["use_wandb"] is True
    assert (config["output_dir"], config["name"]) == (f"runs/{path.stem}", RUN_ID)
    for name, value in values.items():
        if name == "rag":
            continue
        place = config
        for part in name.split("."):
            place = place[part]
        assert place == (pytest.approx(value) if isinstance(value, float) else value)
    settings = RagSettings.from_mapping(config["training"])
    assert settings.mode == {"vanilla": "vanilla"}.get(values.get("rag", "ptrag"), "differentiable")


def test_the_papers_table_has_the_methods_and_k_of_our_own_sweep():
    ours = yaml.safe_load((FOLDER.parent / "table2_topk.yaml").read_text())["hydra"]["sweeper"]["params"]
    theirs = yaml.safe_load((FOLDER / "table2_topk.yaml").read_text())["parameters"]
    for key in ("rag", "training.topk_rag"):
        assert ",".join(map(str, theirs[key]["values"])) == ours[key]


@pytest.mark.slow
def test_what_the_agent_starts_trains(started, project, tmp_path):
    definition = yaml.safe_load((FOLDER / "table2_topk.yaml").read_text())
    values = sampled(definition, 0)
    small = [override for override in (*commands.SHORT, *commands.TINY_MODEL) if not override.startswith("use_wandb")]
    # `rag` is a parameter of the sweep, which W&B locks, and a section of the configuration that STATE hands to W&B.
    values |= {"rag": "ptrag", "training.topk_rag": 5, "data.kwargs.toml_config_path": str(project.split)}
    values["training.genept_path"] = str(project.embeddings)
    values |= dict(override.split("=", 1) for override in small)
    command, env = started(definition, values)
    environment = {**env, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    finished = commands.run(command[4:], tmp_path, via=[*commands.STATE, *command[2:4]], env=environment)
    folder = tmp_path / "runs" / "table2_topk" / RUN_ID
    assert (folder / "checkpoints" / "last.ckpt").is_file(), finished.stderr[-2000:]
    assert (folder / "wandb_path.txt").read_text().endswith(RUN_ID)
