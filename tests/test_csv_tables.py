import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state_rag.csv_tables import csv_line, read_csv_table
from state_rag.engine.called import read_calls, write_calls
from state_rag.errors import StateRagError
from state_rag.evaluation.results import load_table
from state_rag.evaluation.trust_calibration import READ, read_trust
from state_rag.run_folders import TRUST

STRANGE = [
    "NA",
    "nan",
    "None",
    "null",
    "NULL",
    "N/A",
    "<NA>",
    "1e5",
    "007",
    "TRUE",
    "inf",
    "-",
    "a,b",
    'say "x"',
    " A ",
]
NAMES = st.lists(st.sampled_from(STRANGE) | st.text("Aa1,\"'\n;Ä ", min_size=1), min_size=1, max_size=6)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(names=NAMES, numbers=st.data())
def test_any_name_comes_back_from_a_table_and_an_empty_number_is_missing(names, numbers, tmp_path):
    values = numbers.draw(st.lists(st.floats(), min_size=len(names), max_size=len(names)))
    pd.DataFrame({"name": names, "value": values}).to_csv(tmp_path / "table.csv", index=False)
    table = read_csv_table(tmp_path / "table.csv", ["name"], remedy="Write it again.")
    assert table["name"].tolist() == names
    np.testing.assert_array_equal(table["value"].to_numpy(dtype=float), values)


@QUICK
@given(names=NAMES)
def test_any_name_comes_back_from_the_tables_of_predictions_and_evaluations(names, tmp_path):
    trust = pd.DataFrame({column: np.linspace(0, 1, len(names)) for column in READ})
    trust = trust.assign(context=names[::-1], perturbation=names, trust_grade="high", calibration_holds=True)
    trust.to_csv(tmp_path / TRUST, index=False)
    calls = trust[["context", "perturbation", "calibration_holds"]].assign(gene=names, direction="up", effect=0.5)
    path = write_calls([calls.assign(probability=0.9, fdr=0.01)], tmp_path)
    for table in (read_trust(tmp_path), read_calls(path), load_table(path, ["context", "perturbation"])):
        assert table["perturbation"].tolist() == names
        assert table["context"].tolist() == names[::-1]
    assert read_calls(path)["gene"].tolist() == names


def test_a_damaged_table_is_named_with_what_to_do(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2,3,4\n1\n")
    with pytest.raises(StateRagError, match=r"table\.csv cannot be read.* Write it again\."):
        read_csv_table(tmp_path / "table.csv", remedy="Write it again.", columns=["c"])


@QUICK
@given(values=st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.integers()), min_size=1, max_size=5))
def test_a_line_is_what_the_writer_of_the_standard_library_writes(values):
    written = io.StringIO()
    csv.writer(written).writerow(values)
    assert csv_line(values) == written.getvalue()
