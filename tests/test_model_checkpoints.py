"""Checkpoints: self-contained, resumable, readable without trust, and refused where retrieval would be lost."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from state.tx.models.state_transition import StateTransitionPerturbationModel
from torch import nn
from torch.utils.data import DataLoader

from state_rag.checkpoint import CHECKPOINT_KEY, FORMAT, read_knowledge
from state_rag.errors import StateRagError
from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge
from tests import tiny_model as tiny


class SeedEachStep(Callback):
    """Makes a step's randomness a function of its number, so that a resumed run can equal a whole one."""

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        torch.manual_seed(trainer.global_step)


def fit(model, steps, resume=None):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SeedEachStep()],
    )
    trainer.fit(model, DataLoader([tiny.batch()], batch_size=None), ckpt_path=resume, weights_only=True)
    return trainer


@pytest.fixture(params=tiny.MODES)
def trained(request, tmp_path):
    """A trained model and its checkpoint."""
    model = tiny.build(request.param)
    fit(model, 3).save_checkpoint(tmp_path / "run.ckpt")
    return model.eval(), tmp_path / "run.ckpt"


def parts(value):
    """Everything inside nested containers."""
    if isinstance(value, dict):
        yield from (part for item in value.items() for part in parts(item))
    elif isinstance(value, list | tuple):
        yield from (part for item in value for part in parts(item))
    else:
        yield value


@pytest.mark.parametrize("mode", tiny.MODES)
def test_knowledge_is_neither_in_the_state_dict_nor_among_the_hyperparameters(mode):
    model = tiny.build(mode)
    assert not [name for name in model.state_dict() if name.split(".")[0] in ("knowledge", "neighbours")]
    assert not [part for part in parts(dict(model.hparams)) if isinstance(part, torch.Tensor | Knowledge)]
    assert model.hparams["pert_dim"] == tiny.WIDTH


def test_a_checkpoint_is_readable_without_trust_and_holds_names_rows_and_flags(trained):
    model, path = trained
    saved = torch.load(path, weights_only=True)[CHECKPOINT_KEY]
    assert saved["format"] == FORMAT
    assert saved["settings"] == model.settings.to_dict()
    assert saved["knowledge"]["names"] == tiny.names()
    assert torch.equal(saved["knowledge"]["blocks"]["text"], tiny.knowledge().block("text"))


def test_numpy_numbers_among_the_arguments_do_not_make_the_checkpoint_a_pickle(tmp_path):
    given = {
        "gene_dim": np.int64(tiny.GENES),
        "input_dim": np.int64(tiny.GENES),
        "gene_names": [np.str_("A"), "B"],
        "decoder_cfg": {"k": np.int64(3)},
    }
    fit(tiny.build("genept", **given), 1).save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["gene_dim"] == tiny.GENES
    assert saved["gene_names"] == ["A", "B"]
    assert saved["decoder_cfg"]["k"] == 3


def test_a_checkpoint_needs_nothing_else_to_predict_as_before(trained):
    model, path = trained
    loaded = RagStateTransition.load_from_checkpoint(path, weights_only=True).eval()
    assert loaded.knowledge.names == model.knowledge.names
    assert loaded.settings == model.settings
    batch = tiny.batch([*tiny.names(), tiny.CONTROL])
    assert torch.equal(loaded(batch), model(batch))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_loading_works_as_state_predict_does_it_with_the_loaders_one_hot_width(trained):
    model, path = trained
    bound = RagStateTransition.bound_to(read_knowledge(torch.load(path, weights_only=True)))
    loaded = bound.load_from_checkpoint(path, weights_only=True, **{**tiny.arguments(), "pert_dim": 999}).eval()
    assert torch.equal(loaded(tiny.batch()), model(tiny.batch()))


def test_a_checkpoint_saved_by_a_loaded_model_is_the_same(trained, tmp_path):
    _, path = trained
    trainer = fit(RagStateTransition.load_from_checkpoint(path, weights_only=True), 0)
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    first, again = (torch.load(file, weights_only=True) for file in (path, tmp_path / "again.ckpt"))
    assert again[CHECKPOINT_KEY]["settings"] == first[CHECKPOINT_KEY]["settings"]
    assert again["hyper_parameters"].keys() == first["hyper_parameters"].keys()
    assert torch.equal(*(file[CHECKPOINT_KEY]["knowledge"]["blocks"]["text"] for file in (first, again)))


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_resumed_run_ends_exactly_where_an_uninterrupted_one_does(mode, tmp_path):
    fit(tiny.build(mode), 2).save_checkpoint(tmp_path / "last.ckpt")
    whole = tiny.build(mode)
    expected = fit(whole, 5)
    other = tiny.knowledge(seed=9)
    resumed = tiny.build(mode, other, seed=1)
    trainer = fit(resumed, 5, resume=tmp_path / "last.ckpt")
    assert trainer.global_step == 5
    assert torch.equal(resumed.knowledge.block("text"), whole.knowledge.block("text"))
    if mode in ("vanilla", "differentiable"):
        assert torch.equal(resumed.retriever.neighbours.index, whole.retriever.neighbours.index)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    moments = (
        [moment for state in run.optimizers[0].state.values() for moment in state.values()]
        for run in (expected, trainer)
    )
    assert all(torch.equal(one, other) for one, other in zip(*moments, strict=True))


