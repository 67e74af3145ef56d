"""What processes that train one model tell each other before they start."""

from types import SimpleNamespace

import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.together import digest
from tests import tiny_model as tiny


class Strategy:
    """The broadcast of a strategy, in which this process hears what the first one says."""

    def __init__(self, heard=None):
        self.heard, self.said = heard, None

    def broadcast(self, own):
        self.said = own
        return own if self.heard is None else self.heard


def in_process(model, rank, strategy):
    trainer = SimpleNamespace(world_size=2, is_global_zero=rank == 0, strategy=strategy, global_rank=rank)
    model._trainer = trainer
    type(model).trainer = property(lambda self: self._trainer)
    return model


@pytest.fixture
def models():
    return tiny.build(), tiny.build()


def test_all_processes_know_the_same_embeddings(models):
    first, second = models
    said = Strategy()
    in_process(first, 0, said).setup("fit")
    in_process(second, 1, Strategy(said.said)).setup("fit")


def test_a_process_with_other_embeddings_is_refused(models):
    said = Strategy()
    in_process(models[0], 0, said).setup("fit")
    other = tiny.build(base=tiny.knowledge(seed=1))
    with pytest.raises(StateRagError, match="Process 1 of this training read other embeddings"):
        in_process(other, 1, Strategy(said.said)).setup("fit")


def test_the_evidence_is_that_of_the_first_process(models, monkeypatch):
    first, second = (tiny.build("genept", rag_evidence="predict") for _ in range(2))
    first.anchor = SimpleNamespace(to_state=lambda: {"engine": "fitted"})
    said, given = Strategy(), []
    in_process(first, 0, said).setup("fit")
    monkeypatch.setattr(type(second), "_set_anchor", lambda self, state: given.append(state))
    in_process(second, 1, Strategy(said.said)).setup("fit")
    assert given == [{"engine": "fitted"}]


def test_nothing_is_said_where_one_process_trains_or_nothing_is_trained(models):
    silent = Strategy()
    model = in_process(models[0], 0, silent)
    model.setup("test")
    model.trainer.world_size = 1
    model.setup("fit")
    assert silent.said is None


def test_each_process_draws_numbers_of_its_own(models):
    drawn = []
    for rank, model in enumerate(models):
        torch.manual_seed(7)
        in_process(model, rank, Strategy()).on_train_start()
        drawn.append(torch.rand(()))
    torch.manual_seed(7)
    assert drawn[0] == torch.rand(())
    assert drawn[1] != drawn[0]


def test_names_and_numbers_are_in_the_digest():
    same, other = digest(tiny.knowledge()), digest(tiny.knowledge(seed=1))
    assert same == digest(tiny.knowledge())
    assert len({same, other, digest(tiny.knowledge(prefix="P")), digest(None)}) == 4
