from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.evidence.adding import with_knowledge, with_responses
from state_rag.evidence.bank import Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import KernelWeights, Scene, apply, covariance, krige
from state_rag.evidence.prior import prior_of
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.training import Settings
from state_rag.evidence.treatments import Axes, Scale, ScaleWeights, TreatmentWeights, axes_of
from state_rag.names.treatments import Treatment, label_of
from tests.evidence.pretend_screen import QUICK, screen
from tests.evidence.pretend_treatments import curves, opposites, responses

LEARNING = Settings(steps=60, episodes=0, calibrating=0)


def correlation(first, second):
    return float(np.corrcoef(first, second)[0, 1])


def test_activation_is_learned_to_be_the_opposite_of_knock_down():
    effects, embeddings = opposites()
    hidden = {key: effects[key] for place, key in enumerate(effects) if key[0] == "a" and place % 2 == 0}
    known = {key: effect for key, effect in effects.items() if key not in hidden}
    score = {}
    for treated in (True, False):
        engine = Evidence(LEARNING).fit(responses(known, treated), embeddings, uses=["few-shot"])
        asked = [label if treated else label.partition(":")[0] for _, label in hidden]
        found = engine.predict("a", asked, trust=False).mean
        score[treated] = np.mean([correlation(*pair) for pair in zip(found, hidden.values(), strict=True)])
        if treated:
            weights = engine.trained["few-shot"].weights.treatments
            assert float(weights.correlation()[0, 1]) < -0.8
    assert score[True] > 0.7
    assert score[True] > score[False] + 0.3


def test_modes_that_do_the_same_are_learned_to_do_so():
    effects, embeddings = opposites(sign=1.0)
    engine = Evidence(LEARNING).fit(responses(effects), embeddings, uses=["few-shot"])
    assert float(engine.trained["few-shot"].weights.treatments.correlation()[0, 1]) > 0.8


def test_a_dose_between_measured_ones_is_predicted_better_than_by_the_nearest():
    measured, truth = curves()
    engine = Evidence(LEARNING).fit(responses(measured), uses=["few-shot"])
    hidden = [key for key in truth if key not in measured]
    found = engine.predict("a", [label for _, label in hidden], trust=False).mean
    error = np.mean([np.square(one - truth[key]).mean() for one, key in zip(found, hidden, strict=True)])
    nearest = []
    for context, label in hidden:
        name, dose = label.split(":dose=")
        own = [key for key in measured if key[0] == context and key[1].startswith(f"{name}:")]
        near = min(own, key=lambda key: abs(np.log(float(key[1].partition("=")[2]) / float(dose))))
        nearest.append(np.square(measured[near] - truth[context, label]).mean())
    assert error < 0.5 * np.mean(nearest)


def test_the_predicted_effect_grows_with_the_dose_from_none_at_0():
    measured, _ = curves()
    engine = Evidence(LEARNING).fit(responses(measured), uses=["few-shot"])
    labels = [label_of("D1", Treatment(dose=dose)) for dose in (0, 0.01, 0.1, 1, 10)]
    found = engine.predict("b", labels, trust=False)
    size = np.square(found.mean).mean(1)
    assert size[0] == 0
    assert found.variance[0] == pytest.approx(0, abs=1e-9)
    assert (np.diff(size) > 0).all()


def test_labels_without_modes_doses_or_times_are_predicted_as_names_are():
    drawn, few = screen(), replace(LEARNING, steps=3)
    plain = Evidence(few).fit(drawn.responses(hidden={(0, 1)}), drawn.embeddings)
    told = Evidence(few).fit(drawn.responses(hidden={(0, 1)}, treated=True), drawn.embeddings)
    first, second = (engine.predict("line0", ["P1", "P2", "P3"]) for engine in (plain, told))
    np.testing.assert_allclose(first.mean, second.mean, rtol=1e-6)
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-6)


def test_names_are_predicted_as_they_were_before_labels_could_tell_more():
    """The numbers are those of kriging at commit fdcbcf2, which knew no modes, doses or times."""
    drawn = screen()
    kriging = replace(QUICK, steps=2, episodes=0)
    engine = Evidence(kriging).fit(drawn.responses(hidden={(0, 1)}), drawn.embeddings)
    found = engine.predict("line0", ["P1", "P2"])
    wanted = [[-0.8189424269924802, -1.2213170176137929], [-1.519556774352236, -0.5654192737811248]]
    np.testing.assert_allclose(found.mean[:, :2], wanted, rtol=1e-5)
    np.testing.assert_allclose(found.variance, [1.2816601899264155, 1.1620698917157268], rtol=1e-5)
    new = engine.predict("new", ["P1"]).mean[0, :2]
    np.testing.assert_allclose(new, [-0.946293540828222, -0.633714882779333], rtol=1e-5)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6), st.floats(-3, 3), st.floats(-4, 3))
