import builtins
import collections
import contextlib
import functools
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.embeddings.restricted_pickle import read_pickled_table
from state_rag.errors import StateRagError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(folder, content, names=None):
    path = folder / "table.pickle"
    path.write_bytes(content)
    return read_pickled_table(path, names, progress=False)


class Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("python_pickler", [False, True])
def test_lists_of_floats_come_back_as_float32(tmp_path, protocol, python_pickler):
    # More than a thousand values make several batches; several frames of 64 kB lie within the runs.
    rng = np.random.default_rng(0)
    table = {f"G{i}": rng.standard_normal(2600).tolist() for i in range(8)}
    dumps = pickle._dumps if python_pickler else pickle.dumps
    found = load(tmp_path, dumps(table, protocol))
    assert list(found) == list(table)
    for name, values in table.items():
        np.testing.assert_array_equal(np.asarray(found[name], np.float32), np.asarray(values, np.float32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", "u1", "?", "<U3", "S2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_pickled(tmp_path, protocol, dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3).astype(dtype), order=order)
    found = load(tmp_path, pickle.dumps({"A": array, "B": array, "C": array[0].copy()}, protocol))
    np.testing.assert_array_equal(found["A"], array)
    np.testing.assert_array_equal(found["C"], array[0])
    assert found["A"] is found["B"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_numbers_and_scalars_come_back_as_pickled(tmp_path, protocol):
    table = collections.OrderedDict(
        a=[1, 2.5, -7, 2**70, 300, 70000, True, None],
        b=(1.0, 2.0),
        c=np.float64(1.5),
        d=np.int32(4),
        e={1, 2},
        f=frozenset({3}),
        g=b"raw",
        h="\u03b1\n text",
        i=bytearray(b"x"),
        j=[],
        k=(),
        l=[[1.0, 2.0], {"x": (1, 2, 3, 4)}],
    )
    found = load(tmp_path, pickle.dumps(table, protocol))
    inner = found.pop("l")
    table.pop("l")
    assert found == dict(table)
    assert len(inner) == 2


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_of_numpy_1_and_2_are_both_read(tmp_path, module):
    content = pickle.dumps({"A": np.arange(3.0)}, 2).replace(b"numpy._core", module.encode())
    np.testing.assert_array_equal(load(tmp_path, content)["A"], [0, 1, 2])


def test_python_2_strings_are_read(tmp_path):
    # {'A': [1.0]} as Python 2's protocols 0 and 1 write it
    assert load(tmp_path, b"(dp0\nS'A'\np1\n(lp2\nF1.0\nas.")["A"] == [1.0]
    found = load(tmp_path, b"}q\x00U\x01Aq\x01]q\x02(G?\xf0\x00\x00\x00\x00\x00\x00K\x02es.")["A"]
    assert found == [1.0, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_that_share_a_list_share_the_vector(tmp_path, protocol):
    values = [0.5, 0.25]
    found = load(tmp_path, pickle.dumps({"AARS": values, "AARS1": values}, protocol))
    assert found["AARS"] is found["AARS1"]


def test_only_the_names_asked_for_are_kept_even_if_they_refer_to_others(tmp_path):
    values = [0.5, 0.25]
    found = load(tmp_path, pickle.dumps({"AARS1": values, "X": [1.0, 2.0], "AARS": values}), names={"AARS"})
    assert {name: list(vector) for name, vector in found.items()} == {"AARS": values}


MALICIOUS = {
    r"(posix|nt)\.system": Calls(os.system, "echo owned > owned"),
    r"builtins\.eval": Calls(builtins.eval, "1 + 1"),
    r"functools\.partial": functools.partial(print, "x"),
    r"collections\.defaultdict": collections.defaultdict(list),
    r"builtins\.getattr": Calls(getattr, "x", "upper"),
    r"tests\.embeddings\.test_restricted_pickle\.Calls": Calls,
    r"numpy\.load": Calls(np.load, "x.npy"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"A": [1.0], "B": x}, lambda x: {"A": [1.0, [{"deep": x}]]}])
def test_anything_else_is_refused_by_name_and_not_run(tmp_path, monkeypatch, protocol, name, wrap):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateRagError, match=rf"table\.pickle: refused the pickled global {name}.*only containers"):
        load(tmp_path, pickle.dumps(wrap(MALICIOUS[name]), protocol).replace(b"__builtin__", b"builtins"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"cos\nsystem\n(S'echo'\ntR.", r"global os\.system"),
        (b"(S'echo'\nios\nsystem\n.", r"instruction INST \(os system\)"),
        (b"Pid\n.", "instruction PERSID"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"global os\.system"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x04)\x81.", "instruction NEWOBJ"),
        (b"\x80\x04K\x01)R.", "a call of int"),
        (b"cnumpy\nndarray\n)R.", r"a call of numpy\.ndarray"),
        (b"}}b.", "pickled state of a dict"),
    ],
)
def test_hand_written_pickles_are_refused(tmp_path, content, what):
    with pytest.raises(StateRagError, match=f"refused .*{what}"):
        load(tmp_path, content)


