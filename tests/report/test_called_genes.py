"""The section on called genes, from what an evaluation wrote."""

import numpy as np
import pandas as pd

from state_rag.evaluation.called_genes import CALLERS, LISTS, PRECISION
from state_rag.report.called_genes import show_called_genes
from state_rag.report.page import Report


def page(folder):
    report = Report("page", folder / "report")
    show_called_genes(report, {"evidence": (None, folder)})
    return "".join(report.parts)


def test_callers_and_lists_are_shown(tmp_path):
    precision = {"caller": CALLERS, "conditions": 12, "average_precision": [0.71, 0.7, 0.2]}
    precision |= {"p_against_probability": [np.nan, 0.03, 1e-6], "all_together": [0.8, 0.75, 0.1]}
    pd.DataFrame(precision).to_csv(tmp_path / PRECISION, index=False)
    lists = {"fdr": [0.05, 0.1], "called": [0, 40], "false": [np.nan, 0.075], "other_direction": [np.nan, 0.0]}
    pd.DataFrame({**lists, "recall": [0.0, 0.31]}).to_csv(tmp_path / LISTS, index=False)
    found = page(tmp_path)
    assert "average precision 0.710, by the size of the predicted effect 0.700" in found
    assert "8 % of 40 called genes do not change" in found
    assert "gene frequency" in found
    assert "31 %" in found
    assert "1.0e-06" in found


def test_runs_without_calls_have_no_section(tmp_path):
    assert page(tmp_path) == ""
