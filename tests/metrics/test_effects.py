import numpy as np
import pytest

from state_rag.metrics import effects


def test_direction_agreement_counts_right_signs_among_degs_and_gives_half_for_no_effect():
    real = np.array([[1.0, -1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    predicted = np.array([[0.2, 0.1, 3.0, -9.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    degs = np.array([[True, True, True, False], [True] * 4, [False] * 4])
    value = effects.direction_agreement(real, predicted, degs)
    assert value[:2].tolist() == [pytest.approx(2 / 3), 0.5]
    assert np.isnan(value[2])


def plain_discrimination(real, predicted):
    scores = []
    for i in range(len(real)):
        distance = [np.abs(predicted[i] - other).sum() for other in real]
        nearer = sum(d < distance[i] for j, d in enumerate(distance) if j != i)
        equal = sum(d == distance[i] for j, d in enumerate(distance) if j != i)
        scores.append(1 - (nearer + 0.5 * equal) / (len(real) - 1))
    return scores


def test_discrimination_equals_a_plain_loop_over_more_than_one_block(monkeypatch):
    monkeypatch.setattr(effects, "DISCRIMINATION_BLOCK", 64)
    rng = np.random.default_rng(0)
    real = rng.normal(size=(150, 12))
    predicted = real + 1.5 * rng.normal(size=real.shape)
    np.testing.assert_allclose(effects.discrimination(real, predicted), plain_discrimination(real, predicted))


def test_discrimination_is_one_for_the_truth_and_chance_for_a_prediction_that_never_changes():
    real = np.random.default_rng(1).normal(size=(40, 20))
    assert effects.discrimination(real, real).tolist() == [1.0] * 40
    same = np.repeat(real.mean(axis=0, keepdims=True), 40, axis=0)
    assert effects.discrimination(real, same).mean() == pytest.approx(0.5)


def test_discrimination_leaves_out_conditions_with_nan_and_is_undefined_for_a_single_one():
    real = np.random.default_rng(2).normal(size=(4, 5))
    predicted = real.copy()
    predicted[2, 0] = np.nan
    value = effects.discrimination(real, predicted)
    assert np.isnan(value[2])
    assert value[[0, 1, 3]].tolist() == [1, 1, 1]
    assert np.isnan(effects.discrimination(real[:1], real[:1])).all()
