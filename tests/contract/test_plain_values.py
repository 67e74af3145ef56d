"""Values of HDF5 data sets that are read past HDF5 are those that HDF5 reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from state_rag.contract.matrices import SparseFileRows
from state_rag.contract.plain_values import PlainValues
from state_rag.errors import StateRagError


def _written(path: Path, **how: object) -> h5py.Dataset:
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=np.arange(1000, dtype=np.float32), **{"chunks": (64,), **how})
    return h5py.File(path, "r")["values"]


@pytest.mark.parametrize(("start", "stop"), [(0, 1000), (0, 0), (5, 6), (63, 65), (64, 128), (990, 1000), (990, 2000)])
def test_gives_what_hdf5_gives(tmp_path: Path, start: int, stop: int) -> None:
    dataset = _written(tmp_path / "a.h5")

    values = PlainValues.of(dataset)

    assert values is not None
    assert len(values) == 1000
    np.testing.assert_array_equal(values[start:stop], dataset[start:stop])


def test_chunks_may_lie_anywhere_in_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        values = file.create_dataset("values", (1000,), np.int32, chunks=(64,))
        for start in reversed(range(0, 1000, 64)):  # the last chunk first, and something else in between
            values[start : start + 64] = np.arange(start, min(start + 64, 1000))
            file.create_dataset(f"other{start}", data=np.zeros(17))
    dataset = h5py.File(tmp_path / "a.h5", "r")["values"]

    found = PlainValues.of(dataset)

    assert found is not None
    np.testing.assert_array_equal(found[:], np.arange(1000))
    np.testing.assert_array_equal(found[60:700], np.arange(60, 700))


@pytest.mark.parametrize(
    "how", [{"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True}, {"dtype": ">f4"}, {"chunks": None}]
)
def test_leaves_to_hdf5_what_is_stored_otherwise(tmp_path: Path, how: dict) -> None:
    assert PlainValues.of(_written(tmp_path / "a.h5", **how)) is None


def test_leaves_to_hdf5_what_was_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("values", (1000,), np.float32, chunks=(64,), fillvalue=7)[:64] = 1

    assert PlainValues.of(h5py.File(tmp_path / "a.h5", "r")["values"]) is None


def test_leaves_to_hdf5_a_file_that_is_being_changed(tmp_path: Path) -> None:
    _written(tmp_path / "a.h5").file.close()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        assert PlainValues.of(file["values"]) is None


def test_a_file_cut_short_meanwhile_is_told(tmp_path: Path) -> None:
    values = PlainValues.of(_written(tmp_path / "a.h5"))
    assert values is not None
    with open(tmp_path / "a.h5", "r+b") as file:
        file.truncate(3000)

    with pytest.raises(StateRagError, match=r"a\.h5: the file ends in the middle"):
        values[900:1000]


@pytest.mark.parametrize("index", [-1, 5, 2**31 - 1])
def test_a_column_that_does_not_exist_is_told(tmp_path: Path, index: int) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = (2, 5)
        group["data"], group["indptr"] = np.ones(3, np.float32), np.array([0, 2, 3])
        group.create_dataset("indices", data=np.array([0, 4, index], np.int32), chunks=(2,))
    with h5py.File(tmp_path / "a.h5ad", "r") as file:
        rows = SparseFileRows(file["X"])

        np.testing.assert_array_equal(rows.block(0, 1).toarray(), [[1, 0, 0, 0, 1]])
        with pytest.raises(StateRagError, match=r"rows 1 to 2 of '/X' are damaged"):
            rows.block(1, 2)
