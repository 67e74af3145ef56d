import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation.compare import compare
from state_rag.metrics.significance import benjamini_hochberg, mann_whitney


def table(shift=0.0, n=60, seed=0, noise=0.02):
    rng = np.random.default_rng(0)
    easy = rng.normal(size=(n, 3))
    own = np.random.default_rng(seed).normal(size=(n, 3)) * noise
    names = ["mse", "pearson_delta", "energy_pca50"]
    frame = pd.DataFrame(easy + own + shift, columns=names)
    frame.insert(0, "cell_line", "k562")
    frame.insert(1, "perturbation", [f"P{number}" for number in range(n)])
    return frame


def test_means_and_differences_are_those_of_the_shared_conditions():
    first, second = table(seed=1), table(1.0, seed=2).iloc[10:]
    result = compare({"a": first, "b": second}, "a")
    assert result.n_conditions == 50
    assert result.left_out == {"a": 10}
    row = result.cell("b", "mse")
    assert row["mean"] == pytest.approx(second["mse"].mean())
    assert row["difference"] == pytest.approx(second["mse"].mean() - first["mse"].iloc[10:].mean())


def test_order_of_rows_does_not_matter_for_the_pairing():
    first, second = table(seed=1), table(0.05, seed=2)
    straight = compare({"a": first, "b": second}, "a").rows
    mixed = compare({"a": first, "b": second.sample(frac=1, random_state=0)}, "a").rows
    pd.testing.assert_frame_equal(straight, mixed)


def test_planted_differences_are_found_and_equal_predictors_are_not():
    result = compare({"reference": table(seed=1), "worse": table(2.0, seed=2), "same": table(seed=3)}, "reference")
    for metric in result.metrics:
        worse, same = result.cell("worse", metric.name), result.cell("same", metric.name)
        assert worse["q_mann_whitney"] < 0.01
        assert worse["q_wilcoxon"] < 0.01
        assert same["q_mann_whitney"] > 0.05
        assert same["q_wilcoxon"] > 0.05
        assert np.isnan(result.cell("reference", metric.name)["p_wilcoxon"])


def test_a_small_shift_is_seen_by_the_paired_test_alone():
    result = compare({"reference": table(seed=1), "shifted": table(0.03, seed=2)}, "reference")
    row = result.cell("shifted", "mse")
    assert row["q_wilcoxon"] < 0.01
    assert row["q_mann_whitney"] > 0.05


def test_correction_runs_over_the_metrics_of_one_predictor():
    result = compare({"reference": table(seed=1), "b": table(0.02, seed=2), "c": table(0.5, seed=4)}, "reference")
    rows = result.rows[result.rows["predictor"] == "b"]
    np.testing.assert_allclose(rows["q_wilcoxon"], benjamini_hochberg(rows["p_wilcoxon"].to_numpy()))


def test_a_predictor_without_its_worst_conditions_does_not_look_better_than_with_them():
    honest, reference = table(0.5, seed=2), table(seed=1)
    worst = honest["mse"].nlargest(20).index
    gaps = honest.copy()
    gaps.loc[worst, "mse"] = np.nan
    result = compare({"ours": reference, "gaps": gaps}, "ours")
    rest = honest.index.difference(worst)
    ours, theirs = result.cell("ours", "mse"), result.cell("gaps", "mse")
    assert (theirs["n"], theirs["n_missing"], ours["n"], ours["n_missing"]) == (40, 20, 40, 0)
    assert ours["mean"] == pytest.approx(reference.loc[rest, "mse"].mean())
    assert theirs["mean"] == pytest.approx(honest.loc[rest, "mse"].mean())
    assert theirs["difference"] == pytest.approx(theirs["mean"] - ours["mean"])
    both = reference.loc[rest, "mse"].to_numpy(), honest.loc[rest, "mse"].to_numpy()
    assert theirs["p_mann_whitney"] == pytest.approx(mann_whitney(both[1], both[0]))
    assert result.cell("ours", "energy_pca50")["n"] == 60


def test_a_third_predictors_gaps_limit_everybodys_mean():
    gaps = table(seed=3)
    gaps.loc[:9, "mse"] = np.nan
    named = {"a": table(seed=1), "b": table(1.0, seed=2), "gaps": gaps}
    result = compare(named, "a")
    for name, one in named.items():
        assert result.cell(name, "mse")["mean"] == pytest.approx(one["mse"].iloc[10:].mean())
    assert result.values["b"]["mse"].notna().sum() == 50


def test_a_predictor_without_any_value_leaves_the_others_theirs():
    nothing = table(seed=3).assign(mse=np.nan)
    result = compare({"a": table(seed=1), "b": table(1.0, seed=2), "nothing": nothing}, "a")
    assert result.cell("b", "mse")["n"] == 60
    assert np.isfinite(result.cell("b", "mse")["p_wilcoxon"])
    assert result.cell("nothing", "mse")[["n", "n_missing"]].tolist() == [0, 60]
    assert np.isnan(result.cell("nothing", "mse")["mean"])


def test_runs_without_a_common_condition_and_unknown_references_are_refused():
    other = table().assign(cell_line="rpe1")
    with pytest.raises(StateRagError, match="no condition"):
        compare({"a": table(), "b": other}, "a")
    with pytest.raises(StateRagError, match="'z' is none of a"):
        compare({"a": table()}, "z")


def test_a_condition_that_appears_twice_is_refused():
    twice = pd.concat([table(), table().iloc[:1]])
    with pytest.raises(StateRagError, match="P0 in k562 appears twice"):
        compare({"a": twice}, "a")
