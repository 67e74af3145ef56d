import io
import struct

import pytest

from state_rag.embeddings import pickle_stream
from state_rag.embeddings.pickle_stream import PickleStream


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_reads_of_any_size_give_the_bytes_in_order(monkeypatch, block):
    monkeypatch.setattr(pickle_stream, "_BLOCK", block)
    content = bytes(range(256)) * 4
    stream = PickleStream(io.BytesIO(content))
    found = b""
    for count in (1, 3, 13, 0, 200, 5, 500, 9, 1000):
        found += stream.read(count)
        assert stream.offset == len(found)
    assert found == content


@pytest.mark.parametrize("block", [11, 1 << 20])
def test_a_run_of_floats_ends_at_the_first_other_instruction(monkeypatch, block):
    monkeypatch.setattr(pickle_stream, "_BLOCK", block)
    values = [0.5 * i for i in range(3000)]
    run = b"".join(b"G" + struct.pack(">d", value) for value in values)
    framed = run[: 9 * 700] + b"\x95" + bytes(8) + run[9 * 700 :] + b"e."
    stream = PickleStream(io.BytesIO(framed))
    assert stream.floats().tolist() == values
    assert stream.read(2) == b"e."


def test_lines_are_taken_with_their_end_and_the_last_without():
    stream = PickleStream(io.BytesIO(b"a" * 1000 + b"\nrest"))
    assert stream.readline() == b"a" * 1000 + b"\n"
    assert stream.readline() == b"rest"
