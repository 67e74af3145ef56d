from dataclasses import replace

import numpy as np
import torch

from state_rag.evidence import training
from state_rag.evidence.bank import Bank
from state_rag.evidence.fusion import Example
from state_rag.evidence.gene_features import ESTIMATES, GeneFeatures
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.training import KRIGING, _judges, train
from tests.evidence.pretend_screen import QUICK, screen


def problem():
    drawn = screen()
    bank = Bank(drawn.responses())
    return bank, Similarity(bank, [Source.of(k, *table, bank.perturbations) for k, table in drawn.embeddings.items()])


def test_fusion_is_kept_only_where_the_judges_say_that_it_wins(monkeypatch):
    for wins in (True, False):
        scores = {"fusion": 0.9 if wins else 0.1, **dict.fromkeys(ESTIMATES, 0.5)}
        monkeypatch.setattr(training, "judge", lambda *_, scores=scores: scores)
        found = train(*problem(), "few-shot", QUICK)
        assert (found.fusion is not None) is wins
        assert found.estimate == KRIGING


def test_a_naive_estimate_is_used_where_it_is_best(monkeypatch):
    scores = {"fusion": 0.1, **dict.fromkeys(ESTIMATES, 0.5), "ridge": 0.6}
    monkeypatch.setattr(training, "judge", lambda *_: scores)
    assert train(*problem(), "few-shot", QUICK).estimate == "ridge"


def test_episodes_improve_the_weights():
    bank, similarity = problem()
    trained = train(bank, similarity, "unseen", replace(QUICK, steps=60, episodes=8, judging=8, fusion_steps=0))
    untrained = train(bank, similarity, "unseen", replace(QUICK, steps=0, episodes=8, judging=8, fusion_steps=0))
    assert trained.scores[KRIGING] > untrained.scores[KRIGING]


def test_what_a_use_learns_does_not_hang_on_which_others_were_trained():
    first = train(*problem(), "unseen", QUICK)
    train(*problem(), "few-shot", QUICK)
    again = train(*problem(), "unseen", QUICK)
    assert torch.equal(first.weights.shared, again.weights.shared)


def test_no_episodes_make_no_fusion():
    found = train(*problem(), "few-shot", replace(QUICK, episodes=0))
    assert found.fusion is None
    assert found.scores == {}


def test_variance_is_calibrated_to_errors():
    bank, similarity = problem()
    found = train(bank, similarity, "few-shot", replace(QUICK, steps=30, episodes=20, judging=10))
    assert np.isfinite(found.calibration)
    assert found.calibration > 0


def test_fusion_for_new_contexts_is_judged_by_contexts_that_it_never_saw():
    empty = GeneFeatures(torch.zeros(0), torch.zeros(0))
    examples = [Example(empty, torch.zeros(0), context) for context in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    judges, others = _judges(examples, "zero-shot", 4)
    assert {example.context for example in judges} == {0, 4}
    assert {example.context for example in others} == {1, 2, 3}
    assert len(_judges(examples, "few-shot", 4)[0]) == 4
