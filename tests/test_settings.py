"""The flags as one object: their types, the method they describe, and contradictions."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.retrieval.modes import MODES
from state_rag.settings import FLAGS, RagSettings, modes, preset_defaults
from tests import published

CHOICES = {name: known.choices() for name, known in FLAGS.items() if known.choices is not None}
PTRAG = {"rag": True, "use_genept": True, "retrieve_than_predict": True, "differentiable_rag": True}


def refusal(**flags):
    with pytest.raises(StateRagError) as error:
        RagSettings.from_mapping(flags)
    return str(error.value)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ({}, "none"),
        ({"use_genept": True}, "genept"),
        ({"use_genept": True, "retrieve_than_predict": True}, "genept"),
        ({"rag": True, "use_genept": True, "retrieve_than_predict": True}, "vanilla"),
        ({"rag": True, "use_genept": True}, "hidden"),
        (PTRAG, "differentiable"),
    ],
)
def test_flags_describe_one_of_five_methods(flags, mode):
    settings = RagSettings.from_mapping(flags)
    assert settings.mode == mode
    assert settings.retrieves == (mode in ("vanilla", "hidden", "differentiable"))


def test_other_keys_of_the_training_section_are_left_alone():
    settings = RagSettings.from_mapping({**PTRAG, "lr": 1e-3, "train_seed": 42, "loss_fn": object()})
    assert settings == RagSettings.from_mapping(PTRAG)


def test_published_names_and_defaults_are_kept():
    assert {field.name for field in fields(RagSettings)} >= published.FLAGS
    settings = RagSettings()
    assert (settings.topk_rag, settings.gumbel_sparsity_weight, settings.gumbel_temperature) == (32, 0.1, 0.5)
    assert (settings.rag_fusion, settings.rag_inference, settings.rag_score_scale) == ("replace", "expected", "running")


def test_settings_survive_a_trip_through_plain_types():
    settings = RagSettings.from_mapping({**PTRAG, "topk_rag": 7, "rag_attention": "causal", "genept_path": "a.npz"})
    plain = settings.to_dict()
    assert all(isinstance(value, bool | int | float | str | list | None) for value in plain.values())
    assert RagSettings.from_mapping(plain) == settings


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            {"differentiable_rag": True, "use_genept": True, "retrieve_than_predict": True},
            ["training.differentiable_rag=true", "training.rag=false", "Set training.rag=true"],
        ),
        (
            {"rag": True, "differentiable_rag": True, "retrieve_than_predict": True},
            ["training.differentiable_rag=true", "training.use_genept=false", "Set training.use_genept=true"],
        ),
        ({"rag": True}, ["training.rag=true", "training.use_genept=false", "training.rag=false for plain STATE"]),
        (
            {**PTRAG, "retrieve_than_predict": False},
            ["training.differentiable_rag=true", "training.retrieve_than_predict=false", "rag=hidden"],
        ),
        (
            {"rag": True, "use_genept": True, "retrieve_than_predict": True, "gumbel_sparsity_loss": True},
            ["training.gumbel_sparsity_loss=true", "training.differentiable_rag=false", "Set "],
        ),
        (
            {"rag": True, "use_genept": True, "retrieve_than_predict": True, "rag_score_similarity": True},
            ["training.rag_score_similarity=true", "training.differentiable_rag=false", "Set "],
        ),
        (
            {"gumbel_sparsity_loss": True},
            ["training.gumbel_sparsity_loss=true", "training.gumbel_sparsity_loss=false"],
        ),
    ],
)
def test_contradictory_flags_are_refused_naming_both_and_the_remedy(flags, named):
    message = refusal(**flags)
    assert all(part in message for part in named), message


@pytest.mark.parametrize("name", CHOICES)
def test_a_value_that_is_no_choice_is_refused_with_the_choices(name):
    message = refusal(**{name: "sideways"})
    assert f"training.{name}=sideways" in message
    assert all(("null" if choice is None else choice) in message for choice in CHOICES[name])


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_accepted(name):
    for choice in CHOICES[name]:
        others = {**PTRAG, **MODES[choice].flags} if name == "rag_mode" and choice else {}
        others |= {"use_genept": True} if name == "rag_evidence" else {}
        assert getattr(RagSettings.from_mapping({**others, name: choice}), name) == choice


@pytest.mark.parametrize("mode", MODES)
def test_a_way_to_retrieve_can_be_named_in_place_of_its_flags_but_not_against_them(mode):
    flags = {**PTRAG, **MODES[mode].flags}
    assert RagSettings.from_mapping({**flags, "rag_mode": mode}).mode == RagSettings.from_mapping(flags).mode == mode
    other = next(name for name in MODES if name != mode)
    assert "mean different ways to retrieve" in refusal(**flags, rag_mode=other)
    assert set(modes()) == {"none", "genept", *MODES}


def test_a_way_to_retrieve_without_retrieval_is_refused():
    assert "Set training.rag=true" in refusal(rag_mode="vanilla")


def test_defaults_on_a_command_line_are_those_of_the_object_or_follow_another_flag():
    for name, default in preset_defaults().items():
        if FLAGS[name].follows:
            assert default == f"${{training.{FLAGS[name].follows}}}"
        else:
            assert RagSettings.from_mapping({name: default}) == RagSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topk_rag", 0),
        ("topk_rag", -3),
        ("gradient_check_interval", 0),
        ("genept_text_width", 0),
        ("gumbel_temperature", 0.0),
        ("gumbel_temperature", -1.0),
        ("gumbel_temperature", float("nan")),
        ("gumbel_temperature", float("inf")),
        ("gumbel_sparsity_weight", -0.1),
        ("gumbel_sparsity_weight", float("nan")),
        ("rag_query_dropout", -0.1),
        ("rag_query_dropout", 1.0),
        ("rag_query_dropout", float("nan")),
        ("rag_weight", -1.0),
        ("rag_weight", float("inf")),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_key_value_and_range(name, value):
    message = refusal(**PTRAG, **{name: value})
    assert f"training.{name}={value}" in message
    assert any(words in message for words in ("at least", "above 0", "from 0 to below 1")), message


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("rag", "yes", "true or false"),
        ("rag", 1, "true or false"),
        ("use_genept", None, "true or false"),
        ("topk_rag", 8.0, "a whole number"),
        ("topk_rag", True, "a whole number"),
        ("topk_rag", "8", "a whole number"),
        ("rag_weight", "heavy", "a number"),
        ("rag_weight", False, "a number"),
        ("genept_path", 3, "text"),
        ("rag_fusion", None, "text"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_the_flag_takes(name, value, takes):
    message = refusal(**{name: value})
    assert f"training.{name}={value!r}" in message
    assert message.endswith(f"it takes {takes}.")


def test_whole_numbers_are_numbers_too():
    settings = RagSettings.from_mapping({"rag_weight": 2, "gumbel_temperature": 1})
    assert (settings.rag_weight, settings.gumbel_temperature) == (2.0, 1.0)
    assert isinstance(settings.rag_weight, float)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{name: st.booleans() for name in (*PTRAG, "gumbel_sparsity_loss")},
            "topk_rag": st.integers(-2, 40),
            "rag_weight": st.floats(),
            "gumbel_temperature": st.floats(),
            "rag_inference": st.sampled_from(["expected", "sample", "argmax", "mean", None]),
        },
    )
)
def test_flags_are_either_refused_or_describe_a_method_that_can_run(flags):
    try:
        settings = RagSettings.from_mapping(flags)
    except StateRagError:
        return
    if settings.mode == "differentiable":
        assert settings.use_genept
        assert settings.retrieve_than_predict
    assert settings.retrieves == settings.rag
    assert not settings.gumbel_sparsity_loss or settings.mode == "differentiable"
    assert not settings.rag or settings.topk_rag >= 1
    assert 0 < settings.gumbel_temperature < float("inf")


def test_sources_are_read_by_name_and_a_single_table_is_the_source_text():
    assert RagSettings().sources == {"text": None}
    assert RagSettings(genept_path="a.npz").sources == {"text": "a.npz"}
    named = {**PTRAG, "rag_sources": ["genept", "go = data/go.gmt.gz"]}
    assert RagSettings.from_mapping(named).sources == {"genept": None, "go": "data/go.gmt.gz"}
    both = RagSettings.from_mapping({**named, "genept_path": "a.npz"})
    assert list(both.sources) == ["text", "genept", "go"]
    assert RagSettings.from_mapping(both.to_dict()) == both


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["go"], "'go' names no file. Write NAME=FILE"),
        (["go="], "names no file"),
        (["=go.gmt"], "is no name for a source"),
        (["a|b=go.gmt"], "'a|b' is no name for a source"),
        (["responses=go.gmt"], "'responses' is no name"),
        (["go=a.gmt", "go=b.gmt"], "the name 'go' is given twice"),
        (["text=a.npz"], "that of training.genept_path"),
    ],
)
def test_sources_without_a_name_or_a_file_of_their_own_are_refused(sources, said):
    assert said in refusal(**PTRAG, rag_sources=sources, genept_path="t.npz")


def test_sources_of_a_network_without_embeddings_are_refused():
    assert "training.rag_sources=[go=go.gmt]" in refusal(rag_sources=["go=go.gmt"])
