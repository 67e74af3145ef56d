import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from state_rag.settings import RagSettings
from state_rag.upstream.search_path import StateRagSearchPath, config_dir
from state_rag.upstream.training.train import without_flags
from tests import published

OTHERS = (
    [],
    ["model=perturb_mean", "training=cpa"],
    ["model=state_sm", "data=perturbation", "training.max_steps=7"],
    ["model=scvi", "training=scvi", "data.kwargs.pert_col=gene"],
    ["model=tahoe_best", "name=x", "use_wandb=false"],
    ["model=decoder_only", "training=scgpt"],
)

COMPOSE = """
import json, sys
from omegaconf import OmegaConf
from state.__main__ import load_hydra_config
composed = [load_hydra_config("tx", given) for given in json.loads(sys.argv[1])]
print(json.dumps([OmegaConf.to_container(one, resolve=False) for one in composed]))
"""


@pytest.fixture(scope="module")
def upstreams():
    """What STATE composes alone, by overrides."""
    finished = subprocess.run(
        [sys.executable, "-c", COMPOSE, json.dumps(OTHERS)],
        env={**os.environ, "STATE_RAG_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(map(tuple, OTHERS), json.loads(finished.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("overrides", OTHERS, ids=lambda given: " ".join(given) or "defaults")
def test_what_state_is_given_without_retrieval_is_what_it_composes_alone(overrides, upstreams):
    from omegaconf import OmegaConf
    from state.__main__ import load_hydra_config

    assert OmegaConf.to_container(without_flags(load_hydra_config("tx", overrides))) == upstreams[tuple(overrides)]


@pytest.mark.parametrize("overrides", [given for given in OTHERS if any("training=" in part for part in given)])
def test_other_training_configurations_are_composed_exactly_as_upstream_does(overrides, upstreams, compose):
    assert compose(*overrides, resolve=False) == upstreams[tuple(overrides)]


def test_every_flag_of_the_settings_is_a_key_under_training(compose):
    training = compose()["training"]
    assert published.FLAGS <= set(RagSettings.__annotations__) <= set(training)


def test_without_overrides_nothing_is_retrieved(compose):
    training = compose()["training"]
    assert RagSettings.from_mapping(training).mode == "none"
    assert not training["gumbel_sparsity_loss"]


def test_rag_alone_means_the_published_method(compose):
    settings = RagSettings.from_mapping(compose("training.rag=true")["training"])
    assert settings.mode == "differentiable"
    assert (settings.use_genept, settings.retrieve_than_predict, settings.gumbel_sparsity_loss) == (True, True, True)
    assert (settings.topk_rag, settings.gumbel_sparsity_weight, settings.gumbel_temperature) == (32, 0.1, 0.5)
    assert (settings.rag_fusion, settings.rag_inference, settings.rag_score_scale) == ("replace", "expected", "running")
    assert (settings.rag_score_similarity, settings.rag_query_dropout) == (False, 0.0)


def test_the_preset_of_the_method_differs_from_the_published_flags_in_three(compose):
    preset, published = (
        RagSettings.from_mapping(compose(word)["training"]).to_dict() for word in ("rag=ptrag", "training.rag=true")
    )
    assert {name: value for name, value in preset.items() if value != published[name]} == {
        "rag_fusion": "residual",
        "rag_score_similarity": True,
        "rag_query_dropout": 0.1,
    }


@pytest.mark.parametrize(
    ("preset", "mode", "sparsity"),
    [
        ("none", "none", False),
        ("genept", "genept", False),
        ("vanilla", "vanilla", False),
        ("hidden", "hidden", False),
        ("ptrag", "differentiable", True),
        ("ptrag_paper", "differentiable", True),
    ],
)
def test_a_preset_is_one_word_for_a_method(preset, mode, sparsity, compose):
    settings = RagSettings.from_mapping(compose(f"rag={preset}")["training"])
    assert settings.mode == mode
    assert settings.gumbel_sparsity_loss is sparsity
    assert settings.use_genept is (mode != "none")


def test_every_preset_file_is_named_in_the_help_line(compose):
    names = {path.stem for path in (config_dir() / "rag").glob("*.yaml")}
    assert names == set(compose()["rag"]["presets"].removeprefix("rag=").split(" | "))


def test_the_paper_preset_carries_every_quirk_of_the_released_models(compose):
    training = compose("rag=ptrag_paper")["training"]
    assert training["rag_attention"] == "causal"
    assert training["rag_score_scale"] == "batch"
    assert training["rag_inference"] == "sample"
    assert (training["rag_fusion"], training["rag_score_similarity"], training["rag_query_dropout"]) == (
        "replace",
        False,
        0.0,
    )


@pytest.mark.parametrize(
    ("overrides", "mode", "sparsity"),
    [
        (["training.rag=true", "training.differentiable_rag=false"], "vanilla", False),
        (["training.rag=true", "training.differentiable_rag=false", "training.retrieve_than_predict=false"],
         "hidden", False),
        (["training.rag=true", "training.gumbel_sparsity_loss=false"], "differentiable", False),
        (["training.use_genept=true"], "genept", False),
        (["rag=ptrag", "training.rag=false", "training.use_genept=true"], "genept", False),
        (["rag=ptrag", "training.differentiable_rag=false"], "vanilla", False),
        (["rag=vanilla", "training.differentiable_rag=true"], "differentiable", True),
    ],
)  # fmt: skip
def test_unset_flags_follow_the_others(overrides, mode, sparsity, compose):
    settings = RagSettings.from_mapping(compose(*overrides)["training"])
    assert settings.mode == mode
    assert settings.gumbel_sparsity_loss is sparsity


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_explicit_flag_wins_over_a_preset_wherever_it_stands(order, compose):
    overrides = ["rag=ptrag_paper", "training.rag_inference=expected", "training.topk_rag=5", "training.lr=0.5"][order]
    training = compose(*overrides)["training"]
    assert (training["rag_inference"], training["topk_rag"], training["lr"]) == ("expected", 5, 0.5)
    assert training["rag_score_scale"] == "batch"


def test_a_preset_option_can_be_set_under_its_own_name_too(compose):
    assert compose("rag=ptrag", "rag.topk_rag=4")["training"]["topk_rag"] == 4


def test_the_rag_model_is_states_own_under_another_name(compose):
    assert compose("model=rag")["model"] == compose("model=state")["model"]


def test_the_paper_model_has_the_published_sizes(compose):
    model = compose("model=rag_paper")["model"]
    backbone = model["kwargs"]["transformer_backbone_kwargs"]
    assert model["name"] == "state"
    assert (model["kwargs"]["hidden_dim"], model["kwargs"]["cell_set_len"]) == (128, 64)
    assert model["kwargs"]["batch_encoder"] is True
    assert (backbone["num_hidden_layers"], backbone["num_attention_heads"], backbone["head_dim"]) == (8, 12, 58)
    assert (backbone["intermediate_size"], backbone["bidirectional_attention"]) == (2784, False)
    assert (backbone["hidden_size"], backbone["max_position_embeddings"]) == (128, 64)


def test_the_small_model_and_its_training_are_those_of_the_quick_experiments(compose):
    together, whole = compose("model=rag_small", "training=small"), compose("model=rag")
    sizes, backbone = together["model"]["kwargs"], together["model"]["kwargs"]["transformer_backbone_kwargs"]
    assert together["model"]["name"] == "state"
    assert (sizes["cell_set_len"], sizes["hidden_dim"], backbone["hidden_size"]) == (16, 64, 64)
    assert (backbone["num_hidden_layers"], backbone["num_attention_heads"], backbone["head_dim"]) == (2, 4, 16)
    assert sizes.keys() == whole["model"]["kwargs"].keys()
    assert together["training"].keys() == whole["training"].keys()
    assert (together["training"]["max_steps"], whole["training"]["max_steps"]) == (2000, 400000)


def test_a_preset_of_retrieval_goes_with_the_small_training(compose):
    training = compose("rag=ptrag", "training=small", "training.lr=0.5")["training"]
    assert (training["topk_rag"], training["lr"], training["max_steps"]) == (32, 0.5, 2000)
    assert training["rag_fusion"] == compose("rag=ptrag")["training"]["rag_fusion"]


def test_the_replogle_data_differ_from_upstreams_in_names_and_spaces_only(compose):
    ours, theirs = compose("data=replogle")["data"], compose("data=perturbation")["data"]
    changed = {key for key in theirs["kwargs"] if ours["kwargs"][key] != theirs["kwargs"][key]}
    assert changed <= {"embed_key", "output_space", "pert_col", "cell_type_key", "batch_col", "control_pert"}
    assert ours["kwargs"]["control_pert"] == "non-targeting"
    assert {key: value for key, value in ours.items() if key != "kwargs"} == {
        key: value for key, value in theirs.items() if key != "kwargs"
    }


def test_an_unrelated_hydra_program_keeps_its_search_path():
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    for main in ("pkg://somebody.conf", "file:///srv/somebody/configs"):
        path = ConfigSearchPathImpl()
        path.append(provider="main", path=main)
        StateRagSearchPath().manipulate_search_path(path)
        assert [entry.path for entry in path.get_path()] == [main]


def test_the_configurations_are_found_in_a_checkout_and_in_a_package():
    assert {path.name for path in Path(config_dir()).iterdir()} >= {"training", "rag", "model", "data"}
