import argparse
import re
import shlex

import anndata
import pytest

from state_rag.datasets.commands import add_commands
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata


def call(*words):
    parser = argparse.ArgumentParser(prog="state-rag")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in words])
    args.run(args)


def next_command(capsys):
    output = capsys.readouterr().out
    found = re.search(r"^next: (.*)$", output, re.M)
    assert found, output
    return shlex.split(found[1])


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


def test_prepare_says_what_it_changed(tmp_path, capsys):
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    call("data", "prepare", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad")
    output = capsys.readouterr().out
    assert "- stored X as float32 (was float64)" in output
    assert f"prepared  {tmp_path / 'out.h5ad'}" in output


def test_check_counts_the_cells(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--held-out", "rpe1", "-o", tmp_path / "s.toml")
    assert "4 of its perturbations for training, 1 for validation, 7 for test" in capsys.readouterr().out
    call("data", "check", tmp_path / "s.toml")
    output = capsys.readouterr().out
    assert "test    42 perturbed cells of 7 perturbations" in output
    assert "control 60 cells" in output


def test_folds_are_written_side_by_side_and_check_says_what_they_ask(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--folds", 3, "-o", tmp_path / "s.toml")
    output = capsys.readouterr().out
    assert "fold 2: 7 for training, 1 for validation, 4 for test" in output
    assert f"split  {tmp_path / 's_fold2.toml'}" in output
    call("data", "check", tmp_path / "s_fold0.toml")
    assert (
        "asks    unseen perturbation: 16 test conditions (4 perturbations in hepg2, jurkat" in capsys.readouterr().out
    )


def test_a_line_and_perturbations_are_held_out_together(tmp_path, screen, capsys):
    words = ("--held-out", "rpe1", "--held-out-perturbations", 0.25)
    call("data", "split", screen.h5ad, *words, "-o", tmp_path / "s.toml")
    assert "; 0% of the others of rpe1 train" in capsys.readouterr().out
    call("data", "check", tmp_path / "s.toml")
    assert "asks    unseen perturbation in a zero-shot line: 3 test conditions" in capsys.readouterr().out


def test_perturbations_to_hold_out_can_be_named_in_a_file(tmp_path, screen, capsys):
    (tmp_path / "mine.txt").write_text("\n".join(sorted(set(anndata.read_h5ad(screen.h5ad).obs["gene"]))[:2]))
    call("data", "split", screen.h5ad, "--held-out-perturbations", tmp_path / "mine.txt", "-o", tmp_path / "s.toml")
    assert "9 for training, 1 for validation, 2 for test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what is held out: a cell line .--held-out LINE"),
        (("--few-shot", 0.2, "--folds", 2), "--few-shot is about the cell line"),
        (("--folds", 2, "--test-list", "a.txt"), "--held-out-perturbations takes the file"),
        (("--held-out-perturbations", "none.txt"), "none.txt: no such"),
        (("--held-out-pairs", "any"), "The data have 0 pairs"),
    ],
)
def test_what_does_not_go_together_is_refused(words, said, screen, tmp_path):
    with pytest.raises(StateRagError, match=said):
        call("data", "split", screen.h5ad, *words, "-o", tmp_path / "s.toml")


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