def test_the_running_statistics_are_part_of_a_checkpoint(tmp_path):
    model = tiny.build()
    fit(model, 3).save_checkpoint(tmp_path / "run.ckpt")
    loaded = RagStateTransition.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert int(loaded.selector.score_batches) == 3
    assert float(loaded.selector.score_std) != 1
    assert torch.equal(loaded.selector.score_std, model.selector.score_std)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_weights_from_another_run_leave_the_current_runs_knowledge_alone(mode):
    """STATE's `init_from` copies every entry of the state dict whose shape is equal."""
    theirs = tiny.build(mode, tiny.knowledge(seed=1, prefix="OTHER"), seed=5)
    ours, batch = tiny.build(mode), tiny.batch()
    own = ours.state_dict()
    copied = {name: value for name, value in theirs.state_dict().items() if value.shape == own[name].shape}
    ours.load_state_dict(copied, strict=False)
    assert copied.keys() == own.keys()
    assert ours.knowledge.names == tuple(tiny.names())
    assert torch.equal(ours.knowledge.block("text"), tiny.knowledge().block("text"))
    expected = tiny.build(mode, tiny.knowledge(), seed=7)
    expected.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.eval()(batch), expected.eval()(batch))


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_perturbation_encoder_that_is_built_anew_is_the_one_in_use(mode):
    """With `init_from` and `X_hvg` STATE replaces `pert_encoder` after the model was built."""
    model, batch = tiny.build(mode).eval(), tiny.batch()
    before = model(batch)
    model.pert_encoder = nn.Sequential(nn.Linear(model.pert_dim, tiny.HIDDEN))
    assert not torch.equal(model(batch), before)


def test_bound_knowledge_that_extends_the_saved_one_survives_loading(trained):
    model, path = trained
    more = tiny.knowledge().with_queries(["NEW"], {"text": torch.randn(1, tiny.WIDTH)})
    loaded = RagStateTransition.bound_to(more).load_from_checkpoint(path, weights_only=True).eval()
    assert loaded.knowledge.names[-1] == "NEW"
    assert torch.equal(loaded(tiny.batch()), model(tiny.batch()))
    assert loaded(tiny.batch(["NEW"])).isfinite().all()


CHANGED = {
    "other rows": tiny.knowledge(seed=4),
    "other names": tiny.knowledge(prefix="OTHER"),
    "fewer names": tiny.knowledge(7),
    "a larger base": Knowledge(
        [*tiny.names(), "X"], {"text": torch.cat([tiny.knowledge().block("text"), torch.ones(1, 10)])}
    ),
}


@pytest.mark.parametrize("difference", CHANGED)
def test_bound_knowledge_that_does_not_extend_the_saved_one_is_replaced_by_it(trained, difference):
    model, path = trained
    loaded = RagStateTransition.bound_to(CHANGED[difference]).load_from_checkpoint(path, weights_only=True).eval()
    assert loaded.knowledge.names == tuple(tiny.names())
    assert torch.equal(loaded(tiny.batch()), model(tiny.batch()))


def test_a_checkpoint_without_embeddings_is_refused_with_the_way_to_import_it(trained, tmp_path):
    _, path = trained
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[CHECKPOINT_KEY]
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(StateRagError, match="state-rag import-checkpoint"):
        RagStateTransition.load_from_checkpoint(tmp_path / "foreign.ckpt", weights_only=True)


def test_a_checkpoint_of_a_later_format_is_refused(trained):
    _, path = trained
    checkpoint = copy.deepcopy(torch.load(path, weights_only=True))
    checkpoint[CHECKPOINT_KEY]["format"] = FORMAT + 1
    with pytest.raises(StateRagError, match=f"format {FORMAT + 1}, this version of state-rag reads {FORMAT}"):
        read_knowledge(checkpoint)


def test_embeddings_of_another_width_are_refused_when_a_checkpoint_is_loaded(trained):
    _, path = trained
    bound = RagStateTransition.bound_to(tiny.knowledge(width=7))
    with pytest.raises(StateRagError, match="10 wide, but this model was built for 7"):
        bound.load_from_checkpoint(path, weights_only=True)


def test_states_own_class_refuses_our_checkpoints(trained):
    _, path = trained
    with pytest.raises(RuntimeError, match="state_rag_format"):
        StateTransitionPerturbationModel.load_from_checkpoint(path, weights_only=True)


def test_a_gene_decoder_comes_back_with_its_weights(tmp_path):
    changes = {"embed_key": "X_state", "gene_decoder_bool": True, "output_dim": 12, "input_dim": 12}
    decoder = {"latent_dim": 12, "gene_dim": 24, "hidden_dims": [16, 16]}
    model, batch = tiny.build(decoder_cfg=decoder, **changes), tiny.batch(input_dim=12, output_dim=12, counts=24)
    fit(model, 0).save_checkpoint(tmp_path / "run.ckpt")
    loaded = RagStateTransition.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    counts = [each.eval().predict_step(batch, 0)["pert_cell_counts_preds"] for each in (model, loaded)]
    assert torch.equal(*counts)
