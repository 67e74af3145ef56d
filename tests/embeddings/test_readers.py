import gzip
import json
import logging
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from state_rag.embeddings.readers import READERS, read_embeddings
from state_rag.embeddings.table import Embeddings
from state_rag.embeddings.writers import write_embeddings
from state_rag.errors import StateRagError


def write_csv(path, names, vectors, separator=","):
    frame = pd.DataFrame(vectors.astype(np.float64), index=names)
    frame.to_csv(path, sep=separator, na_rep="nan")


def write_parquet(path, names, vectors):
    frame = pd.DataFrame(vectors, columns=[f"d{i}" for i in range(vectors.shape[1])])
    frame.insert(0, "gene", names)
    frame.to_parquet(path, index=False)


def write_indexed_parquet(path, names, vectors):
    frame = pd.DataFrame(vectors, index=names)
    frame.columns = frame.columns.astype(str)
    frame.to_parquet(path)


def write_list_parquet(path, names, vectors):
    pd.DataFrame({"gene": names, "embedding": list(vectors)}).to_parquet(path)


def write_npy(path, names, vectors):
    np.save(path, vectors)
    path.with_name(f"{path.stem}.names.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_pickle(path, table):
    path.write_bytes(pickle.dumps(table))


def by_name(names, vectors):
    return dict(zip(names, vectors, strict=True))


WRITERS = {
    "lists.pickle": lambda p, n, v: write_pickle(p, {k: x.astype(float).tolist() for k, x in by_name(n, v).items()}),
    "arrays.pkl": lambda p, n, v: write_pickle(p, by_name(n, v)),
    "doubles.pickle.": lambda p, n, v: write_pickle(p, by_name(n, v.astype(np.float64))),
    "a.pt": lambda p, n, v: torch.save(by_name(n, torch.from_numpy(v)), p),
    "a.pth": lambda p, n, v: torch.save(by_name(n, torch.from_numpy(v).double()), p),
    "legacy.torch": lambda p, n, v: torch.save(
        by_name(n, torch.from_numpy(v)), p, _use_new_zipfile_serialization=False
    ),
    "base.npy": write_npy,
    "matrix.npz": lambda p, n, v: np.savez(p, names=np.array(n), embeddings=v),
    "vectors.npz": lambda p, n, v: np.savez_compressed(p, names=np.array([x.encode() for x in n]), vectors=v),
    "each.npz": lambda p, n, v: np.savez(p, **by_name(n, v)),
    "own.safetensors": lambda p, n, v: write_embeddings(p, Embeddings(tuple(n), v, "x")),
    "each.safetensors": lambda p, n, v: save_file(by_name(n, torch.from_numpy(v).clone().unbind()), p),
    "a.csv": write_csv,
    "a.csv.gz": write_csv,
    "a.tsv": lambda p, n, v: write_csv(p, n, v, "\t"),
    "a.tsv.gz": lambda p, n, v: write_csv(p, n, v, "\t"),
    "column.parquet": write_parquet,
    "index.parquet": write_indexed_parquet,
    "list.parquet": write_list_parquet,
    "a.json": lambda p, n, v: p.write_text(json.dumps({k: x.astype(float).tolist() for k, x in by_name(n, v).items()})),
}

NAMES = st.lists(
    st.text("ABCDEFGHorf0123456789-._@ ", min_size=1, max_size=10).filter(lambda name: name.strip() == name),
    min_size=1,
    max_size=6,
    unique=True,
).filter(lambda names: "file" not in names)


@st.composite
def tables(draw):
    names = draw(NAMES)
    values = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
    vectors = draw(hnp.arrays(np.float32, (len(names), draw(st.integers(1, 5))), elements=values))
    vectors[:, 0] = np.where(vectors.any(axis=1), vectors[:, 0], 1)
    return names, vectors


@pytest.mark.parametrize("file", WRITERS)
@settings(max_examples=15, deadline=None)
@given(table=tables())
def test_what_is_written_in_any_format_is_read_back(tmp_path_factory, file, table):
    names, vectors = table
    path = tmp_path_factory.mktemp("formats") / file
    WRITERS[file](path, names, vectors)
    found = read_embeddings(path, progress=False)
    assert sorted(found.names) == sorted(names)
    np.testing.assert_array_equal(found.subset(names).vectors, vectors)
    one = read_embeddings(path, names=[names[-1], "no such gene"], progress=False)
    assert one.names == (names[-1],)
    np.testing.assert_array_equal(one.vectors[0], vectors[-1])


def test_every_supported_suffix_has_a_round_trip():
    assert {suffix for suffix in READERS if not any(file.endswith(suffix) for file in WRITERS)} == set()


@pytest.mark.parametrize("name", ["NA", "nan", "None", "1", "1e5", "MARCH1", "TRUE"])
@pytest.mark.parametrize("file", ["a.csv", "column.parquet", "lists.pickle", "each.npz"])
def test_names_that_look_like_something_else_stay_names(tmp_path, file, name):
    WRITERS[file](tmp_path / file, [name, "B"], np.ones((2, 3), np.float32))
    assert set(read_embeddings(tmp_path / file, progress=False).names) == {name, "B"}


@pytest.mark.parametrize(
    ("gene", "nearest"),
    [("COPB1", "COPZ1"), ("EIF2B2", "EIF2B3"), ("HSPA5", "HSPA9"), ("SEC61A1", "SEC61B"), ("HARS", "AARS")],
)
def test_nearest_genept_neighbours_are_the_published_ones(genept, gene, nearest):
    best = max((name for name in genept.names if name != gene), key=lambda name: genept.row(gene) @ genept.row(name))
    assert best == nearest


def test_a_whole_table_leaves_out_the_zero_control_and_says_so(genept_path, caplog):
    with caplog.at_level(logging.WARNING):
        table = read_embeddings(genept_path, progress=False)
    assert len(table) == 86
    assert "ctrl" not in table
    assert "left out ctrl: a vector of zeros" in caplog.text


def test_a_zero_vector_that_is_asked_for_is_an_error(genept_path):
    with pytest.raises(StateRagError, match="a vector of zeros for ctrl. It has no direction"):
        read_embeddings(genept_path, names=["COPB1", "ctrl"], progress=False)


def test_zero_vectors_that_are_asked_for_can_be_dropped(genept_path):
    assert read_embeddings(genept_path, ["COPB1", "ctrl"], zeros="drop", progress=False).names == ("COPB1",)


def test_names_that_the_file_lacks_leave_an_empty_table(genept_path):
    assert len(read_embeddings(genept_path, names=["nothing"], progress=False)) == 0


def test_the_provenance_says_which_file_by_its_digest(genept):
    assert genept.provenance == {
        "source_file": "genept_adamson86.csv.gz",
        "source_format": "csv.gz",
        "source_sha256": "11bda4e729ff732962a46c474d54fceaa6ab58080e0c99b1f508e30039259af8",
    }


@pytest.mark.parametrize(
    "file", ["lists.pickle", "a.pt", "matrix.npz", "each.npz", "each.safetensors", "a.csv", "a.json"]
)
def test_nan_is_reported_by_name_unless_the_row_is_not_needed(tmp_path, file):
    vectors = np.array([[1, 2], [np.nan, 1], [3, 4]], np.float32)
    WRITERS[file](tmp_path / file, ["AARS", "BAD", "HARS"], vectors)
    with pytest.raises(StateRagError, match="NaN or infinite values in the vectors of BAD"):
        read_embeddings(tmp_path / file, progress=False)
    with pytest.raises(StateRagError, match="NaN or infinite values in the vectors of BAD"):
        read_embeddings(tmp_path / file, names=["BAD", "HARS"], progress=False)
    assert set(read_embeddings(tmp_path / file, names=["AARS", "HARS"], progress=False).names) == {"AARS", "HARS"}


def test_values_too_large_for_float32_are_reported_as_infinite(tmp_path):
    write_pickle(tmp_path / "a.pickle", {"A": [1e300, 1.0]})
    with pytest.raises(StateRagError, match="infinite values in the vectors of A"):
        read_embeddings(tmp_path / "a.pickle", progress=False)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"A": [1.0, 2.0], "B": [1.0, 2.0, 3.0], "C": [1.0, 2.0]},
            r"ragged vectors: 2 of 3 have width 2, but B \(3\) not",
        ),
        ({"A": [1.0, 2.0], "B": "text"}, r"expected a vector of numbers for each name, found B \(str\)"),
        ({"A": [1.0, 2.0], "B": None}, r"found B \(NoneType\)"),
        ({"A": [1.0, 2.0], "B": []}, r"found B|ragged vectors.*B \(0\)"),
        ({"A": [1.0, 2.0], 5: [1.0, 2.0]}, r"names must be text, found 5 \(int\)"),
        ({}, "the table is empty"),
        ({"ctrl": [0.0, 0.0]}, "a vector of zeros for ctrl"),
    ],
)
@pytest.mark.parametrize("suffix", ["pickle", "pt"])
def test_bad_tables_are_reported_by_name(tmp_path, table, message, suffix):
    path = tmp_path / f"a.{suffix}"
    write_pickle(path, table) if suffix == "pickle" else torch.save(table, path)
    with pytest.raises(StateRagError, match=message):
        read_embeddings(path, progress=False)


