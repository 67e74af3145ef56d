from argparse import ArgumentParser, ArgumentTypeError

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from state_rag.upstream.arguments import add_infer_arguments, add_predict_arguments, known_override, known_preset


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


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("training.rag_sources=[genept,go=/a/b.gmt.gz]", ["genept", "go=/a/b.gmt.gz"]),
        ("++training.rag_sources=[go=~/x y.gmt]", ["go=~/x y.gmt"]),
        ("training.rag_sources=['go=a.gmt']", ["go=a.gmt"]),
        ("training.rag_sources=[]", []),
    ],
)
def test_sources_are_written_without_the_quotes_that_hydra_wants(given, read):
    override = OverridesParser.create().parse_override(known_override(given))
    assert override.value() == read
    assert override.key_or_group == "training.rag_sources"


def test_other_overrides_are_not_quoted():
    assert known_override("training.rag_watch=[A,B]") == "training.rag_watch=[A,B]"
