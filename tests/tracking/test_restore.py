import json

import pytest
import yaml

from state_rag.errors import StateRagError
from state_rag.tracking import restore
from state_rag.tracking.restore import config_yaml, read_config

TEXT = "training:\n  lr: 0.0001\nname: x\n"


@pytest.mark.parametrize(
    "config",
    [
        {"state_rag": {"config_yaml": TEXT}, "lr": 1},
        {"state_rag": {"desc": None, "value": {"config_yaml": TEXT}}, "_wandb": {"value": {}}},
    ],
    ids=["as the API has it", "as W&B's files have it"],
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_the_configuration_comes_back_to_the_letter(config, suffix, tmp_path):
    path = tmp_path / f"config.{suffix}"
    path.write_text(json.dumps(config) if suffix == "json" else yaml.safe_dump(config))
    assert config_yaml(read_config(str(path)), str(path)) == TEXT


def test_a_run_of_something_else_is_refused_by_name(tmp_path):
    (tmp_path / "config.yaml").write_text("lr: {value: 1}\n")
    with pytest.raises(StateRagError, match=r"config\.yaml has no configuration of a `state tx train` run"):
        config_yaml(read_config(str(tmp_path / "config.yaml")), str(tmp_path / "config.yaml"))


@pytest.mark.parametrize("source", ["absent.yaml", "no/such/folder/at/all"])
def test_what_does_not_exist_is_refused(source):
    with pytest.raises(StateRagError, match="no such file"):
        read_config(source)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StateRagError, match=r"holds 0 \.wandb files"):
        read_config(str(tmp_path))


def test_a_damaged_log_is_refused(tmp_path):
    (tmp_path / "run-x.wandb").write_bytes(b"not a log")
    with pytest.raises(StateRagError, match=r"run-x\.wandb cannot be read by W&B's reader"):
        read_config(str(tmp_path))


def test_a_run_on_the_server_needs_a_login(monkeypatch):
    monkeypatch.setattr(restore, "is_logged_in", lambda: False)
    with pytest.raises(StateRagError, match="wandb login"):
        read_config("team/state/abc123")
