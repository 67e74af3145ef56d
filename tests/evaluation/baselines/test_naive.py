import numpy as np

from state_rag.effects.conditions import Condition
from state_rag.effects.mean_effects import MeanEffects
from state_rag.evaluation.baselines.naive import MeanEffect, Members, OtherLines, Ridge, naive_baselines


def training():
    return MeanEffects(
        {
            "a": {"P": np.array([1.0, 0.0]), "Q": np.array([3.0, 0.0])},
            "b": {"P": np.array([0.0, 2.0]), "R": np.array([0.0, 4.0])},
        }
    )


def test_the_mean_effect_is_the_lines_own_and_that_of_all_for_a_new_line():
    baseline = MeanEffect(training())
    assert baseline.effect("X", "a").tolist() == [2, 0]
    assert baseline.effect("X", "new").tolist() == [1, 1.5]
    assert baseline.knows("X", "a")
    assert not baseline.knows("X", "new")


def test_other_lines_never_uses_the_line_asked_for_and_falls_back_to_the_mean_effect():
    baseline = OtherLines(training())
    assert baseline.effect("P", "a").tolist() == [0, 2]
    assert baseline.effect("P", "new").tolist() == [0.5, 1]
    assert baseline.effect("Q", "a").tolist() == [2, 0]
    assert not baseline.knows("Q", "a")


def linear_screen(n=40, width=5, genes=7, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(width, genes))
    vectors = {f"P{number}": rng.normal(size=width) for number in range(n)}
    return vectors, {name: vector @ weights + 1 for name, vector in vectors.items()}


def test_ridge_recovers_a_linear_map_on_perturbations_it_was_not_fitted_on():
    vectors, effects = linear_screen()
    seen = {name: effects[name] for name in list(effects)[:30]}
    ridge = Ridge(MeanEffects({"a": seen}), vectors)
    for name in list(effects)[30:]:
        np.testing.assert_allclose(ridge.effect(name, "a"), effects[name], atol=0.02)
        assert ridge.knows(name, "a")


def test_ridge_of_a_line_with_few_perturbations_learns_from_the_other_lines():
    vectors, effects = linear_screen()
    few = {"P0": effects["P0"]}
    ridge = Ridge(MeanEffects({"a": few, "b": effects}), vectors)
    np.testing.assert_allclose(ridge.effect("P5", "a"), effects["P5"], atol=0.02)


def test_ridge_falls_back_to_the_mean_effect_without_an_embedding():
    vectors, effects = linear_screen()
    ridge = Ridge(MeanEffects({"a": effects}), vectors)
    np.testing.assert_allclose(ridge.effect("unknown", "a"), np.mean(list(effects.values()), axis=0))
    assert not ridge.knows("unknown", "a")


def test_without_training_data_only_no_effect_is_left_and_without_embeddings_no_ridge():
    assert list(naive_baselines(None, 3)) == ["no effect"]
    assert list(naive_baselines(training(), 2)) == ["no effect", "mean effect", "same pert., other lines"]
    assert "embedding ridge" in naive_baselines(training(), 2, {"P": np.ones(2)})


def test_other_lines_are_left_out_where_they_answer_nothing_that_is_asked():
    def asked(line, perturbation):
        return [Condition(perturbation, line, np.arange(1), np.arange(1))]

    one_line = MeanEffects({"a": {"P": np.ones(2), "Q": np.zeros(2)}})
    two_lines = MeanEffects({"a": {"P": np.ones(2)}, "b": {"Q": np.zeros(2)}})
    without, every = ["no effect", "mean effect"], ["no effect", "mean effect", "same pert., other lines"]
    assert list(naive_baselines(one_line, 2, conditions=asked("a", "R"))) == without
    assert list(naive_baselines(one_line, 2, conditions=asked("b", "P"))) == every
    assert list(naive_baselines(two_lines, 2, conditions=asked("a", "R"))) == without
    assert list(naive_baselines(two_lines, 2, conditions=asked("b", "P") + asked("a", "R"))) == every


def test_members_add_up_and_a_missing_one_is_taken_from_other_lines_or_for_the_mean():
    additive, stronger = Members(training()), Members(training(), stronger=True)
    assert additive.effect("Q+P", "a").tolist() == [4, 0]
    assert stronger.effect("Q+P", "a").tolist() == [3, 0]
    assert additive.effect("P+R", "a").tolist() == [1, 4]
    assert additive.effect("P+X", "a").tolist() == [3, 0]
    assert not additive.knows("X+Y", "a")
    assert additive.effect("X+Y", "a").tolist() == additive.effect("P", "a").tolist() == [2, 0]


def test_baselines_of_combinations_are_there_where_some_are_asked():
    rows = np.arange(1)
    asked = [Condition(name, "a", rows, rows) for name in ("P+Q", "P")]
    names = list(naive_baselines(training(), 2, conditions=asked))
    assert names == ["no effect", "mean effect", "same pert., other lines", "additive", "stronger member"]
    assert "additive" not in naive_baselines(training(), 2, conditions=asked[1:])


def test_members_are_found_under_labels_with_a_control():
    effects = MeanEffects({"a": {"P+ctrl": np.array([1.0, 0.0]), "ctrl+Q": np.array([0.0, 3.0])}})
    assert Members(effects).effect("P+Q", "a").tolist() == [1, 3]
    assert not Members(effects).knows("P+ctrl", "a")
