import anndata
import pytest

from state_rag.errors import StateRagError
from tests.datasets.calls import call


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