def test_the_kernel_over_doses_is_positive_semi_definite_and_nothing_at_0(doses, length, gap):
    weights = ScaleWeights(Scale(0.01, 1.0, 10.0))
    with torch.no_grad():
        weights.length.fill_(length)
        weights.gap.fill_(gap)
        values = torch.tensor([0.0, *doses], dtype=torch.float64)
        kernel = weights(values, values)
    assert kernel[0].abs().max() == 0
    assert torch.linalg.eigvalsh(kernel).min() > -1e-9
    torch.testing.assert_close(kernel.diagonal(), weights.variance(values).detach())


@given(st.integers(0, 10_000))
def test_the_covariance_is_positive_semi_definite_whatever_the_correlation_of_modes(seed):
    rng = np.random.default_rng(seed)
    labels = [
        label_of(f"P{rng.integers(4)}", Treatment(mode, dose=float(rng.choice([0, 0.1, 1, 10]))))
        for mode in ("CRISPRa", "CRISPRi", "KO", "CRISPRa", "KO")
    ]
    keys = list(dict.fromkeys((context, label) for context in "ab" for label in labels))
    told = responses({key: rng.normal(size=6) for key in keys})
    bank = Bank(told, axes=axes_of(told))
    names = [label.partition(":")[0] for label in bank.perturbations]
    vectors = np.random.default_rng(1).normal(size=(4, 5))
    source = Source.of("text", [f"P{n}" for n in range(4)], vectors, bank.perturbations, called=names)
    # cut powers of cosines are not exactly positive semi-definite, factor or not
    similarity = Similarity(bank, [source], powers=(1,))
    weights = KernelWeights(len(similarity.kernels), bank.axes)
    with torch.no_grad():
        weights.treatments.modes.copy_(torch.from_numpy(rng.normal(size=weights.treatments.modes.shape)))
        conditions = bank.context, bank.perturbation
        matrix = covariance(similarity, weights, 0, conditions, conditions).double()
        correlations = weights.treatments.correlation()
        variance = weights.prior_variances(bank, bank.perturbation)
    assert correlations.abs().max() <= 1 + 1e-12
    assert torch.linalg.eigvalsh((matrix + matrix.T) / 2).min() > -1e-4
    torch.testing.assert_close(matrix.diagonal(), variance.expand(len(matrix)), rtol=1e-4, atol=1e-5)


