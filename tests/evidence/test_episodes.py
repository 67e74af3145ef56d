import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import USES, Episodes, use_of
from tests.evidence.pretend_screen import screen


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(USES), st.integers(0, 10**6), st.integers(6, 40), st.data())
def test_what_is_asked_is_hidden_as_the_use_says(use, seed, max_supports, data):
    every = [(c, p) for c in range(3) for p in range(12)]
    hidden = data.draw(st.lists(st.sampled_from(every), max_size=15))
    bank = Bank(screen().responses(hidden))
    episodes = Episodes(bank, use, max_supports=max_supports, max_queries=5)
    if not episodes.contexts:
        return
    scene, truth = episodes.draw(np.random.default_rng(seed))
    supports = set(scene.supports.tolist())
    assert 0 < len(truth) <= 5
    assert 0 < len(supports) <= max_supports
    assert not supports & set(truth.tolist())
    assert torch.equal(bank.perturbation[truth], scene.queries)
    assert (bank.context[truth] == scene.context).all()
    contexts = set(bank.context[scene.supports].tolist())
    asked = torch.isin(bank.perturbation[scene.supports], scene.queries)
    if use in ("zero-shot", "both"):
        assert scene.context not in contexts
    if use in ("unseen", "both"):
        assert not asked.any()
        assert scene.hidden[scene.queries].all()
        assert not scene.hidden[bank.perturbation[scene.supports]].any()
    else:
        assert scene.hidden is None
        measured = (bank.row[:, scene.queries] >= 0).sum(0)
        assert (measured > 1).all()


def test_the_same_seed_draws_the_same_episodes():
    episodes = Episodes(Bank(screen().responses()), "few-shot")
    first, again = (episodes.draw(np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first[0].supports, again[0].supports)
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize(("use", "possible"), [*zip(USES, (False, False, True, False), strict=True)])
def test_one_context_allows_only_unseen_perturbations(use, possible):
    assert bool(Episodes(Bank(screen(contexts=1).responses()), use).contexts) is possible


def test_one_support_allows_no_episode():
    bank = Bank(screen(contexts=1, perturbations=1).responses())
    assert not any(Episodes(bank, use).contexts for use in USES)


def test_conditions_asked_about_are_kept_among_few_supports():
    bank = Bank(screen(contexts=4, perturbations=30).responses())
    scene, _ = Episodes(bank, "few-shot", max_supports=40, max_queries=3).draw(np.random.default_rng(0))
    assert torch.isin(bank.perturbation[scene.supports], scene.queries).sum() == 3 * len(scene.queries)


def test_uses_are_told_by_what_was_measured():
    assert [use_of(True, True), use_of(False, True), use_of(True, False), use_of(False, False)] == list(USES)
