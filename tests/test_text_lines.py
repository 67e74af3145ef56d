import gzip

import pytest

from state_rag import text_lines as lines
from state_rag.errors import StateRagError
from state_rag.text_lines import text_lines


def test_packed_and_plain_lines_are_the_same(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffA\tB\r\nÄ\n\nlast".encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    for name in ("a.txt", "a.txt.gz"):
        assert list(text_lines(tmp_path / name)) == ["A\tB", "Ä", "", "last"]


def test_damage_is_told_by_file(tmp_path, monkeypatch):
    whole = gzip.compress(b"A\tB\tC\n" * 1000)
    for name, content, said in (
        ("a.gmt.gz", whole[:-20], "truncated or damaged"),
        ("b.gmt.gz", b"no gzip at all", "truncated or damaged"),
        ("c.gmt", b"\xff\xfe\x00", "no text in UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StateRagError, match=rf"{name}: cannot be read, it is {said}"):
            list(text_lines(tmp_path / name))
    monkeypatch.setattr(lines, "LONGEST", 100)
    (tmp_path / "d.gmt").write_text("A" * 101)
    with pytest.raises(StateRagError, match=r"more than 100 characters"):
        list(text_lines(tmp_path / "d.gmt"))
