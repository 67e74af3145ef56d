import pytest
import torch

from state_rag.upstream.authors import AUTHORS_TO_OURS, our_name, our_state
from tests import tiny_model as tiny

PUBLISHED = {
    "context_input_norm.weight": "selector.norm.weight",
    "context_input_norm.bias": "selector.norm.bias",
    "cell_pert_scorer.0.weight": "selector.scorer_in.weight",
    "cell_pert_scorer.0.bias": "selector.scorer_in.bias",
    "cell_pert_scorer.3.weight": "selector.scorer_out.weight",
    "cell_pert_scorer.3.bias": "selector.scorer_out.bias",
    "final_project_genept_emb.0.weight": "selector.project.weight",
    "final_project_genept_emb.0.bias": "selector.project.bias",
    "project_genept_emb.0.weight": "attention.project.weight",
    "query_enc.0.weight": "attention.query.weight",
    "key_enc.0.bias": "attention.key.bias",
    "value_enc.0.weight": "attention.value.weight",
}


@pytest.mark.parametrize("theirs", PUBLISHED)
def test_a_published_name_has_one_of_ours(theirs):
    assert our_name(theirs) == PUBLISHED[theirs]


@pytest.mark.parametrize(
    "name", ["project_out.0.weight", "pert_encoder.0.bias", "transformer_backbone.norm.weight", "logit_scale", ""]
)
def test_states_own_names_stay_as_they_are(name):
    assert our_name(name) == name


def test_a_state_dict_keeps_its_tensors_and_their_order():
    state = {name: torch.full((), float(number)) for number, name in enumerate([*PUBLISHED, "project_out.0.bias"])}
    ours = our_state(state)
    assert list(ours) == [*PUBLISHED.values(), "project_out.0.bias"]
    assert all(mine is theirs for mine, theirs in zip(ours.values(), state.values(), strict=True))


@pytest.mark.parametrize(("mode", "room"), [("differentiable", "selector"), ("vanilla", "attention")])
def test_every_parameter_of_ours_has_a_published_name(mode, room):
    parameters = {name for name, _ in tiny.build(mode).named_parameters() if name.startswith(f"{room}.")}
    modules = {name.rpartition(".")[0] for name in parameters}
    assert modules == {ours for ours in AUTHORS_TO_OURS.values() if ours.startswith(f"{room}.")}
