import numpy as np
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import design
from state_rag.evidence.choices.design_replay import DESIGNED, METHODS, RANDOM, Replay, medoids, replay
from state_rag.evidence.choices.posterior import Posterior, greedy
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from tests.evidence.pretend_screen import screen

SHORT = Settings(steps=2, episodes=0, calibrating=0)


def fitted(contexts=("a", "b"), measured=(("b", 0), ("b", 1)), modules=(0, 0, 0, 1, 1, 2), more=(), cells=None):
    """Fit an engine on random responses; those of a module have one embedding, at right angles to others.

    `measured` are (context, number of the perturbation). Thirty more with embeddings of their own, F0, ..., keep the
    mean of all short, so that nothing is centred.
    """
    rng = np.random.default_rng(0)
    names = [f"P{number}" for number in range(len(modules))]
    last = max(modules) + 1
    vectors = np.eye(last + 30)[[*modules, *range(last, last + 30)]]
    labels = [(c, names[p]) for c, p in measured] + list(more)
    responses = Responses(
        rng.normal(size=(len(labels), 7)), [c for c, _ in labels], [p for _, p in labels], cells=cells
    )
    return Evidence(SHORT).fit(responses, {"text": ([*names, *(f"F{n}" for n in range(30))], vectors)})


def few(count=6):
    """Return candidates and targets without the thirty."""
    names = [f"P{number}" for number in range(count)]
    return {"candidates": names, "targets": names}


def covariance(engine, weights, context, rows, columns):
    """Return K by a plain loop over conditions (context, perturbation), by number."""
    found = np.zeros((len(rows), len(columns)))
    every = torch.arange(len(engine.bank.perturbations))
    kernels = engine.similarity.stack(every, every, context).double().numpy()
    shared, own = (np.tensordot(part.exp().numpy(), kernels, 1) for part in (weights.shared, weights.own))
    same = float(weights.same.exp())
    for i, (c, p) in enumerate(rows):
        for j, (d, q) in enumerate(columns):
            found[i, j] = shared[p, q] + (c == d) * own[p, q] + (p == q) * same
    return found


def left_over(engine, weights, context, measured, noise, targets):
    """Return the sum of the targets' variances given measured conditions, by one plain solve."""
    among = covariance(engine, weights, context, measured, measured) + np.diag(noise)
    cross = covariance(engine, weights, context, measured, targets)
    prior = np.diag(covariance(engine, weights, context, targets, targets))
    return float(np.sum(prior - np.diag(cross.T @ np.linalg.solve(among, cross))))


def test_one_of_each_cluster_is_chosen_the_largest_cluster_first():
    found = design(fitted(measured=(("b", 6),), modules=(0, 0, 0, 0, 1, 1, 2)), ["c"], 3, exclude=["P6"], **few())
    assert [name for _, name in found.conditions[:2]] == ["P0", "P4"]
    # what each helps are its own cluster's
    assert {name for (_, name), _ in found.helps[0][:4]} == {"P0", "P1", "P2", "P3"}
    assert {name for (_, name), _ in found.helps[1][:2]} == {"P4", "P5"}


def test_what_is_left_equals_a_fit_from_scratch_after_each_choice():
    drawn = screen(contexts=3, perturbations=14)
    hidden = [(0, p) for p in range(4, 14)]
    engine = Evidence(SHORT).fit(drawn.responses(hidden), drawn.embeddings)
    found = design(engine, ["line0"], 6)
    weights, bank = engine.trained["few-shot"].weights, engine.bank
    unit = engine.trained["few-shot"].calibration * bank.scale**2
    number = bank.number_of_context("line0")
    measured = list(zip(bank.context.tolist(), bank.perturbation.tolist(), strict=True))
    noise = weights.noise_of(bank.scarcity).tolist()
    targets = [(number, bank.number_of(f"P{p}")) for p in range(4, 14)]
    assert found.targets == 10
    for place in range(7):
        wanted = left_over(engine, weights, number, measured, noise, targets) * unit
        assert found.remaining[place] == pytest.approx(wanted, rel=1e-4)
        if place < 6:
            measured.append((number, bank.number_of(found.conditions[place][1])))
            noise.append(float(weights.noise_of(torch.ones(1, dtype=torch.float64))))
    # the first choice is the best of all, by a fit from scratch for each
    measured, noise = measured[:-6], noise[:-5]
    alone = {c: left_over(engine, weights, number, [*measured, c], noise, targets) for c in targets}
    assert found.conditions[0][1] == bank.perturbations[min(alone, key=alone.get)[1]]


