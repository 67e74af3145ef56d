"""The model of gene calls alone, on drawn features whose law is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from state_rag.evidence.trust.gene_caller import FEATURES, GeneCaller, error_rates, learn_caller, precision_of


def drawn(seed=0, conditions=60, genes=80, slopes=(0.5, 1.0, 0.3, 0.8)):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(conditions, genes, len(FEATURES)))
    features[..., 2] = features[:, :1, 2]  # of a condition, the same for all its genes
    logit = features @ np.array(slopes) - 2
    return features, rng.random(logit.shape) < 1 / (1 + np.exp(-logit))


def learned(features, changed):
    return learn_caller(features, changed, np.arange(len(features)) % 2 == 0)


def test_slopes_are_those_of_logistic_regression():
    features, changed = drawn()
    found = learned(features, changed)
    scaled = (features - found.centre) / found.spread
    theirs = LogisticRegression(C=1e6).fit(scaled.reshape(-1, 4), changed.ravel())
    np.testing.assert_allclose(found.slopes, theirs.coef_[0], atol=0.01)
    assert found.offset[0] == pytest.approx(theirs.intercept_[0], abs=0.01)


def test_what_speaks_against_a_change_is_not_looked_at():
    found = learned(*drawn(slopes=(0.5, 1.0, -0.5, -1.0)))
    assert found.looked_at == ("log size", "size")


def test_probabilities_hold_on_new_conditions():
    found = learned(*drawn(conditions=300))
    features, changed = drawn(1, conditions=300)
    probability = found.probability(found.score(features))
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1)):
        within = (probability >= low) & (probability < high)
        assert changed[within].mean() == pytest.approx(probability[within].mean(), abs=0.04)


@pytest.mark.parametrize("fdr", [0.2, 0.4])
def test_lists_have_the_share_of_errors_that_they_promise(fdr):
    found = learned(*drawn(conditions=300, slopes=(1.0, 2.0, 0.5, 1.0)))
    features, changed = drawn(1, conditions=300, slopes=(1.0, 2.0, 0.5, 1.0))
    called = found.fdr(found.score(features)) <= fdr
    assert called.sum() > 500
    assert (~changed[called]).mean() == pytest.approx(fdr, abs=0.04)


def test_a_higher_score_is_more_probable_and_in_no_worse_list():
    found = learned(*drawn())
    scores = np.linspace(-12, 12, 500)
    assert (np.diff(found.probability(scores)) > 0).all()
    assert (np.diff(found.fdr(scores)) <= 0).all()
    assert found.fdr(np.array([-1e9])) == 1


def test_rates_are_the_errors_of_the_best_list_that_reaches_down_so_far():
    rng = np.random.default_rng(0)
    scores, changed = rng.permutation(30).astype(float), rng.random(30) < 0.5
    levels, rates = error_rates(scores, changed)
    for level, rate in zip(levels, rates, strict=True):
        # one error more than were seen, for every list from a kept level at or below this one
        lists = [scores >= other for other in levels if other <= level]
        assert rate == pytest.approx(min(1.0, *(((~changed[one]).sum() + 1) / one.sum() for one in lists)))


def test_average_precision_is_that_of_scikit_learn():
    features, changed = drawn()
    found = learned(features, changed)
    scores = features.sum(-1)
    assert precision_of(scores, changed) == pytest.approx(average_precision_score(changed.ravel(), scores.ravel()))
    assert ((found.precision > 0) & (found.precision < 1)).all()


def test_too_few_changes_teach_nothing():
    features, changed = drawn()
    changed[::2] = False
    assert learned(features, changed) is None


def test_it_comes_back_from_its_arrays():
    found = learned(*drawn())
    again = GeneCaller.of(found.arrays)
    scores = np.linspace(-3, 3, 9)
    np.testing.assert_array_equal(again.probability(scores), found.probability(scores))
