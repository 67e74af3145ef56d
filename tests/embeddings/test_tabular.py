import numpy as np
import pandas as pd
import pytest

from state_rag.embeddings import tabular
from state_rag.embeddings.readers import read_embeddings
from state_rag.errors import StateRagError


def read(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode())
    return read_embeddings(path, progress=False)


def test_a_file_without_header_loses_no_row(tmp_path):
    assert read(tmp_path, "a.csv", "A,0.5,1\nB,2,3\n").names == ("A", "B")


@pytest.mark.parametrize("header", [",0,1", "gene,0,1", "gene,1,2", "gene,x,y", '"gene","V1","V2"', ",0.0,1.0"])
def test_usual_headers_are_no_rows(tmp_path, header):
    assert read(tmp_path, "a.csv", f"{header}\nA,0.5,1\n").names == ("A",)


def test_windows_line_ends_blank_lines_and_byte_order_marks_are_understood(tmp_path):
    table = read(tmp_path, "a.csv", "\ufeffgene,x,y\r\nA,0.5,1\r\n\r\nB,2,3\r\n")
    assert table.names == ("A", "B")
    assert table.vectors.tolist() == [[0.5, 1], [2, 3]]


@pytest.mark.parametrize(("cell", "found"), [("abc", "'abc'"), ("", "''")])
def test_a_cell_that_is_no_number_is_reported_with_line_name_and_column(tmp_path, cell, found):
    with pytest.raises(StateRagError, match=f"a.csv: line 3, 'B', column 3: expected a number, found {found}"):
        read(tmp_path, "a.csv", f"gene,x,y\nA,1,2\nB,1,{cell}\n")


def test_duplicate_names_are_reported(tmp_path):
    with pytest.raises(StateRagError, match=r"more than once: A\. Keep one row"):
        read(tmp_path, "a.csv", "gene,x\nA,1\nB,1\nA,2\n")


def test_the_wrong_separator_is_reported(tmp_path):
    with pytest.raises(
        StateRagError, match="line 1 has no '\\t'-separated numbers|line 2 has no '\t'-separated numbers"
    ):
        read(tmp_path, "a.tsv", "gene,x\nA,1\n")


def test_only_a_header_is_an_empty_table(tmp_path):
    with pytest.raises(StateRagError, match="the table is empty"):
        read(tmp_path, "a.csv", "gene,x\n")


def parquet(folder, frame):
    frame.to_parquet(folder / "a.parquet")
    return read_embeddings(folder / "a.parquet", progress=False)


def test_parquet_without_a_text_column_is_reported(tmp_path):
    with pytest.raises(StateRagError, match="names as a text index or text column, found none"):
        parquet(tmp_path, pd.DataFrame({"x": [1.0]}))


def test_parquet_with_further_text_columns_is_reported(tmp_path):
    with pytest.raises(StateRagError, match=r"found text in column\(s\) note"):
        parquet(tmp_path, pd.DataFrame({"gene": ["A"], "note": ["b"], "x": [1.0]}))


def test_parquet_without_numbers_is_reported(tmp_path):
    with pytest.raises(StateRagError, match="expected numeric columns or one of lists"):
        parquet(tmp_path, pd.DataFrame({"gene": ["A"]}))


def test_parquet_with_duplicate_or_missing_values_is_reported_by_name(tmp_path):
    with pytest.raises(StateRagError, match="more than once: A"):
        parquet(tmp_path, pd.DataFrame({"gene": ["A", "A"], "x": [1.0, 2.0]}))
    with pytest.raises(StateRagError, match="NaN or infinite values in the vectors of B"):
        parquet(tmp_path, pd.DataFrame({"gene": ["A", "B"], "x": [1.0, None]}))


@pytest.mark.parametrize("indexed", [True, False])
def test_of_a_large_parquet_table_wanted_rows_are_kept_batch_by_batch(tmp_path, monkeypatch, indexed):
    monkeypatch.setattr(tabular, "BATCH_VALUES", 12)  # a few rows at a time
    names = [f"P{row}" for row in range(50)]
    frame = pd.DataFrame(np.arange(1, 151, dtype=np.float32).reshape(50, 3), columns=list("xyz"))
    frame = frame.set_axis(names) if indexed else frame.assign(name=names)
    frame.to_parquet(tmp_path / "a.parquet")
    found = read_embeddings(tmp_path / "a.parquet", names=["P41", "P3", "nobody"])
    assert found.names == ("P3", "P41")
    assert found.vectors.tolist() == [[10, 11, 12], [124, 125, 126]]
    assert read_embeddings(tmp_path / "a.parquet", names=["nobody"]).names == ()


@pytest.mark.parametrize("names", [None, ("A",)])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_row_without_a_name_is_reported_whichever_rows_are_wanted(tmp_path, name, names):
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index(["A", None], name="gene"))
    frame.to_csv(tmp_path / name) if name.endswith("csv") else frame.to_parquet(tmp_path / name)
    with pytest.raises(StateRagError, match="no name.*keep_default_na=False"):
        read_embeddings(tmp_path / name, names=names, progress=False)


def test_rows_of_empty_cells_at_the_end_of_a_spreadsheet_are_no_rows(tmp_path):
    assert read(tmp_path, "a.csv", "gene,x,y\nA,1,2\n,,\n").names == ("A",)
