import re

import numpy as np
import pytest

from state_rag.metrics import glossary
from state_rag.metrics.inputs import Profiles
from state_rag.metrics.registry import BY_NAME, METRICS


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_explained_in_plain_text(metric):
    for text in (metric.meaning, metric.formula, metric.values, metric.source):
        assert text
        assert "$" not in text
        assert "\\" not in text
    assert metric.meaning.count(".") == 1
    assert metric.meaning.endswith(".")


def test_every_space_is_explained():
    assert {metric.space for metric in METRICS} == set(glossary.SPACES) == set(glossary.SHORT_SPACES)


def profiles():
    """Two conditions of five genes, the last two of them not differential."""
    rng = np.random.default_rng(0)
    real, predicted = rng.uniform(1, 2, (2, 5)), rng.uniform(1, 2, (2, 5))
    control, own, centre = rng.uniform(1, 2, (3, 5))
    return Profiles(real, predicted, control, own, centre, np.array([[True] * 4 + [False]] * 2), None)


FORMULAS = {
    "corr_d(r, q)": lambda r, q, c, o, m, d: np.corrcoef(r[d], q[d])[0, 1],
    "corr_g(r - c, q - c)": lambda r, q, c, o, m, d: np.corrcoef(r - c, q - c)[0, 1],
    "corr_d(r - c, q - c)": lambda r, q, c, o, m, d: np.corrcoef((r - c)[d], (q - c)[d])[0, 1],
    "corr_g(r - c, q - c')": lambda r, q, c, o, m, d: np.corrcoef(r - c, q - o)[0, 1],
    "corr_d(r - c, q - c')": lambda r, q, c, o, m, d: np.corrcoef((r - c)[d], (q - o)[d])[0, 1],
    "corr_g(r - m, q - m)": lambda r, q, c, o, m, d: np.corrcoef(r - m, q - m)[0, 1],
    "corr_d(r - m, q - m)": lambda r, q, c, o, m, d: np.corrcoef((r - m)[d], (q - m)[d])[0, 1],
    "mean_g (r - q)^2": lambda r, q, c, o, m, d: ((r - q) ** 2).mean(),
    "sqrt(mean_g (r - q)^2)": lambda r, q, c, o, m, d: ((r - q) ** 2).mean() ** 0.5,
    "mean_g |r - q|": lambda r, q, c, o, m, d: np.abs(r - q).mean(),
    "1 - sum_g (r - q)^2 / sum_g (r - mean_g r)^2": lambda r, q, c, o, m, d: (
        1 - ((r - q) ** 2).sum() / ((r - r.mean()) ** 2).sum()
    ),
    "mean_d (sign(r - c) sign(q - c) + 1) / 2": lambda r, q, c, o, m, d: (
        (np.sign(r - c) * np.sign(q - c) + 1)[d].mean() / 2
    ),
}


@pytest.mark.parametrize("metric", [one for one in METRICS if one.formula in FORMULAS], ids=lambda metric: metric.name)
def test_the_formula_is_what_is_computed(metric):
    inputs = profiles()
    values = metric.compute(inputs)
    for row in range(2):
        expected = FORMULAS[metric.formula](
            inputs.real[row], inputs.predicted[row], inputs.control, inputs.own_control, inputs.centre, inputs.degs[row]
        )
        assert values[row] == pytest.approx(expected)


def test_the_list_says_direction_range_space_and_source_of_a_metric():
    assert glossary.lines([BY_NAME["mae"]]) == [
        "mae: MAE; in the paper's Table 1",
        "  Mean absolute error of the mean profile.",
        "  mean_g |r - q|",
        "  lower is better; 0 and up, expression units; over all genes; PT-RAG, section 4",
    ]


def test_a_bar_in_a_formula_does_not_end_a_cell_of_the_table():
    (line,) = [line for line in glossary.markdown().splitlines() if line.startswith("| MAE")]
    assert len(re.findall(r"(?<!\\)\|", line)) == len(glossary.HEADS) + 1