def test_a_prediction_is_the_regression_of_the_covariance():
    """Kriging with modes and doses, written out with the dense covariance of all conditions."""
    measured, _ = curves(drugs=4, genes=6)
    rng = np.random.default_rng(3)
    both = {
        (context, label.replace(":", f":{mode}:")): effect * rng.normal()
        for (context, label), effect in measured.items()
        for mode in ("drug", "KO")
    }
    told = responses(both)
    bank = Bank(told, axes=axes_of(told))
    similarity = Similarity(bank, [])
    weights = KernelWeights(len(similarity.kernels), bank.axes)
    with torch.no_grad():
        weights.treatments.modes.copy_(torch.tensor([[1.0, 0.0], [-0.6, 0.8]]))
    scene = Scene(0, bank.perturbation[:3], torch.arange(3, len(bank)))
    values = bank.effects[scene.supports]
    with torch.no_grad():
        found = apply(krige(bank, scene, weights, similarity), bank, scene, weights, values)
        asked, known = torch.tensor([0, 1, 2]), scene.supports
        of = [(bank.context[rows], bank.perturbation[rows]) for rows in (asked, known)]
        cross, among = (covariance(similarity, weights, 0, one, of[1]).double() for one in of)
        among += torch.diag(weights.noise_of(bank.scarcity[known]))
        prior = prior_of(bank, scene, weights, values)
        wanted = prior.of(*of[0]) + cross @ torch.linalg.solve(among, values - prior.of(*of[1]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_prior_mean_of_a_context_and_mode_is_drawn_to_the_opposite_of_the_opposite():
    keys = [("a", "P1:up"), ("b", "P1:down"), ("b", "P2:down")]
    told = responses(dict(zip(keys, np.array([[2.0], [4.0], [6.0]]), strict=True)))
    bank = Bank(told, axes=axes_of(told))
    weights = KernelWeights(0, bank.axes)
    with torch.no_grad():
        weights.treatments.modes.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        weights.borrow.fill_(0.0)
        weights.shrink.fill_(100.0)
        scene = Scene(0, bank.perturbation[:1], torch.arange(3))
        found = prior_of(bank, scene, weights, bank.effects).at(0, torch.tensor([bank.number_of("P1:up")]))
    # one support of 2, and one further support's worth of minus the mean 5 of the other
    assert float(found) * bank.scale == pytest.approx((2 - 5) / 2, rel=1e-6)


def test_another_dose_than_measured_ones_is_asked_for_by_its_label():
    measured, _ = curves(drugs=6)
    vectors = np.random.default_rng(0).normal(size=(7, 4))
    engine = Evidence(QUICK).fit(responses(measured), {"text": ([f"D{n}" for n in range(7)], vectors)})
    assert engine.knows("D1:dose=0.5")
    assert engine.knows("D6:dose=0.5")
    found = engine.predict("a", ["D1:dose=500nM", "D1:dose=0.5", "D6:dose=0.5", "unheard:dose=1"])
    np.testing.assert_array_equal(found.mean[0], found.mean[1])
    assert found.trust.reason[3].endswith("context mean")
    assert engine.explain("a", "D1:dose=0.5").prediction == pytest.approx(found.mean[0], rel=1e-5, abs=1e-7)
    before = engine.predict("a", ["D3:dose=1"]).mean
    np.testing.assert_allclose(engine.predict("a", ["D3:dose=1", "D3:dose=0.4"]).mean[:1], before, rtol=1e-5)


def test_what_labels_do_not_tell_is_refused_with_what_they_do():
    effects, embeddings = opposites(perturbations=8)
    engine = Evidence(QUICK).fit(responses(effects), embeddings)
    with pytest.raises(StateRagError, match="'P1' tells no mode; .* CRISPRa, CRISPRi.* such as 'P1:CRISPRa'"):
        engine.predict("a", ["P1"])
    with pytest.raises(StateRagError, match="has the mode 'KO'"):
        engine.predict("a", ["P1:KO"])
    with pytest.raises(StateRagError, match="tells a mode and a dose; measured conditions tell a mode"):
        engine.explain("a", "P1:CRISPRa:dose=1")
    assert "P1" not in engine.bank.offered


def test_a_fitted_engine_keeps_what_it_tells():
    measured, _ = curves(drugs=5)
    engine = Evidence(QUICK).fit(responses(measured, controls={"a": np.zeros(40)}))
    again = Evidence.from_state(engine.to_state())
    labels = ["D1:dose=1", "D2:dose=0.2"]
    np.testing.assert_array_equal(engine.predict("a", labels).mean, again.predict("a", labels).mean)
    assert Axes.from_dict(engine.bank.axes.to_dict()) == engine.bank.axes


def test_new_measurements_of_another_dose_count_and_of_another_mode_are_refused():
    measured, truth = curves(drugs=6)
    engine = Evidence(QUICK).fit(responses(measured))
    new = {("a", "D1:dose=2"): truth["a", "D1:dose=3"]}
    found, merged = with_responses(engine, responses(new))
    assert merged.added == (("a", "D1:dose=2"),)
    assert found.measured("a", "D1:dose=2.0")
    with pytest.raises(StateRagError, match="has the mode 'KO'"):
        with_responses(engine, responses({("a", "D1:KO:dose=2"): truth["a", "D1:dose=3"]}))
    with pytest.raises(StateRagError, match="labels that the engine was fitted on tell modes"):
        with_responses(engine, responses(new, treated=False))


def test_sources_tell_more_names_later_in_every_mode():
    effects, embeddings = opposites(perturbations=8)
    names, vectors = embeddings["text"]
    engine = Evidence(QUICK).fit(responses(effects), embeddings)
    before = engine.predict("a", ["P1:CRISPRa"]).mean
    wider = with_knowledge(engine, {"text": ([*names, "NEW"], np.vstack([vectors, vectors[:1] + 0.01]))})
    assert not engine.knows("NEW:CRISPRi")
    assert wider.knows("NEW:CRISPRi")
    np.testing.assert_allclose(wider.predict("a", ["P1:CRISPRa"]).mean, before, rtol=1e-5)
    up, down = wider.predict("a", ["NEW:CRISPRa", "NEW:CRISPRi"], trust=False).mean
    assert not np.allclose(up, down)


def test_combinations_of_a_mode_are_the_sum_of_members_of_that_mode():
    rng = np.random.default_rng(0)
    names = [f"P{number}" for number in range(6)]
    effects = {("a", f"{name}:CRISPRa"): rng.normal(size=8) for name in names}
    effects |= {("b", f"{name}:CRISPRi"): -effects["a", f"{name}:CRISPRa"] for name in names}
    effects["a", label_of("P0+P1", Treatment("CRISPRa"))] = effects["a", "P0:CRISPRa"] + effects["a", "P1:CRISPRa"]
    engine = Evidence(QUICK).fit(responses(effects))
    (found,) = engine.predict("a", ["P3:CRISPRa+P2:CRISPRa"], trust=False).mean
    wanted = effects["a", "P2:CRISPRa"] + effects["a", "P3:CRISPRa"]
    assert correlation(found, wanted) > 0.9
    assert engine.predict("a", ["P1:CRISPRa+P0:CRISPRa"]).uses == ("combination",)
    with pytest.raises(StateRagError, match="'P2' tells no mode"):
        engine.predict("a", ["P2+P3"])


def test_times_are_told_like_doses():
    weights = TreatmentWeights(Axes.of(["A:time=6", "A:time=24", "B:time=24"]))
    assert weights.dose is None
    assert weights.time is not None
    assert weights.modes is None
