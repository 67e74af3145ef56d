"""Lean layers predict what the layers predict that they are made of."""

import copy

import pytest
import torch
from state.tx.models.utils import get_transformer_backbone
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from state_rag.upstream.sets.lean_layers import lean

SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 10,
    "max_position_embeddings": 16,
    "use_cache": False,
}


def backbone(**kwargs):
    torch.manual_seed(0)
    found, _ = get_transformer_backbone("llama", {**SIZES, **kwargs})
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_lean_backbone_predicts_the_same(bidirectional):
    plain = backbone(bidirectional_attention=bidirectional)
    fewer = lean(plain)
    cells = torch.randn(5, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            fewer(inputs_embeds=cells).last_hidden_state,
            plain(inputs_embeds=cells).last_hidden_state,
            atol=1e-5,
            rtol=1e-5,
        )
    kinds = {type(layer.self_attn) for layer in plain.layers}
    assert not any(type(layer.self_attn) in kinds for layer in fewer.layers)


def test_the_backbone_itself_is_left_as_it_is():
    plain = backbone()
    before = copy.deepcopy(plain.state_dict()), [type(part) for part in plain.modules()]
    lean(plain)(inputs_embeds=torch.randn(1, 16, 24))
    assert [type(part) for part in plain.modules()] == before[1]
    assert all(torch.equal(value, before[0][name]) for name, value in plain.state_dict().items())


def test_it_takes_fewer_operations():
    plain = backbone()
    cells = torch.randn(1, 16, 24)

    def count(model):
        with torch.no_grad(), torch.profiler.profile() as seen:
            model(inputs_embeds=cells)
        leaves = ("aten::mm", "aten::mul", "aten::cat", "aten::neg", "aten::add", "aten::silu")
        return sum(event.count for event in seen.key_averages() if event.key in leaves)

    assert count(lean(plain)) < 0.75 * count(plain)


@pytest.mark.parametrize(
    "how", [{"num_key_value_heads": 2}, {"attention_bias": True}, {"hidden_act": "gelu"}, {"eager": True}]
)
def test_other_layers_stay_what_they_are_where_they_must(how):
    torch.manual_seed(0)
    eager = how.pop("eager", False)
    config = LlamaConfig(**{**SIZES, "vocab_size": 2, **how})
    config._attn_implementation = "eager" if eager else "sdpa"
    plain = LlamaModel(config).eval()
    cells = torch.randn(2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            lean(plain)(inputs_embeds=cells).last_hidden_state, plain(inputs_embeds=cells).last_hidden_state
        )


def test_adapters_keep_their_part():
    plain = backbone()
    layer = plain.layers[1].self_attn

    class Adapted(torch.nn.Module):
        def forward(self, values):
            return torch.zeros(*values.shape[:-1], 40)

    layer.q_proj = Adapted()
    cells = torch.randn(2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            lean(plain)(inputs_embeds=cells).last_hidden_state, plain(inputs_embeds=cells).last_hidden_state
        )


def test_a_backbone_of_another_kind_is_returned_as_it_is():
    found = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16))
    assert lean(found) is found
