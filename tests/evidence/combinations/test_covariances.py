import pytest
import torch

from state_rag.evidence.combinations.covariances import Rule
from state_rag.evidence.kriging import covariance


def test_the_covariance_is_that_of_sums(engine):
    measured, weights = engine.combining.measured, engine.learned_for("few-shot").weights
    joint = measured._look(engine.similarity, weights, "line0", [("P0", "P1")]).under(Rule(0.5, 0.0))
    bank = engine.bank
    at = joint.conditions.index(("line1", "P3"))

    def k(a, b):
        pairs = [tuple(torch.tensor([number]) for number in one) for one in (a, b)]
        return float(covariance(engine.similarity, weights, 0, *pairs)[0, 0])

    number = bank.number_of
    expected = 0.5 * sum(k((1, number("P3")), (0, number(member))) for member in ("P0", "P1"))
    assert float(joint.cross[at, 0]) == pytest.approx(expected, abs=1e-5)
    itself = 0.25 * sum(k((0, number(a)), (0, number(b))) for a in ("P0", "P1") for b in ("P0", "P1"))
    assert float(joint.variance[0]) == pytest.approx(itself, abs=1e-5)
