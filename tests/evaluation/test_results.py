import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.effects.conditions import Columns, open_pair
from state_rag.evaluation.evaluate import evaluate_pair
from state_rag.evaluation.results import load_tables
from state_rag.evaluation.save import save_evaluation
from state_rag.metrics.registry import BY_NAME
from state_rag.report.conditions import choose_conditions

TRICKY = [
    "NA",
    "nan",
    "None",
    "NULL",
    "null",
    "N/A",
    "n/a",
    "<NA>",
    "NaN",
    "007",
    "1e5",
    "True",
    "inf",
    "A,B",
    '"',
    " x",
]


def screen(perturbations, lines):
    """Three cells a condition."""
    rng = np.random.default_rng(0)
    labels = [(name, line) for line in lines for name in (*perturbations, "ctrl") for _ in range(3)]
    obs = pd.DataFrame(labels, columns=["gene", "cell_line"], index=[str(number) for number in range(len(labels))])
    return [ad.AnnData(rng.uniform(0, 3, (len(obs), 5)).astype(np.float32), obs=obs) for _ in range(2)]


@settings(max_examples=25, deadline=None)
@given(
    perturbations=st.lists(st.sampled_from(TRICKY), min_size=1, max_size=4, unique=True),
    lines=st.lists(st.sampled_from(TRICKY), min_size=1, max_size=2, unique=True),
)
def test_every_name_of_a_perturbation_or_cell_line_is_read_back_as_it_was(perturbations, lines):
    real, predicted = screen(perturbations, lines)
    columns = Columns(control="ctrl")
    pair = open_pair(predicted, real, columns)
    evaluation = evaluate_pair(pair, metrics=(BY_NAME["mse"], BY_NAME["pearson_delta"]), progress=False)
    with tempfile.TemporaryDirectory() as folder:
        save_evaluation(evaluation, Path(folder), columns)
        model, _, _ = load_tables(Path(folder))
    expected = {(name, line) for name in perturbations for line in lines}
    assert set(zip(model["perturbation"], model["cell_line"], strict=True)) == expected
    assert set(model["gene"]) == set(perturbations)
    assert model["mse"].dtype == np.float64
    assert {name for _, name in choose_conditions(model, perturbations)} == set(perturbations)


def test_an_undefined_value_is_read_back_as_missing(tmp_path):
    real, predicted = screen(["P", "Q"], ["k562"])
    predicted.X[0] = np.nan
    columns = Columns(control="ctrl")
    pair = open_pair(predicted, real, columns)
    save_evaluation(evaluate_pair(pair, metrics=(BY_NAME["mse"],), progress=False), tmp_path, columns)
    values = load_tables(tmp_path)[0].set_index("perturbation")["mse"]
    assert np.isnan(values["P"])
    assert np.isfinite(values["Q"])
