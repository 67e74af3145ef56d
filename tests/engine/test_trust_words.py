"""How trust is said."""

from dataclasses import replace

import numpy as np
import pytest

from state_rag.engine.explaining.words import calibration_words, facts, trust_words
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.trust.expected import Calibrated, Trust
from tests.evidence.pretend_screen import QUICK
from tests.evidence.pretend_treatments import curves, responses


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


@pytest.fixture(scope="module")
def dosed():
    measured, _ = curves()
    return Evidence(replace(QUICK, calibrating=100)).fit(responses(measured))


def test_measured_labels_of_a_name_are_counted_whatever_the_mode_dose_and_time(dosed):
    found = dosed.explain("a", "D0:dose=0.2")
    told = facts(found)[0]
    # five of seven doses in line a, seven in line b
    assert "12 of D0, whatever the mode, dose and time (0 of them as asked)" in told
    assert "of 12 other conditions of its name, whatever the mode, dose and time" in found.trust.reason[0]
    assert "other contexts" not in found.trust.reason[0]


def test_nothing_is_expected_of_a_dose_of_0(dosed):
    trust = dosed.predict("a", ["D0:dose=0", "D0:dose=0.2", "D0:dose=0+D1:dose=0", "D0:dose=0+D1:dose=1"]).trust
    assert np.isnan(trust.expected[[0, 2]]).all()
    assert np.isfinite(trust.expected[1])
    assert trust.grade[0] == trust.grade[2] == "none"
    assert trust.reason[0] == "no effect by definition: a dose or time of 0"
    assert "by definition" not in trust.reason[3]
    assert np.isnan(dosed.explain("a", "D0:dose=0").trust.expected[0])
    assert trust_words(trust).startswith("There is nothing to be right about: no effect by definition")
