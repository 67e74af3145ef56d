from tests.datasets.calls import call


def test_check_counts_the_cells(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--held-out", "rpe1", "-o", tmp_path / "s.toml")
    assert "4 of its perturbations for training, 1 for validation, 7 for test" in capsys.readouterr().out
    call("data", "check", tmp_path / "s.toml")
    output = capsys.readouterr().out
    assert "test    42 perturbed cells of 7 perturbations" in output
    assert "control 60 cells" in output


def test_both_ways_on_are_named_and_what_a_laptop_needs(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--held-out", "rpe1", "-o", tmp_path / "s.toml")
    call("data", "check", tmp_path / "s.toml")
    trains, size, fits = capsys.readouterr().out.splitlines()[-3:]
    assert trains.startswith("next: state tx train rag=ptrag")
    assert size.endswith("model=rag_small training=small")
    assert fits.startswith(f"or:   state-rag evidence fit {tmp_path / 's.toml'} -o runs/evidence")


def test_the_matrix_that_was_given_is_handed_on(tmp_path, screen, capsys):
    call("data", "split", screen.h5ad, "--held-out", "rpe1", "-o", tmp_path / "s.toml")
    call("data", "check", tmp_path / "s.toml", "--embed-key", "null", "--output-space", "all")
    trains, _, fits = capsys.readouterr().out.splitlines()[-3:]
    assert " data.kwargs.embed_key=null data.kwargs.output_space=all " in trains
    assert " --embed-key null --output-space all" in fits
