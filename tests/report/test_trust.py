"""The section on trust, from what an evaluation wrote."""

import numpy as np
import pandas as pd

from state_rag.evaluation.trust_calibration import TRUST, write_calibration
from state_rag.report.page import Report
from state_rag.report.trust import show_trust


def evaluated(folder, known=True):
    count = 20
    expected = np.linspace(0.1, 0.9, count) if known else np.full(count, np.nan)
    names = [f"P{n}" for n in range(count)]
    pd.DataFrame(
        {
            "context": "k562",
            "perturbation": names,
            "expected_pearson": expected,
            "expected_pearson_low": expected - 0.1,
            "expected_pearson_high": expected + 0.1,
            "trust_score": np.arange(count, dtype=float),
            "trust_grade": "fair",
            "calibration_holds": known,
        }
    ).to_csv(folder / TRUST, index=False)
    observed = pd.DataFrame({"cell_line": "k562", "perturbation": names, "pearson_delta": np.linspace(0.1, 0.9, count)})
    write_calibration(folder, observed, folder / "gge")
    return folder / "gge"


def page(folder, results):
    report = Report("page", folder / "report")
    show_trust(report, {"evidence": (None, results)})
    return "".join(report.parts)


def test_expected_and_observed_are_shown_with_a_picture(tmp_path):
    found = page(tmp_path, evaluated(tmp_path))
    assert "Trust: expected and observed accuracy" in found
    assert "fifth 5" in found
    assert "100 %" in found
    assert "<figure" in found


def test_ranks_alone_have_no_picture(tmp_path):
    found = page(tmp_path, evaluated(tmp_path, known=False))
    assert "ranks only" in found
    assert "<figure" not in found


def test_runs_without_trust_have_no_section(tmp_path):
    assert page(tmp_path, tmp_path) == ""
