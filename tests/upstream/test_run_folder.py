import shutil

import numpy as np
import pytest
import torch
import yaml

from state_rag.errors import StateRagError
from state_rag.torch_files import read_torch
from state_rag.upstream.run_folder import find_run, read_checkpoint, read_run


@pytest.fixture
def make_run(tmp_path):
    def make(name, **changes):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = {
            "output_dir": str(tmp_path / "runs"),
            "name": name,
            "training": {"rag": True, "use_genept": True, "lr": 0.1},
            "data": {"kwargs": {"control_pert": "ctrl", "pert_col": "gene"}},
            **changes,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return make


def test_a_run_folder_is_read(make_run):
    run = find_run(make_run("a"))
    assert run.control == "ctrl"
    assert run.settings.mode == "hidden"
    assert not run.has_moved


def test_a_folder_with_one_run_stands_for_it(make_run, tmp_path, caplog):
    folder = make_run("only")
    (tmp_path / "runs" / "wandb_logs").mkdir()
    with caplog.at_level("INFO", logger="state_rag"):
        assert find_run(tmp_path / "runs").folder == folder
    assert str(folder) in caplog.text


def test_a_folder_with_two_runs_is_refused_with_their_names(make_run, tmp_path):
    make_run("first")
    make_run("second")
    with pytest.raises(StateRagError, match=r"2 runs \(first, second\)"):
        find_run(tmp_path / "runs")


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_folder_without_a_run_is_refused_by_the_flags_name(name, tmp_path):
    with pytest.raises(StateRagError, match="--model-dir"):
        find_run(tmp_path / name, "--model-dir")


def test_a_run_that_lies_elsewhere_than_its_configuration_says_has_moved(make_run, tmp_path):
    moved = shutil.move(make_run("a"), tmp_path / "elsewhere")
    assert read_run(tmp_path / "elsewhere").has_moved
    assert str(moved) == str(tmp_path / "elsewhere")


@pytest.mark.parametrize("text", ["data: [", "data: 3", "name: x", "# nothing", "[]"])
def test_a_configuration_that_is_none_is_refused_by_its_path(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(StateRagError, match=r"config\.yaml is not the configuration"):
        find_run(tmp_path)


def test_a_missing_checkpoint_is_reported_with_those_that_exist(tmp_path):
    torch.save({}, tmp_path / "last.ckpt")
    with pytest.raises(StateRagError, match=r"final\.ckpt.*last\.ckpt.*--checkpoint"):
        read_checkpoint(tmp_path / "final.ckpt")


@pytest.mark.parametrize("keep", [0, 1, 100, 600])
def test_a_truncated_checkpoint_is_refused(keep, tmp_path):
    torch.save({"state_dict": {"x": torch.zeros(300)}}, tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:keep])
    with pytest.raises(StateRagError, match="damaged or incomplete"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"state_dict": Harmful()}, tmp_path / "a.ckpt")
    with pytest.raises(StateRagError, match="a.ckpt holds a print, which only running code"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_dict_without_weights_is_no_checkpoint(tmp_path):
    torch.save({"x": 1}, tmp_path / "a.ckpt")
    with pytest.raises(StateRagError, match="no state_dict"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_names_that_are_numpy_strings_can_be_read(tmp_path):
    torch.save({np.str_("AARS"): torch.ones(2)}, tmp_path / "map.pt")
    assert list(read_torch(tmp_path / "map.pt", "")) == ["AARS"]


@pytest.mark.parametrize("number", [np.int64(7), np.float32(0.5), np.bool_(True), np.uint8(3), np.float64(0.25)])
def test_numbers_of_numpy_among_the_hyperparameters_can_be_read(tmp_path, number):
    torch.save({"hyper_parameters": {"decoder_cfg": {"gene_dim": number}}}, tmp_path / "run.ckpt")
    assert read_torch(tmp_path / "run.ckpt", "") == {"hyper_parameters": {"decoder_cfg": {"gene_dim": number}}}


def test_a_list_is_not_the_expected_dict(tmp_path):
    torch.save([1], tmp_path / "map.pt")
    with pytest.raises(StateRagError, match="holds a list"):
        read_torch(tmp_path / "map.pt", "Copy it again.")