def test_object_arrays_are_refused(tmp_path):
    with pytest.raises(StateRagError, match="NumPy arrays of type O8 are not allowed"):
        load(tmp_path, pickle.dumps({"A": np.array([1, None])}))


def test_dtypes_that_numpy_would_have_to_parse_are_refused(tmp_path):
    content = pickle.dumps({"A": np.arange(3.0)}, 2).replace(b"\x02\x00\x00\x00f8", b"\x05\x00\x00\x00f,08,")
    with pytest.raises(StateRagError, match=r"arrays of type f,08, are not allowed"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("start", "end"), [(b"}", b"K\x01s."), (b"}(", b"K\x01u."), (b"\x8f(", b"\x90."), (b"(", b"\x91.")]
)
def test_keys_nested_so_deep_that_hashing_would_crash_are_refused(tmp_path, start, end):
    with pytest.raises(StateRagError, match="a container as a key or a member of a set"):
        load(tmp_path, start + b")" + b"\x85" * 300000 + end)


def test_an_array_that_claims_more_than_its_bytes_is_refused(tmp_path):
    content = pickle.dumps({"A": np.arange(3.0)}, 2).replace(b"K\x03\x85", b"K\x09\x85", 1)
    with pytest.raises(StateRagError, match=r"array of shape \(9,\) does not fit its 24 bytes"):
        load(tmp_path, content)


def test_every_truncation_is_one_clear_error(tmp_path):
    content = pickle.dumps({"A": [1.0, 2.0, 3.0], "B": np.arange(2.0), "C": np.float64(1)})
    for length in range(1, len(content)):
        with pytest.raises(StateRagError, match="truncated pickle: it ends at byte"):
            load(tmp_path, content[:length])


def test_other_files_are_refused_with_what_they_are(tmp_path):
    with pytest.raises(StateRagError, match="file is empty, expected a pickle"):
        load(tmp_path, b"")
    with pytest.raises(StateRagError, match=r"no readable pickle: byte b'v' is no pickle instruction at byte 0"):
        load(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(StateRagError, match=r"expected a pickled dict of name -> vector, found list"):
        load(tmp_path, pickle.dumps([1, 2]))


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60))
def test_random_bytes_never_make_anything_but_a_clear_error(tmp_path_factory, content):
    with contextlib.suppress(StateRagError):
        assert isinstance(load(tmp_path_factory.getbasetemp(), content), dict)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_pickles_never_make_anything_but_a_clear_error(tmp_path_factory, data):
    content = bytearray(pickle.dumps({"A": [1.0, 2.0], "B": np.arange(2.0)}, data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StateRagError):
        assert isinstance(load(tmp_path_factory.getbasetemp(), bytes(content)), dict)
