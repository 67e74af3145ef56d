"""The model that turns signs into an expected accuracy, on planted accuracies."""

from dataclasses import replace

import numpy as np

from state_rag.evidence.trust.model import NORMAL, Calibration, TrustModel, learn


def planted(rng: np.random.Generator, rows: int = 300, genes: int = 60, shift: float = 0.0) -> Calibration:
    """Accuracy rises with the first sign and hangs on no other; the error of genes grows with it."""
    signs = rng.normal(size=(rows, 3))
    accuracy = 0.5 + 0.3 * np.tanh(signs[:, 0]) + 0.05 * rng.normal(size=rows)
    context = rng.integers(0, 3, rows)
    accuracy += shift * (context == 2)
    scale = np.linspace(0.5, 2, genes) * np.exp(0.3 * signs[:, :1])
    predicted = rng.normal(size=(rows, genes)).astype(np.float32)
    truth = (predicted + scale * rng.normal(size=(rows, genes))).astype(np.float32)
    return Calibration(signs, accuracy, 0.1 * rng.normal(size=rows), predicted, truth, context, *[np.arange(rows)] * 2)


def test_expected_accuracy_follows_what_was_planted():
    rng = np.random.default_rng(0)
    model, new = learn(planted(rng), 3, False), planted(rng, 400)
    expected, low, high = model.expect(new.signs, 0)
    assert np.corrcoef(expected, new.accuracy)[0, 1] > 0.95
    assert np.all((low <= expected) & (expected <= high))


def test_what_two_signs_do_together_is_told():
    rng = np.random.default_rng(0)
    seen, new = planted(rng, 400), planted(rng, 400)
    together = [one.signs[:, 0] * np.sign(one.signs[:, 1]) for one in (seen, new)]
    seen, new = (
        replace(one, accuracy=0.5 + 0.2 * np.tanh(value)) for one, value in zip((seen, new), together, strict=True)
    )
    model = learn(seen, 3, False)
    assert np.corrcoef(model.expect(new.signs, 0)[0], new.accuracy)[0, 1] > 0.4
    assert abs(np.corrcoef(new.signs @ model.slopes, new.accuracy)[0, 1]) < 0.2  # which no slope tells


def test_few_conditions_teach_what_rises_evenly():
    rng = np.random.default_rng(0)
    seen = planted(rng, 60)
    model = learn(replace(seen, accuracy=0.5 + 0.1 * seen.signs.sum(1)), 3, False)
    new = rng.normal(size=(200, 3))
    assert np.corrcoef(model.score(new), new.sum(1))[0, 1] > 0.9


def test_a_model_that_was_kept_before_there_were_trees_is_read():
    model = learn(planted(np.random.default_rng(0)), 3, True)
    kept = {name: values for name, values in model.arrays.items() if name != "nodes"}
    signs = np.random.default_rng(1).normal(size=(9, 3))
    np.testing.assert_array_equal(TrustModel.of(kept).score(signs), model.score(signs))


def test_a_new_context_has_slopes_alone():
    assert not len(learn(planted(np.random.default_rng(0)), 3, True).nodes)


def test_intervals_hold_what_they_promise():
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model, new = learn(planted(rng), 3, False), planted(rng, 1000)
        _, low, high = model.expect(new.signs, 0)
        held.append(np.mean((new.accuracy >= low) & (new.accuracy <= high)))
    assert 0.89 <= np.mean(held) <= 0.95
    assert min(held) >= 0.85


def test_deviations_of_genes_hold_nine_of_ten_in_small_and_large_effects():
    rng = np.random.default_rng(0)
    model, new = learn(planted(rng), 3, False), planted(rng, 1000)
    inside = np.abs(new.truth - new.predicted) <= NORMAL * model.deviations(new.predicted, new.signs[:, 0], 0)
    assert 0.88 <= inside.mean() <= 0.92
    for part in np.array_split(np.argsort(new.signs[:, 0]), 5):
        assert 0.85 <= inside[part].mean() <= 0.95
    assert inside.mean(0).min() >= 0.8


def test_a_context_that_does_better_is_expected_to():
    rng = np.random.default_rng(0)
    model = learn(planted(rng, shift=0.15), 3, False)
    signs = np.zeros((1, 3))
    assert model.expect(signs, 2)[0] > model.expect(signs, 0)[0] + 0.08
    assert model.expect(signs, 0)[0] < model.expect(signs, -1)[0] < model.expect(signs, 2)[0]


def test_contexts_that_differ_widen_the_interval_of_a_new_one():
    alike, unlike = (learn(planted(np.random.default_rng(0), shift=shift), 3, True) for shift in (0.0, 0.3))
    widths = [float(np.subtract(*model.expect(np.zeros((1, 3)), -1)[:0:-1])[0]) for model in (alike, unlike)]
    assert widths[1] > 2 * widths[0]


def test_more_of_a_sign_never_expects_less_in_a_new_context():
    model = learn(planted(np.random.default_rng(0)), 3, True)
    assert np.all(model.slopes >= 0)
    rising = np.zeros((50, 3))
    rising[:, 0] = np.linspace(-5, 5, 50)
    assert np.all(np.diff(model.expect(rising, -1)[0]) >= -1e-12)


def test_the_model_is_its_arrays_and_the_same_from_the_same():
    model, again = (learn(planted(np.random.default_rng(0)), 3, False) for _ in range(2))
    signs = np.random.default_rng(1).normal(size=(5, 3))
    for other in (again, TrustModel.of(model.arrays)):
        for one, two in zip(model.expect(signs, 1), other.expect(signs, 1), strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_sign_that_never_varies_does_not_count():
    seen = planted(np.random.default_rng(0))
    seen.signs[:, 2] = 4.0
    model = learn(seen, 3, False)
    other = np.array([[0.0, 0.0, 4.0], [0.0, 0.0, 9.0]])
    assert np.ptp(model.expect(other, 0)[0]) == 0


def test_of_two_predictions_the_one_with_the_better_score_expects_more():
    rng = np.random.default_rng(0)
    flat = planted(rng)
    flat.accuracy[:] = 0.5 + 0.3 * (flat.signs[:, 0] > 0) + 0.05 * rng.normal(size=300)
    model = learn(flat, 3, False)
    signs = planted(rng, 200).signs
    expected = model.expect(signs, 0)[0]
    assert (np.argsort(expected) == np.argsort(model.score(signs))).all()
    assert len(np.unique(expected)) > 195
