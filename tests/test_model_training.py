"""Our model trains in every mode, together with every option of STATE's."""

import pytest
import torch

from tests import tiny_model as tiny

EMBEDDED = {"embed_key": "X_state", "input_dim": 12, "output_dim": 12}
DECODER = {"gene_decoder_bool": True, "decoder_cfg": {"latent_dim": 12, "gene_dim": 24, "hidden_dims": [16, 16]}}
NARROW = {"input_dim": 12, "output_dim": 12}
BATCH_TOKEN = {"use_batch_token": True, "batch_dim": tiny.BATCHES, "basal_mapping_strategy": "batch"}

OPTIONS = {
    "nothing else": ({}, {}),
    "batch encoder": ({"batch_encoder": True, "batch_dim": tiny.BATCHES}, {}),
    "batch token": (BATCH_TOKEN, {}),
    "confidence token": ({"confidence_token": True}, {}),
    "both tokens": ({**BATCH_TOKEN, "confidence_token": True}, {}),
    "LoRA": ({"lora": {"enable": True, "r": 2, "alpha": 4}}, {}),
    "LoRA on a frozen backbone": ({"lora": {"enable": True, "r": 2}, "freeze_pert_backbone": True}, {}),
    "gene decoder": ({**EMBEDDED, **DECODER}, {**NARROW, "counts": 24}),
    "all genes": ({"output_space": "all", "embed_key": None}, {}),
    "all genes from X_hvg": ({"output_space": "all"}, {}),
    "embedding space": ({"output_space": "embedding", **EMBEDDED}, NARROW),
    "no embed_key": ({"embed_key": None}, {}),
    "deep encoders with dropout": ({"n_encoder_layers": 2, "dropout": 0.2}, {}),
    "no residual": ({"predict_residual": False}, {}),
    "masked attention": ({"mask_attn": True}, {}),
    "regularisation": ({"regularization": 0.1}, {}),
    "combined loss": ({"loss": "se"}, {}),
    "linear cell encoder": ({"use_basal_projection": False}, {}),
    "causal attention": ({"transformer_backbone_kwargs": {**tiny.LLAMA, "bidirectional_attention": False}}, {}),
}


def unhealthy(model):
    """Names of trainable parameters without a finite gradient."""
    wanted = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    return [name for name, value in wanted if value.grad is None or not value.grad.isfinite().all()]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("mode", tiny.MODES)
def test_every_mode_trains_validates_and_predicts_with_every_option_of_state(mode, option):
    changes, shape = OPTIONS[option]
    model, batch = tiny.build(mode, **changes), tiny.batch(**shape)
    tiny.logged(model)
    loss = model.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    assert not unhealthy(model)
    model.eval()
    with torch.no_grad():
        assert model.validation_step(batch, 0)["loss"].isfinite()
        output = model.predict_step(batch, 0)
    assert output["preds"].shape == batch["pert_cell_emb"].shape
    assert output["preds"].isfinite().all()


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_gpt2_backbone_works_wherever_states_own_class_has_one(mode):
    option = {"transformer_backbone_key": "GPT2", "transformer_backbone_kwargs": tiny.GPT2}
    try:
        tiny.upstream(**option)
    except AttributeError as theirs:  # transformers 5 took away what STATE's GPT-2 builds on
        with pytest.raises(AttributeError, match=str(theirs)):
            tiny.build(mode, **option)
        return
    model = tiny.build(mode, **option)
    tiny.logged(model)
    model.training_step(tiny.batch(), 0).backward()
    assert not unhealthy(model)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_the_cells_are_encoded_exactly_once_in_a_pass(mode):
    model = tiny.build(mode, n_encoder_layers=2, dropout=0.5)
    tiny.logged(model)
    calls = []
    model.basal_encoder.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    model.training_step(tiny.batch(), 0)
    assert calls == [(3, tiny.CELLS, tiny.HIDDEN)]


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_encoders_are_states_own_again_after_a_pass(mode):
    model, cells = tiny.build(mode), torch.rand(2, 4, tiny.GENES)
    model(tiny.batch())
    assert torch.equal(model.encode_basal_expression(cells), model.basal_encoder(cells))
    per_cell = torch.rand(2, 4, tiny.WIDTH)
    assert torch.equal(model.encode_perturbation(per_cell), model.pert_encoder(per_cell))


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_a_pass_that_fails_leaves_no_cells_behind_for_the_next(mode):
    model, batch = tiny.build(mode).eval(), tiny.batch()
    expected = model(batch)
    hook = model.transformer_backbone.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(tiny.batch(seed=1))
    hook.remove()
    cells = torch.rand(1, 2, tiny.GENES)
    assert torch.equal(model.encode_basal_expression(cells), model.basal_encoder(cells))
    assert torch.equal(model(batch), expected)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_training_under_bf16_autocast_gives_finite_gradients_and_a_loss_near_float32s(mode):
    batch, losses = tiny.batch(), []
    for enabled in (False, True):
        model = tiny.build(mode, batch_encoder=True, batch_dim=tiny.BATCHES)
        seen = tiny.logged(model)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model.training_step(batch, 0).backward()
        assert not unhealthy(model)
        losses.append(float(seen["train_loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_under_bf16_autocast_the_context_reaches_the_transformer_with_float32_precision(mode):
    model, seen = tiny.build(mode).eval(), {}
    model.retriever.register_forward_hook(lambda module, inputs, output: seen.update(output=output))
    tiny.watch_transformer_input(model, seen)
    with torch.autocast("cpu", torch.bfloat16):
        model(tiny.batch(["GENE0", "GENE3"]))
    context = seen["output"].context.float()
    assert seen["input"].dtype == torch.float32
    torch.testing.assert_close(seen["input"], context, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_few_steps_on_one_batch_lower_its_loss(mode):
    model, batch = tiny.build(mode), tiny.batch()
    seen, losses = tiny.logged(model), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(30):
        optimizer.zero_grad()
        model.training_step(batch, step).backward()
        optimizer.step()
        losses.append(float(seen["train_loss"]))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_loaders_perturbation_features_are_not_looked_at():
    model, batch = tiny.build().eval(), tiny.batch()
    without = {key: value for key, value in batch.items() if key != "pert_emb"}
    assert torch.equal(model(batch), model({**without, "pert_emb": torch.full((18, 3), torch.nan)}))
    assert torch.equal(model(batch), model(without))


def test_with_embeddings_alone_the_model_equals_state_fed_with_those_embeddings():
    ours, theirs = tiny.build("genept", n_encoder_layers=2), tiny.upstream(n_encoder_layers=2)
    theirs.load_state_dict({key: value for key, value in ours.state_dict().items() if key != "state_rag_format"})
    batch = tiny.batch()
    rows = ours.knowledge.rows(ours.knowledge.index_of(batch["pert_name"]))
    torch.testing.assert_close(ours.eval()(batch), theirs.eval()({**batch, "pert_emb": rows}), rtol=1e-5, atol=1e-6)
