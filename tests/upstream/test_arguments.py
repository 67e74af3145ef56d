from argparse import ArgumentParser, ArgumentTypeError

import pytest

from state_rag.upstream.arguments import add_infer_arguments, add_predict_arguments, known_preset


@pytest.mark.parametrize("override", ["rag=ptrag", "rag=none", "training.rag=true", "name=rag", "model=rag", "+rag=x"])
def test_known_presets_and_other_overrides_pass_unchanged(override):
    assert known_preset(override) == override


@pytest.mark.parametrize("override", ["rag=off", "rag=", "rag=PTRAG", "rag=true"])
def test_an_unknown_preset_is_refused_with_the_list_of_presets(override):
    with pytest.raises(ArgumentTypeError, match=r"rag=ptrag, rag=ptrag_paper, rag=vanilla"):
        known_preset(override)


def test_predict_takes_the_published_flags():
    parser = ArgumentParser()
    add_predict_arguments(parser)
    given = parser.parse_args(["--eval-genept-pert", "--max-batches", "3", "--genept-path", "x.npz"])
    assert (given.eval_genept_pert, given.max_batches, given.genept_path) == (True, 3, "x.npz")
    unset = parser.parse_args([])
    assert (unset.eval_genept_pert, unset.max_batches, unset.genept_path) == (False, None, None)


def test_infer_takes_a_file_of_embeddings():
    parser = ArgumentParser()
    add_infer_arguments(parser)
    assert parser.parse_args(["--genept-path", "x.npz"]).genept_path == "x.npz"
    assert parser.parse_args([]).genept_path is None
