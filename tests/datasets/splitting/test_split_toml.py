import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.datasets.splitting.split_toml import read_split, write_split_toml
from state_rag.errors import StateRagError

GOOD = """
[datasets]
replogle = "/data/replogle.h5ad"
[training]
replogle = "train"
[zeroshot]
"replogle.jurkat" = "test"
[fewshot."replogle.T.cell 1"]
val = ["AARS"]
test = ["WARS", "KARS"]
"""


def read(tmp_path, text):
    (tmp_path / "split.toml").write_text(text, encoding="utf-8")
    return read_split(tmp_path / "split.toml")


def test_a_split_in_the_published_form_is_read(tmp_path):
    split = read(tmp_path, GOOD)
    assert split.datasets == {"replogle": "/data/replogle.h5ad"}
    assert split.training == {"replogle"}
    assert split.zeroshot == {("replogle", "jurkat"): "test"}
    assert split.fewshot == {("replogle", "T.cell 1"): {"val": ["AARS"], "test": ["WARS", "KARS"]}}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('[fewshot."replogle.T.cell 1"]', "[fewshot.replogle.hepg2]", "quotation marks"),
        ('"test"\n', '"tset"\n', "expected one of train, val, test"),
        ('"/data/replogle.h5ad"', "3", "has no path under"),
        ('replogle = "/data', 'replogel = "/data', "replogle -> replogel"),
        ('["AARS"]', '"AARS"', "val must be a list"),
        ("val =", "validation =", "the key 'validation'"),
        ('["AARS"]', '["AARS"', "not valid TOML"),
        ('["AARS"]', "[[", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_split_is_named(old, new, message, tmp_path):
    assert old in GOOD
    with pytest.raises(StateRagError, match=message) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "split.toml" in str(error.value)


def test_a_missing_split_says_how_to_write_one(tmp_path):
    with pytest.raises(StateRagError, match="data split FILE --held-out LINE"):
        read_split(tmp_path / "none.toml")


def test_a_split_that_uses_no_data_is_refused(tmp_path):
    with pytest.raises(StateRagError, match="no data set is used"):
        read(tmp_path, '[datasets]\na = "b.h5ad"\n')


@given(st.text(alphabet="[]=\"'\\\n#.{}, abc\u00e9\x00\t1", max_size=60))
def test_any_text_is_read_or_refused_with_a_message(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(StateRagError):
        read_split(path)


def test_a_split_edited_by_hand_is_kept_beside_the_one_that_takes_its_place(tmp_path, caplog):
    path, kept = tmp_path / "split.toml", tmp_path / "split.toml.before"
    drawn = {"hepg2": (["A"], ["B", "C"])}
    write_split_toml(path, "screen", tmp_path / "screen.h5ad", drawn, "drawn")
    write_split_toml(path, "screen", tmp_path / "screen.h5ad", drawn, "drawn")
    assert not kept.exists()
    edited = path.read_text().replace('"C"', '"D"')
    path.write_text(edited)
    write_split_toml(path, "screen", tmp_path / "screen.h5ad", drawn, "drawn")
    assert kept.read_text() == edited
    assert read_split(path).fewshot["screen", "hepg2"]["test"] == ["B", "C"]
    assert str(kept) in caplog.text