def test_gains_fall_where_clusters_do_not_overlap():
    found = design(fitted(), ["a"], 6, **few())
    assert (np.diff(found.gain) <= 1e-6).all()
    assert (found.gain > 0).all()
    assert (np.diff(found.explained) > 0).all()
    assert np.allclose(found.remaining[0] - np.cumsum(found.gain), found.remaining[1:])


def test_ties_go_to_the_first_candidate():
    engine = fitted(modules=(0, 0, 0), measured=(("b", 0),))
    for names in (["P2", "P1"], ["P1", "P2"]):
        assert [name for _, name in design(engine, ["c"], 2, candidates=names, targets=names).conditions] == names


def test_excluded_and_measured_conditions_are_not_chosen_and_all_are_taken_where_the_budget_is_larger():
    engine = fitted(measured=(("a", 0), ("b", 0), ("b", 1)))
    found = design(engine, ["a"], 50, exclude=["P1"], **few())
    assert sorted(name for _, name in found.conditions) == ["P2", "P3", "P4", "P5"]
    assert found.exhausted
    assert not design(engine, ["a"], 2).exhausted
    with pytest.raises(StateRagError, match="no candidate is left"):
        design(engine, ["a"], 2, candidates=["P0"])
    with pytest.raises(StateRagError, match="no target is left"):
        design(engine, ["a"], 2, targets=["P0"])


def test_the_gain_for_each_unit_of_cost_decides():
    engine = fitted(measured=(("b", 6),), modules=(0, 0, 0, 0, 1, 1, 2))
    dear = design(engine, ["c"], 1, costs={f"P{p}": 50.0 for p in range(4)}, **few())
    assert dear.conditions[0][1] == "P4"
    assert design(engine, ["c"], 1, costs={"P4": 3.0}, **few()).conditions[0][1] == "P0"
    with pytest.raises(StateRagError, match="the cost of P4 is 0"):
        design(engine, ["c"], 1, costs={"P4": 0.0})


def test_weighted_targets_are_served_first():
    engine = fitted(measured=(("b", 6),), modules=(0, 0, 0, 0, 1, 1, 2))
    found = design(engine, ["c"], 1, importance={"P4": 20.0, "P5": 20.0}, **few())
    assert found.conditions[0][1] in ("P4", "P5")


def test_a_replicate_is_worth_what_more_cells_are_worth():
    measured = (("a", 0), ("b", 0), ("b", 3))
    engine = fitted(measured=measured, cells=[10.0, 10.0, 10.0])
    weights = engine.learned_for("few-shot").weights
    found = design(engine, ["a"], 1, candidates=["P0"], replicates=True)
    assert found.replicate.tolist() == [True]
    rows = list(zip(engine.bank.context.tolist(), engine.bank.perturbation.tolist(), strict=True))
    targets = [(0, p) for p in range(len(engine.bank.perturbations)) if p != engine.bank.number_of("P0")]
    before = weights.noise_of(engine.bank.scarcity).tolist()
    half = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64)
    after = weights.noise_of(half).tolist()
    unit = engine.learned_for("few-shot").calibration * engine.bank.scale**2
    wanted = left_over(engine, weights, 0, rows, before, targets) - left_over(engine, weights, 0, rows, after, targets)
    assert found.gain[0] == pytest.approx(wanted * unit, rel=1e-3)


def test_several_contexts_are_chosen_from_together():
    engine = fitted(contexts=("a", "b"), measured=(("a", 0), ("a", 1), ("b", 0)))
    found = design(engine, ["a", "new"], 30, **few())
    assert {context for context, _ in found.conditions} == {"a", "new"}
    # four are left in one, all six in the other
    assert len(found.conditions) == 10
    assert found.targets == 10
    assert found.exhausted


def test_what_nothing_is_known_of_is_left_out_and_named():
    engine = fitted(more=[("b", "Q1"), ("a", "Q2")])
    found = design(engine, ["a"], 20, candidates=["P2", "Q1", "unheard of"])
    assert sorted(name for _, name in found.conditions) == ["P2", "Q1"]
    assert "unheard of" in found.unknown
    # a response in the context alone is nothing that the similarity seen from it knows
    assert "Q2" in design(engine, ["a"], 20).unknown
    with pytest.raises(StateRagError, match="no candidate is left"):
        design(engine, ["a"], 2, candidates=["unheard of"])


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(StateRagError, match="nothing was fitted"):
        design(Evidence(), ["a"], 1)
    with pytest.raises(StateRagError, match="a budget of 0"):
        design(fitted(), ["a"], 0)
    with pytest.raises(StateRagError, match=r"a budget of 1.5 conditions; give a whole number"):
        design(fitted(), ["a"], 1.5)
    with pytest.raises(StateRagError, match="no context"):
        design(fitted(), [], 1)


