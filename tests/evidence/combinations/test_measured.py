import numpy as np
import torch

from state_rag.evidence.combinations.covariances import Rule
from state_rag.evidence.combinations.measured import Combinations
from state_rag.evidence.estimator import Evidence
from tests.evidence.combinations.pretend_pairs import made
from tests.evidence.pretend_screen import QUICK


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
    found, _ = measured.left_out(engine.similarity, weights, [Rule(), rule])[rule]
    for row, (context, name) in enumerate(measured.conditions):
        members = measured.members[name]
        one = measured.answer(engine.similarity, weights, rule, context, [members], without=frozenset([members]))
        torch.testing.assert_close(found[row], one.mean[0], atol=1e-5, rtol=0)
