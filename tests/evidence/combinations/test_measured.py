import numpy as np
import pytest
import torch

from state_rag.evidence.combinations.covariances import Rule
from state_rag.evidence.combinations.measured import Combinations
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import covariance
from state_rag.evidence.responses import Responses
from tests.evidence.combinations.pretend_pairs import made
from tests.evidence.pretend_screen import QUICK, screen


def test_a_measured_combination_is_predicted_without_itself():
    drawn, responses = made()
    engine = Evidence(QUICK).fit(responses, drawn.embeddings)
    changed = Evidence.from_state(engine.to_state())
    row = changed.combined.perturbations.index("P0+P1")
    changed.combined.effects[row] = 40.0
    members = changed.combining.measured.members
    changed.combining.measured = Combinations(changed.combined, members, changed.bank)
    before, after = (one.predict("line0", ["P0+P1", "P0+P4"]).mean for one in (engine, changed))
    assert np.array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


def test_left_out_predictions_are_those_of_solutions_without_the_combination(engine):
    measured = engine.combining.measured
    weights = engine.learned_for("few-shot").weights
    rule = Rule(0.7, 0.3)
    (found, error, truth), _ = measured.left_out(engine.similarity, weights, [Rule(), rule])[rule]
    torch.testing.assert_close(truth, measured.effects)
    noise = float(weights.noise_of(torch.ones(1, dtype=torch.float64)))
    for row, (context, name) in enumerate(measured.conditions):
        members = measured.members[name]
        one = measured.answer(engine.similarity, weights, rule, context, [members], without=frozenset([members]))
        torch.testing.assert_close(found[row], one.mean[0], atol=1e-5, rtol=0)
        assert float(error[row]) == pytest.approx(float(one.variance[0]) + noise, rel=1e-4)


def test_members_measured_alone_are_left_out_as_in_solutions_without_them_but_for_the_mean(engine):
    measured = engine.combining.measured
    weights = engine.learned_for("few-shot").weights
    rule = Rule(0.7, 0.3)
    _, (found, error, truth) = measured.left_out(engine.similarity, weights, [rule])[rule]
    alone = [name for name in engine.bank.perturbations if ("line0", name) in engine.responses.conditions]
    alone = [name for name in alone if any(name in members for members in measured.members.values())]
    assert len(found) == len(alone) == 7
    rows = [engine.responses.conditions.index(("line0", name)) for name in alone]
    torch.testing.assert_close(truth, engine.bank.effects[rows].double())
    for place, name in enumerate(alone):
        one = measured.answer(engine.similarity, weights, rule, "line0", [(name,)], without=frozenset([(name,)]))
        # the mean of the context has seen it here, one of twelve
        assert np.corrcoef(found[place], one.mean[0])[0, 1] > 0.98
        assert float(error[place]) == pytest.approx(
            float(one.variance[0] + weights.noise_of(torch.ones(1, dtype=torch.float64))[0]), rel=1e-4
        )


def test_a_member_is_answered_as_the_gaussian_process_of_all_conditions_says():
    drawn, responses = made()
    engine = Evidence(QUICK).fit(responses, drawn.embeddings)
    measured, bank, rule = engine.combining.measured, engine.bank, Rule(0.7, 0.3)
    weights = engine.learned_for("few-shot").weights
    found = measured.answer(engine.similarity, weights, rule, "line0", [("P1",)], without=frozenset([("P1",)]))
    singles = [one for one in responses.conditions if "+" not in one[1] and one != ("line0", "P1")]
    pairs = measured.conditions
    atoms = list(dict.fromkeys([*singles, ("line0", "P1")]))
    contexts = torch.tensor([bank.number_of_context(context) for context, _ in atoms])
    numbers = contexts, torch.tensor([bank.number_of(name) for _, name in atoms])
    among = covariance(engine.similarity, weights, 0, numbers, numbers).double().numpy()
    made_of = [{one: 1.0} for one in singles]
    made_of += [{(c, member): 0.7 for member in measured.members[name]} for c, name in pairs]
    k = np.zeros((len(made_of), len(made_of)))
    cross = np.zeros(len(made_of))
    noise = float(weights.noise_of(torch.ones(1, dtype=torch.float64)))
    for i, one in enumerate(made_of):
        for a, share in one.items():
            cross[i] += share * among[atoms.index(a), atoms.index(("line0", "P1"))]
            for j, other in enumerate(made_of):
                for b, more in other.items():
                    k[i, j] += share * more * among[atoms.index(a), atoms.index(b)]
        k[i, i] += noise + (0.3 * float(weights.prior_variance()) if len(one) > 1 else 0.0)
    weight = np.linalg.solve(k, cross)
    assert found.conditions == (*singles, *pairs)
    np.testing.assert_allclose(found.weight[:, 0], weight, atol=1e-5)
    own = atoms.index(("line0", "P1"))
    assert float(found.variance[0]) == pytest.approx(among[own, own] - weight @ cross, rel=1e-4)


def test_members_are_calibrated_from_enough_of_them():
    drawn = screen(perturbations=40)
    pairs = [f"P{number}+P{number + 20}" for number in range(20)]
    effects = [drawn.effects[0, number] + drawn.effects[0, number + 20] for number in range(20)]
    single = drawn.responses()
    labels = [*single.contexts, *["line0"] * 20], [*single.perturbations, *pairs]
    engine = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, effects]), *labels), drawn.embeddings)
    learned = engine.combining.learned
    assert (len(learned.combinations.accuracy), len(learned.members.accuracy)) == (20, 40)
    expected, low, high = engine.combining.expected(np.array([1.0, 1.0]), [("P1",), ("P1", "P2")])
    assert low[0] <= expected[0] <= high[0]
    assert np.isnan([expected[1], low[1], high[1]]).all()
    assert engine.combining.words("line0", ("P1",)) == (
        "part of 1 combination measured here, 1 of them with all other members measured alone"
    )
    assert "20 measured combinations to judge by" in engine.combining.words("line0", ("P1", "P2"))
