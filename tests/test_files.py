"""A final name holds a whole file or what it held before."""

import hashlib
import os
import stat

import pytest

from state_rag.errors import StateRagError
from state_rag.files import (
    atomic_path,
    existing_file,
    keep_other,
    listed_names,
    names_in,
    read_text,
    sha256,
    writable_folder,
)


def test_the_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    final = tmp_path / "note.txt"
    with atomic_path(final) as temporary:
        temporary.write_text("whole")
        assert not final.exists()
        assert temporary.parent == tmp_path
    assert final.read_text() == "whole"
    assert os.listdir(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    final = tmp_path / "note.txt"
    final.write_text("old")

    def write():
        with atomic_path(final) as temporary:
            temporary.write_text("half of a new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert final.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_an_existing_file_is_replaced_even_where_it_is_open(tmp_path):
    final = tmp_path / "note.txt"
    final.write_text("old")
    with open(final) as reader:
        with atomic_path(final) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert final.read_text() == "new"


@pytest.mark.parametrize("name", ["table.csv", "cells.h5ad", "two.parts.npz"])
def test_the_temporary_name_keeps_the_suffix_that_writers_choose_their_format_by(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.suffix == (tmp_path / name).suffix
        assert temporary.name != name


def test_missing_folders_are_made_and_strings_are_paths_too(tmp_path):
    with atomic_path(str(tmp_path / "a" / "b" / "note.txt")) as temporary:
        temporary.write_text("deep")
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "deep"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_file_gets_the_users_default_mode_and_the_mask_is_left_as_it_was(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "note.txt") as temporary:
            temporary.write_text("")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_the_digest_is_that_of_the_whole_file(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "data").write_bytes(content[:size])
    assert sha256(tmp_path / "data") == hashlib.sha256(content[:size]).hexdigest()


def test_a_place_that_cannot_be_written_is_named_with_what_stands_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    for final, cause in ((tmp_path / "file" / "note.txt", "is a file, not a folder"), (tmp_path, "it is a folder")):
        with pytest.raises(StateRagError, match=f"cannot be written: .*{cause}"), atomic_path(final):
            pytest.fail("must not get here")


def test_a_folder_for_results_is_made_and_left_empty(tmp_path):
    assert writable_folder(tmp_path / "a" / "b", "-o") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/results"])
def test_a_folder_that_results_cannot_go_to_is_refused_with_its_option(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateRagError, match="-o .*: nothing can be written there .* Choose another folder"):
        writable_folder(tmp_path / place, "-o")


def test_a_file_that_is_there_is_returned_and_read(tmp_path):
    (tmp_path / "a.txt").write_text("höre")
    assert existing_file(tmp_path / "a.txt", "a list", (".txt",)) == tmp_path / "a.txt"
    assert read_text(tmp_path / "a.txt", "a list") == "höre"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: place.mkdir(), r"--list .*x\.txt is a folder; expected a list \(\.txt\)\. It holds nothing"),
        (lambda place: None, r"--list .*x\.txt: no such file; expected a list \(\.txt\)"),
        (lambda place: place.touch(), "x.txt: the file is empty; expected a list"),
        (lambda place: place.write_bytes(b"\xff\xfe\xff"), "x.txt is no text file; expected a list"),
        (lambda place: (place.mkdir(), (place / "y.csv").touch()), r"It holds none of these, but y\.csv"),
    ],
)
def test_what_is_there_instead_is_said(make, message, tmp_path):
    make(tmp_path / "x.txt")
    with pytest.raises(StateRagError, match=message):
        read_text(tmp_path / "x.txt", "a list", (".txt",), "--list")


def test_names_are_listed_with_commas_or_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("# mine\nA\n\n B \nA\n")
    assert listed_names(str(path), "--perturbations") == ["A", "B"]
    assert listed_names("A, B,,A", "--perturbations") == ["A", "B"]
    with pytest.raises(StateRagError, match="--perturbations , names none"):
        listed_names(",", "--perturbations")
    path.write_text("# mine\n\n # of today\n")
    for given in (listed_names, names_in):
        with pytest.raises(StateRagError, match=r"--perturbations .*names.txt: no name in it; write one a line"):
            given(str(path), "--perturbations")
    with pytest.raises(StateRagError, match="nams.txt"):
        listed_names(str(tmp_path / "nams.txt"), "--perturbations")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfKRAS\r\nNA\r\n")
    assert read_text(tmp_path / "names.txt", "names").split() == ["KRAS", "NA"]
    assert listed_names(str(tmp_path / "names.txt"), "--names") == ["KRAS", "NA"]


def test_what_is_kept_is_a_copy_where_links_are_not_allowed(tmp_path, monkeypatch):
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    assert keep_other(tmp_path / "old", tmp_path / "new").read_text() == "old"
    assert keep_other(tmp_path / "none", tmp_path / "new") is None
    (tmp_path / "new").write_text("old")
    assert keep_other(tmp_path / "old", tmp_path / "new") is None
