"""How trust is said."""

import numpy as np

from state_rag.engine.explained_words import calibration_words, trust_words
from state_rag.evidence.trust.expected import Calibrated, Trust


def trust(expected):
    one = np.array([expected])
    return Trust(
        one, one - 0.1, one + 0.1, one, np.ones((1, 2)), ("high",), ("2 of 2 other contexts agree",), True, one > 0
    )


def test_what_is_expected_is_said_with_interval_grade_and_reason():
    assert trust_words(trust(0.7)) == (
        "Expected correlation with the truth over genes: 0.70 (90 % interval 0.60 to 0.80), trust high: 2 of 2 other "
        "contexts agree."
    )


def test_what_is_not_known_is_said_so():
    assert trust_words(trust(np.nan)) == "How far to trust it is not known: 2 of 2 other contexts agree."


def test_too_few_conditions_are_counted():
    said = calibration_words(Calibrated(12, None))
    assert said == "trust: ranks only, since 12 measured conditions are too few (30 needed)"
