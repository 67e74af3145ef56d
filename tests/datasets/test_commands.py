import pytest

from state_rag.errors import StateRagError
from tests.datasets.calls import call, next_command
from tests.datasets.helpers import make_adata


def test_each_command_prints_one_that_works_from_simulation_to_training(tmp_path, capsys):
    call("data", "simulate", tmp_path / "a screen", "--preset", "small", "--cells-per-condition", 4)
    words = next_command(capsys)
    assert words[:3] == ["state-rag", "data", "split"]
    call(*words[1:])
    words = next_command(capsys)
    assert words[:3] == ["state-rag", "data", "check"]
    call(*words[1:])
    words = next_command(capsys)
    assert words[:5] == ["state", "tx", "train", "rag=ptrag", "data=replogle"]
    assert "training.topk_rag=8" in words  # of 24 perturbations
    assert f"training.genept_path={tmp_path / 'a screen' / 'embeddings.safetensors'}" in words
    assert f"data.kwargs.toml_config_path={tmp_path / 'a screen' / 'split_hepg2.toml'}" in words


def test_each_command_prints_one_that_works_from_preparation_to_training(tmp_path, capsys):
    adata = make_adata()
    adata.var.index.name = "symbol"
    adata.write_h5ad(tmp_path / "in.h5ad")
    call("data", "prepare", tmp_path / "in.h5ad")
    words = next_command(capsys)
    call(*words[1:], "--few-shot", 0.2, "--val-fraction", 0.2)
    words = next_command(capsys)
    call(*words[1:])
    words = next_command(capsys)
    assert {"data.kwargs.pert_col=perturbation", "data.kwargs.control_pert=ctrl", "data.kwargs.batch_col=batch"} <= {
        *words
    }


def test_a_screen_without_line_and_batch_goes_from_preparation_to_training(tmp_path, capsys):
    adata = make_adata()
    del adata.obs["cell_type"], adata.obs["batch"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    call("data", "prepare", tmp_path / "in.h5ad")
    words = next_command(capsys)
    assert words[4:6] == ["--held-out-perturbations", "0.2"]
    call(*words[1:])
    words = next_command(capsys)
    call(*words[1:])
    assert "data.kwargs.control_pert=ctrl" in next_command(capsys)


def test_errors_come_as_one_kind(tmp_path):
    with pytest.raises(StateRagError, match="no such file or folder"):
        call("data", "split", tmp_path / "none.h5ad", "--held-out", "x")
