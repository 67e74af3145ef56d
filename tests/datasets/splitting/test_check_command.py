from tests.datasets.calls import call


def test_check_counts_the_cells(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--held-out", "rpe1", "-o", tmp_path / "s.toml")
    assert "4 of its perturbations for training, 1 for validation, 7 for test" in capsys.readouterr().out
    call("data", "check", tmp_path / "s.toml")
    output = capsys.readouterr().out
    assert "test    42 perturbed cells of 7 perturbations" in output
    assert "control 60 cells" in output
