from argparse import ArgumentParser

import pytest
import yaml

from state_rag.errors import StateRagError
from state_rag.upstream import infer, predict
from state_rag.upstream.arguments import add_infer_arguments, add_predict_arguments


@pytest.fixture
def refused(tmp_path):
    """Return a function that runs a command on an evidence run and returns the refusal."""
    import state._cli._tx._infer as upstream_infer
    import state._cli._tx._predict as upstream_predict

    run = tmp_path / "engine"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "evidence"}, "data": {"kwargs": {}}}))
    commands = {
        "infer": (infer, upstream_infer.add_arguments_infer, add_infer_arguments, ["--model-dir", str(run)]),
        "predict": (predict, upstream_predict.add_arguments_predict, add_predict_arguments, ["--output-dir", str(run)]),
    }

    def ask(command, *words):
        room, theirs, ours, usual = commands[command]
        parser = ArgumentParser()
        theirs(parser)
        ours(parser)
        more = ["--adata", "cells.h5ad"] if command == "infer" else []
        with pytest.raises(StateRagError) as error:
            room.run(None, parser.parse_args([*usual, *more, *words]))
        return str(error.value), run

    return ask


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tsv", "more.tsv"], "--tsv: --perturbations A,B (or a file with a name on a line) says what to predict"),
        (["--all-perts"], "--all-perts: `state-rag evidence predict {run} -o effects.h5ad`"),
        (["--max-cells", "9", "--min-cells", "2"], "--min-cells, --max-cells: --virtual-cells-per-pert says how many"),
        (["--output", "cells.npy"], "--output cells.npy: .* ends in .h5ad"),
    ],
)
def test_an_option_of_networks_is_refused_alone_and_with_what_takes_its_place(words, said, refused):
    message, run = refused("infer", *words)
    start, _, end = said.format(run=run).partition(" .* ")
    assert start in message
    assert end in message
    others = {"--tsv", "--all-perts", "--max-cells", "--min-cells", ".npy"} - {*words, ".npy"}
    assert not [flag for flag in others if flag in message]


def test_so_it_is_for_predict(refused):
    message, run = refused("predict", "--pseudobulk", "--max-batches", "3")
    assert f"--pseudobulk: `state-rag evidence predict {run} -o effects.h5ad` writes mean effects" in message
    assert "--max-batches: there are no batches" in message
    assert "--count-flops" not in message
