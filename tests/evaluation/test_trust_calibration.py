"""Expected against observed accuracy, on made-up conditions."""

import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation.trust_calibration import (
    CALIBRATION,
    CONDITIONS,
    TRUST,
    calibration,
    in_words,
    judged,
    write_calibration,
)


def trust(count=20, known=True):
    expected = np.linspace(0.1, 0.9, count) if known else np.full(count, np.nan)
    return pd.DataFrame(
        {
            "context": "k562",
            "perturbation": [f"P{n}" for n in range(count)],
            "expected_pearson": expected,
            "expected_pearson_low": expected - 0.1,
            "expected_pearson_high": expected + 0.1,
            "trust_score": np.arange(count, dtype=float),
            "trust_grade": "fair",
            "calibration_holds": known,
        }
    )


def observed(table, error):
    values = np.linspace(0.1, 0.9, len(table)) + error
    return pd.DataFrame({"cell_line": "k562", "perturbation": table["perturbation"], "pearson_delta": values})


def test_the_table_has_all_and_fifths_from_the_least_expected_on():
    error = np.where(np.arange(20) % 4 == 0, 0.5, 0.0)
    table = calibration(judged(trust(), observed(trust(), error)))
    assert table["expected"].tolist() == ["all", "1", "2", "3", "4", "5"]
    assert table["conditions"].tolist() == [20, 4, 4, 4, 4, 4]
    assert table["interval_coverage"].tolist() == pytest.approx([0.75] * 6)
    assert table["expected_pearson"].iloc[1:].is_monotonic_increasing


def test_ranks_are_judged_where_nothing_is_calibrated():
    table = calibration(judged(trust(known=False), observed(trust(), 0.0)))
    assert table["expected"].tolist() == ["all"]
    assert table["spearman"].item() == pytest.approx(1.0)
    assert "ranks only" in in_words(table)


def test_conditions_are_matched_by_line_and_name_and_unscored_ones_left_out():
    values = observed(trust(), 0.0)
    values.loc[0, "pearson_delta"] = np.nan
    values.loc[1, "cell_line"] = "rpe1"
    assert set(judged(trust(), values)["perturbation"]) == {f"P{n}" for n in range(2, 20)}


def test_tables_and_picture_are_written_and_stale_ones_go(tmp_path):
    trust().to_csv(tmp_path / TRUST, index=False)
    results = tmp_path / "gge"
    assert write_calibration(tmp_path, observed(trust(), 0.02), results)
    written = {CALIBRATION, CONDITIONS, "plots/trust.png"}
    assert all((results / name).is_file() for name in written)
    (tmp_path / TRUST).unlink()
    assert not write_calibration(tmp_path, observed(trust(), 0.02), results)
    assert not any((results / name).exists() for name in written)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / TRUST).write_text("nothing\n")
    with pytest.raises(StateRagError, match=TRUST):
        write_calibration(tmp_path, observed(trust(), 0.0), tmp_path / "gge")