def test_rows_that_are_not_needed_may_be_ragged(tmp_path):
    write_pickle(tmp_path / "a.pickle", {"A": [1.0, 2.0], "B": [1.0]})
    assert read_embeddings(tmp_path / "a.pickle", names=["A"], progress=False).width == 2


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(StateRagError, match="nothing.csv: no such file"):
        read_embeddings(tmp_path / "nothing.csv")


def test_a_folder_is_an_error(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(StateRagError, match="is a folder; expected an embedding file"):
        read_embeddings(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.txt", "genes", "a.h5ad"])
def test_an_unknown_suffix_is_an_error_that_lists_the_supported_ones(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(StateRagError, match=r"cannot tell the format .*supported are \.pickle \.pkl .*\.json"):
        read_embeddings(tmp_path / name)


@pytest.mark.parametrize("file", WRITERS)
def test_an_empty_file_is_an_error(tmp_path, file):
    (tmp_path / file).touch()
    with pytest.raises(StateRagError, match="the file is empty"):
        read_embeddings(tmp_path / file, progress=False)


@pytest.mark.parametrize("file", [file for file in WRITERS if not file.endswith(("csv", "tsv"))])
def test_a_truncated_file_is_one_clear_error(tmp_path, file):
    path = tmp_path / file
    WRITERS[file](path, [f"G{i}" for i in range(40)], np.random.default_rng(0).standard_normal((40, 30), np.float32))
    content = path.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.98):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(StateRagError, match="truncated|corrupt"):
            read_embeddings(path, progress=False)


def test_a_truncated_csv_is_reported_by_the_row_that_is_too_short(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ["A", "B", "C"], np.ones((3, 30)))
    path.write_bytes(path.read_bytes()[:-41])
    with pytest.raises(StateRagError, match=r"ragged vectors: 2 of 3 have width 30, but C \(20\) not"):
        read_embeddings(path, progress=False)


@pytest.mark.parametrize("file", WRITERS)
def test_a_file_of_another_kind_is_one_clear_error(tmp_path, file):
    (tmp_path / file).write_bytes(b"<!DOCTYPE html>\x00\xff\n<p>404</p>\n" * 20)
    with pytest.raises(StateRagError, match=file.rstrip(".")):
        read_embeddings(tmp_path / file, progress=False)


def test_duplicate_names_in_json_are_reported(tmp_path):
    (tmp_path / "a.json").write_text('{"A": [1], "B": [2], "A": [3]}')
    with pytest.raises(StateRagError, match="more than once: A"):
        read_embeddings(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["[1, 2]", '"A"'])
def test_json_must_be_an_object(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StateRagError, match="expected a JSON object of name -> text or name -> list of numbers"):
        read_embeddings(tmp_path / "a.json")


def test_real_summaries_are_embedded_on_reading(summaries_path):
    table = read_embeddings(summaries_path, names=["COPB1", "COPZ1", "HSPA5", "MAPK1"], text_width=128)
    assert table.width == 128
    assert table.row("COPB1") @ table.row("COPZ1") > table.row("COPB1") @ table.row("HSPA5")
    assert table.provenance["embedding"] == "TF-IDF of 1915 texts + truncated SVD, width 128"


def test_text_neighbours_do_not_depend_on_the_names_asked_for(summaries_path):
    few = read_embeddings(summaries_path, names=["COPB1", "HSPA5"], text_width=64)
    more = read_embeddings(summaries_path, names=["COPB1", "HSPA5", "MAPK1"], text_width=64)
    np.testing.assert_array_equal(few.vectors, more.subset(few.names).vectors)


def test_empty_texts_are_named_when_asked_for_and_left_out_otherwise(tmp_path, caplog):
    texts = {"A": "coatomer beta", "B": "  ", "C": "the and of", "D": "coatomer zeta"}
    (tmp_path / "a.json").write_text(json.dumps(texts))
    with pytest.raises(StateRagError, match="an empty text, or one without usable words for B, C"):
        read_embeddings(tmp_path / "a.json", names=["A", "B", "C"], text_width=2)
    assert read_embeddings(tmp_path / "a.json", text_width=2).names == ("A", "D")
    assert "left out B, C: an empty text" in caplog.text


@pytest.mark.parametrize("value", [None, 3, [1.0, 2.0]])
def test_a_text_table_with_other_values_names_them(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps({"A": "some text", "B": value}))
    with pytest.raises(StateRagError, match=r"expected a text for each name, found B \("):
        read_embeddings(tmp_path / "a.json")


def test_arrays_that_are_not_needed_are_not_loaded(tmp_path):
    path = tmp_path / "each.npz"
    np.savez(path, A=np.ones(3, np.float32), B=np.array([None, {}], dtype=object))
    assert zipfile.is_zipfile(path)
    assert read_embeddings(path, names=["A"]).names == ("A",)


def test_a_gzip_that_is_none_is_one_clear_error(tmp_path):
    (tmp_path / "a.csv.gz").write_text("gene,0\nA,1\n")
    with pytest.raises(StateRagError, match="truncated, corrupt or not what its suffix says .BadGzipFile"):
        read_embeddings(tmp_path / "a.csv.gz")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"gene,0\nA,1\n"))
    assert read_embeddings(tmp_path / "a.csv.gz").names == ("A",)
