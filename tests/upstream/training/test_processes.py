import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from torch import nn

from state_rag.upstream.training import processes
from state_rag.upstream.training.one_trainer import unreached


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_NNODES", "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def second(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)


def config(folder, **changes):
    return OmegaConf.create(
        {"output_dir": str(folder), "name": "x", "use_wandb": True, "overwrite": False, "training": {}, **changes}
    )


@pytest.mark.parametrize(("devices", "several"), [(1, False), ("1", False), ([3], False), (2, True), ([0, 1], True)])
def test_more_than_one_device_is_several_processes(devices, several):
    assert processes.are_several({"training": {"devices": devices}}) == several


def test_slurm_says_how_many_nodes_there_are(monkeypatch):
    assert processes.nodes() == 1
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert processes.nodes() == 2
    assert processes.are_several({"training": {}})
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
    assert processes.nodes() == 1


def test_a_job_of_one_task_is_one_process_whatever_slurm_gave_to_others(monkeypatch):
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert processes.nodes() == 1


def test_the_first_process_has_the_configuration_as_it_is(tmp_path):
    cfg = config(tmp_path)
    with processes.place_of(cfg) as own:
        assert own is cfg


def test_another_process_writes_elsewhere_and_finds_the_checkpoint_to_go_on_from(second, tmp_path):
    last = tmp_path / "x" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_text("weights")
    level = logging.getLogger("state_rag").level
    with processes.place_of(config(tmp_path)) as own:
        folder = Path(own.output_dir) / "x"
        assert folder.is_dir()
        assert tmp_path not in folder.parents
        assert (folder / "checkpoints" / "last.ckpt").read_text() == "weights"
        assert own.use_wandb is False
    assert not folder.exists()
    assert last.read_text() == "weights"
    assert logging.getLogger("state_rag").level == level


def test_another_process_neither_deletes_a_run_nor_goes_on_from_one_that_is_overwritten(second, tmp_path):
    last = tmp_path / "x" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_text("weights")
    with processes.place_of(config(tmp_path, overwrite=True)) as own:
        assert own.overwrite is False
        assert not (Path(own.output_dir) / "x" / "checkpoints").exists()
    assert last.exists()


@pytest.mark.parametrize(
    "message",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:3",
        "Application timeout caused pair closure",
        "Timed out waiting 30000ms for recv operation to complete",
        "NCCL communicator was aborted on rank 0.",
    ],
)
def test_what_gloo_and_nccl_say_of_a_process_that_is_gone_is_known(message):
    assert processes.is_lost(RuntimeError(message))


def test_other_errors_are_left_as_they_are():
    assert not processes.is_lost(RuntimeError("CUDA out of memory"))
    assert not processes.is_lost(ValueError("shapes"))


def test_the_message_says_whether_there_is_something_to_go_on_from(tmp_path):
    assert "starts anew" in processes.lost(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert "goes on from it" in processes.lost(tmp_path)


def test_a_process_that_does_not_end_by_itself_is_ended(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    processes._end([child])
    assert child.wait(5) < 0


@pytest.mark.parametrize(
    ("raw", "space", "skipped"), [(True, "gene", False), (False, "gene", True), (True, "embedding", True)]
)
def test_a_decoder_without_counts_to_decode_to_is_passed_over(raw, space, skipped):
    model = nn.Module()
    model.gene_decoder, model.other = nn.Linear(2, 2), nn.Linear(2, 2)
    found = unreached(model, SimpleNamespace(store_raw_expression=raw, output_space=space))
    assert found == (["gene_decoder.weight", "gene_decoder.bias"] if skipped else [])