def test_a_sample_of_the_targets_stands_for_all(monkeypatch):
    engine = fitted()
    monkeypatch.setattr("state_rag.evidence.choices.design.MOST_TARGETS", 3)
    found = design(engine, ["a"], 2, seed=1, **few())
    assert found.targets == 6
    assert found.conditions == design(engine, ["a"], 2, seed=1, **few()).conditions
    monkeypatch.undo()
    assert found.remaining[0] == pytest.approx(design(engine, ["a"], 2, **few()).remaining[0], rel=0.5)


def test_outcomes_in_the_context_do_not_change_a_design():
    drawn = screen(contexts=3, perturbations=12)
    hidden = [(0, p) for p in range(4, 12)]
    other = screen(contexts=3, perturbations=12)
    other.effects[0] = np.random.default_rng(5).normal(size=other.effects[0].shape)
    engines = [Evidence(SHORT).fit(one.responses(hidden), one.embeddings) for one in (drawn, other)]
    engines[1].trained = engines[0].trained
    first, second = (design(engine, ["line0"], 5).conditions for engine in engines)
    assert first == second


def test_without_supports_the_prior_is_what_is_left():
    engine = fitted()
    weights = KernelWeights(len(engine.similarity.kernels)).requires_grad_(False)
    none = torch.zeros(0, dtype=torch.long)
    model = Posterior(engine.bank, engine.similarity, weights, 0, none, [0, 1], [(0, 2), (0, 3)])
    assert model.first == pytest.approx(2 * float(weights.prior_variance()))
    assert len(greedy([model], torch.ones(2, dtype=torch.float64), 5)[0]) == 2


def test_medoids_are_one_of_each_cluster():
    place = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    chosen = medoids(np.abs(place[:, None] - place[None]), 3)
    assert sorted(np.searchsorted([4, 8], place[chosen])) == [0, 1, 2]
    assert len(medoids(np.zeros((2, 2)), 9)) == 2


def test_a_replay_scores_each_way_to_choose_on_the_same_halves():
    drawn = screen(contexts=3, perturbations=24, modules=4)
    engine = Evidence(SHORT).fit(drawn.responses(), drawn.embeddings)
    steps = []
    found = replay(
        engine.bank,
        engine.similarity,
        engine.trained["few-shot"],
        0,
        budgets=(2, 4, 12, 90),
        splits=4,
        progress=lambda *told: steps.append(told),
    )
    assert found.budgets == (2, 4, 12)
    assert set(found.scores) == set(METHODS)
    assert steps[-1] == (4, 4)
    # all that there is to choose from: every way chooses the same
    for method in METHODS:
        assert np.allclose(found.scores[method][:, 2], found.scores[DESIGNED][:, 2])
    assert found.scores[DESIGNED][:, 0].mean() > 0
    wanted = found.expected(np.array([found.variance[RANDOM].min(), found.variance[RANDOM].max(), 99.0]))
    assert wanted[0] >= wanted[1]
    assert np.isnan(wanted[2])
    assert (found.interval(RANDOM)[0] <= found.interval(RANDOM)[1]).all()
    with pytest.raises(StateRagError, match="unknown way"):
        replay(engine.bank, engine.similarity, engine.trained["few-shot"], 0, methods=["guess"])


def test_a_paired_test_tells_a_gain_from_none():
    ours = np.array([[0.5, 0.3], [0.6, 0.4], [0.7, 0.5]])
    found = Replay("a", (5, 10), {DESIGNED: ours, RANDOM: ours - [[0.10, 0], [0.11, 0], [0.12, 0]]}, ours)
    assert found.gain() == pytest.approx([0.11, 0])
    assert found.p_value()[0] < 0.01
    assert found.p_value()[1] == 1


def test_a_context_with_too_few_conditions_is_not_replayed():
    engine = fitted()
    with pytest.raises(StateRagError, match="can be replayed with 8 or more"):
        replay(engine.bank, engine.similarity, engine.learned_for("few-shot"), 0)
