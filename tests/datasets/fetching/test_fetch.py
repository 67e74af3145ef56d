"""Downloads against an HTTP server on this machine that misbehaves in every way that matters."""

import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from state_rag.datasets.fetching import fetch as fetching
from state_rag.datasets.fetching.downloads import Download, Transfer, known_downloads
from state_rag.datasets.fetching.fetch import fetch
from state_rag.embeddings.find import PUBLISHED_FILE, find_embeddings
from state_rag.errors import StateRagError

CONTENT = np.random.default_rng(0).bytes(500_000)
MEMBER = f"GenePT_emebdding_v2/{PUBLISHED_FILE}"
TABLE = b"names and numbers" * 40


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(is_head=True)

    def do_GET(self):
        self.answer(is_head=False)

    def answer(self, is_head):
        site = self.server.site
        if not is_head:
            site.ranges.append(self.headers.get("Range"))
        if site.status:
            self.send_error(site.status)
            return
        if is_head and not site.has_head:
            self.send_error(405)
            return
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("X-Linked-ETag", f'"{site.linked}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = site.content
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, site.tag)
        if asked and same and site.has_ranges:
            start = int(asked[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.kind:
            self.send_header("Content-Type", site.kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if is_head:
            return
        body = content[start:]
        if site.cuts:
            body = body[: site.cuts.pop(0)]
        self.wfile.write(body)


class Site:
    """What the server has and how it behaves."""

    def __init__(self):
        self.content, self.tag, self.linked, self.kind = CONTENT, '"one"', "", ""
        self.has_ranges = self.has_head = True
        self.status, self.cuts, self.ranges = 0, [], []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.site = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def entry(site, **changes):
    transfer = {
        "file": "screen.h5ad",
        "address": f"{site.address}/screen.h5ad",
        "size": len(CONTENT),
        "digest": digest_of(CONTENT),
    }
    transfer.update(changes)
    transfer = Transfer(**transfer)
    return {
        "screen": Download(
            "screen", "a screen", "MIT", "page", "{path}", transfer.file, transfer, None, transfer.size, transfer.digest
        )
    }


def call(site, folder, downloads=None, tries=2):
    known = entry(site) if downloads is None else downloads
    return fetch(next(iter(known)), folder, downloads=known, progress=False, tries=tries, wait=0)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_has_its_content_its_name_and_the_usual_mode_and_leaves_nothing_else(site, tmp_path):
    done = call(site, tmp_path / "new")
    assert done.is_new
    assert done.path == tmp_path / "new" / "screen.h5ad"
    assert done.path.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["screen.h5ad"]
    (tmp_path / "mine").write_bytes(b"")
    assert done.path.stat().st_mode == (tmp_path / "mine").stat().st_mode


def test_what_is_there_is_not_downloaded_again_and_needs_no_network(site, tmp_path):
    call(site, tmp_path)
    site.status = 500
    assert not call(site, tmp_path).is_new
    assert len(site.ranges) == 1


def test_a_cut_connection_is_taken_up_where_it_ended(site, tmp_path):
    site.cuts = [200_000]
    assert call(site, tmp_path).path.read_bytes() == CONTENT
    assert site.ranges[0] is None
    start = int(site.ranges[1].removeprefix("bytes=").rstrip("-"))
    assert 100_000 < start <= 200_000


def test_after_too_many_cuts_the_part_stays_under_another_name_and_the_next_call_goes_on(site, tmp_path):
    site.cuts = [200_000, 100_000]
    with pytest.raises(StateRagError, match=r"was cut 2 times .*of 500\.0 kB are kept in .*the same command goes on"):
        call(site, tmp_path)
    assert not (tmp_path / "screen.h5ad").exists()
    part = (tmp_path / "screen.h5ad.part").read_bytes()
    assert len(part) > 200_000
    assert CONTENT.startswith(part)
    assert call(site, tmp_path).path.read_bytes() == CONTENT
    assert site.ranges[-1] == f"bytes={len(part)}-"
    assert names(tmp_path) == ["screen.h5ad"]


def test_progress_lets_a_long_download_be_cut_more_often_than_there_are_tries(site, tmp_path, monkeypatch):
    monkeypatch.setattr("state_rag.datasets.fetching.transfer.WORTH_ANOTHER", 50_000)
    site.cuts = [130_000] * 3
    assert call(site, tmp_path).path.read_bytes() == CONTENT
    assert len(site.ranges) == 4


def test_a_server_without_ranges_sends_it_whole_again(site, tmp_path):
    site.has_ranges = False
    site.cuts = [200_000]
    assert call(site, tmp_path).path.read_bytes() == CONTENT


def test_two_versions_of_a_file_are_not_put_together(site, tmp_path):
    unknown = entry(site, size=None, digest=None)
    site.cuts = [200_000, 1]
    with pytest.raises(StateRagError, match="was cut"):
        call(site, tmp_path, unknown)
    site.content, site.tag = CONTENT[::-1], '"two"'
    assert call(site, tmp_path, unknown).path.read_bytes() == CONTENT[::-1]


def test_without_digest_and_version_a_part_is_not_trusted(site, tmp_path):
    site.tag = ""
    (tmp_path / "screen.h5ad.part").write_bytes(b"x" * 1000)
    assert call(site, tmp_path, entry(site, size=None, digest=None)).path.read_bytes() == CONTENT
    assert site.ranges == [None]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_part_that_has_all_bytes_or_more(site, tmp_path, extra):
    (tmp_path / "screen.h5ad.part").write_bytes(CONTENT + b"x" * extra)
    assert call(site, tmp_path).path.read_bytes() == CONTENT


def test_a_wrong_checksum_is_thrown_away_and_told(site, tmp_path):
    wrong = digest_of(b"other")
    with pytest.raises(StateRagError, match=rf"its digest is another \({wrong} is right\)"):
        call(site, tmp_path, entry(site, digest=wrong))
    assert names(tmp_path) == []


def test_md5_is_a_digest_too(site, tmp_path):
    good = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert call(site, tmp_path / "a", entry(site, digest=good)).is_new
    with pytest.raises(StateRagError, match="digest"):
        call(site, tmp_path / "b", entry(site, digest=good.replace(good[-1], "0" if good[-1] != "0" else "1")))


def test_a_damaged_part_is_noticed_and_the_next_call_begins_anew(site, tmp_path):
    (tmp_path / "screen.h5ad.part").write_bytes(b"x" * 1000)
    with pytest.raises(StateRagError, match="the same command mends"):
        call(site, tmp_path)
    assert call(site, tmp_path).path.read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_anything_is_written(site, tmp_path):
    site.content = CONTENT[:-1]
    with pytest.raises(StateRagError, match="has 499,999 bytes; 500,000 are expected"):
        call(site, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_the_page_of_a_login_costs_nothing_that_was_downloaded(site, tmp_path, size):
    known = entry(site, size=size)
    (tmp_path / "screen.h5ad.part").write_bytes(CONTENT[:300_000])
    site.content, site.kind, site.has_ranges = b"<html>Who are you?</html>", "text/html; charset=utf-8", False
    with pytest.raises(StateRagError, match="a web page is sent in place of the file"):
        call(site, tmp_path, known)
    site.content, site.kind, site.has_ranges = CONTENT, "", True
    assert call(site, tmp_path, known).path.read_bytes() == CONTENT
    assert site.ranges[-1] == "bytes=300000-"


def test_the_digest_that_hugging_face_announces_is_checked(site, tmp_path):
    moved = entry(site, address=f"{site.address}/moved/screen.h5ad", size=None, digest=None)
    site.linked = hashlib.sha256(CONTENT).hexdigest()
    assert call(site, tmp_path / "a", moved).path.read_bytes() == CONTENT
    site.content = CONTENT[::-1]
    with pytest.raises(StateRagError, match="its digest is another"):
        call(site, tmp_path / "b", moved)


def test_a_server_that_knows_no_head_is_no_obstacle(site, tmp_path):
    site.has_head = False
    assert call(site, tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "said"), [(404, "no longer there"), (403, "with a browser"), (503, "later")])
def test_what_the_server_refuses_is_told(site, tmp_path, status, said):
    site.status = status
    with pytest.raises(StateRagError, match=f"answers {status} .*{said}"):
        call(site, tmp_path)
    assert names(tmp_path) == []


def test_offline_is_said_with_what_to_do(site, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/screen.h5ad"
    with pytest.raises(
        StateRagError, match=r"cannot be reached .connection refused.*put it at .*screen\.h5ad and run the same.*--from"
    ):
        call(site, tmp_path, entry(site, address=nobody))
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_full_disk_is_noticed_before_the_download(site, tmp_path, monkeypatch, size):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(StateRagError, match=r"has 400\.0 kB of free space; 500\.0 kB are needed.*--to"):
        call(site, tmp_path, entry(site, size=size, digest=None))
    assert site.ranges == []


def test_a_part_needs_no_space_again(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 400_000)
    (tmp_path / "screen.h5ad.part").write_bytes(CONTENT[:200_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert call(site, tmp_path).path.read_bytes() == CONTENT


def test_another_file_of_that_name_is_left_alone(site, tmp_path):
    (tmp_path / "screen.h5ad").write_bytes(b"mine")
    with pytest.raises(StateRagError, match=r"has 4 bytes, not 500,000: it is not the file .* Move it away"):
        call(site, tmp_path)
    (tmp_path / "screen.h5ad").write_bytes(b"x" * len(CONTENT))
    with pytest.raises(StateRagError, match="has the sha256"):
        call(site, tmp_path)
    assert site.ranges == []


def test_one_process_at_a_time(site, tmp_path):
    with (
        FileLock(tmp_path / ".screen.h5ad.lock"),
        pytest.raises(StateRagError, match=r"another process downloads screen\.h5ad"),
    ):
        call(site, tmp_path)


def test_a_mirror_has_the_files_by_their_names(site, tmp_path):
    known = entry(site, address="http://nowhere.invalid/x")
    done = fetch("screen", tmp_path, mirror=f"{site.address}/", downloads=known, progress=False)
    assert done.path.read_bytes() == CONTENT
    with pytest.raises(StateRagError, match="begins with https://"):
        fetch("screen", tmp_path / "b", mirror="/a/folder", downloads=known)


def test_an_unknown_name_is_answered_by_all_names(tmp_path):
    with pytest.raises(StateRagError, match=r"no download genpt; close spellings: genpt -> genept.*replogle-nadig"):
        fetch("genpt", tmp_path)


def test_what_cannot_be_written_to_is_refused_before_the_download(site, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateRagError, match="--to .*is a file, not a folder"):
        call(site, tmp_path / "file")


def pack(*members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def archived(site, content=None, **changes):
    site.content = pack((MEMBER, TABLE), ("other.json", b"{}")) if content is None else content
    transfer = Transfer("archive.zip", f"{site.address}/archive.zip", len(site.content), digest_of(site.content))
    known = {"member": MEMBER, "size": len(TABLE), "digest": digest_of(TABLE)}
    known.update(changes)
    return {"genept": Download("genept", "table", "CC BY 4.0", "page", "{path}", MEMBER, transfer, **known)}


def test_a_file_is_taken_out_of_its_archive_and_found_by_the_commands(site, tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STATE_RAG_GENEPT", raising=False)
    monkeypatch.chdir(tmp_path)
    done = call(site, None, archived(site))
    assert done.path == tmp_path / "cache" / MEMBER
    assert done.path.read_bytes() == TABLE
    assert find_embeddings(None) == done.path
    assert find_embeddings(None, {"STATE_RAG_CACHE": str(tmp_path / "cache")}) == done.path
    assert names(tmp_path / "cache") == [MEMBER, "archive.zip"]


def test_an_archive_that_is_there_is_not_downloaded_for_another_file_in_it(site, tmp_path):
    known = archived(site)
    call(site, tmp_path, known)
    (tmp_path / MEMBER).unlink()
    assert call(site, tmp_path, known).is_new
    assert len(site.ranges) == 1


def test_names_in_an_archive_are_no_paths_here(site, tmp_path):
    evil = pack((f"../../{MEMBER}", b"evil"), ("/etc/evil", b"evil"), (MEMBER, TABLE))
    call(site, tmp_path / "a" / "cache", archived(site, evil))
    assert names(tmp_path) == [f"a/cache/{MEMBER}", "a/cache/archive.zip"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pack(("readme", b"x")), "has no .*It holds readme"),
        (pack((MEMBER, b"\0" * 10**7)), "has 10,000,000 bytes; 680 are expected"),
        (pack((MEMBER, TABLE[::-1])), "has the sha256"),
        (b"no archive at all", "cannot be read"),
    ],
)
def test_an_archive_that_is_another_one_leaves_no_file(site, tmp_path, content, said):
    with pytest.raises(StateRagError, match=said):
        call(site, tmp_path, archived(site, content))
    assert names(tmp_path) == ["archive.zip"]


def test_every_entry_of_the_registry_is_complete():
    known = known_downloads()
    assert {"replogle-nadig", "genept", "go-bp", "reactome", "hgnc"} <= set(known)
    for download in known.values():
        assert download.transfer.address.startswith("https://")
        assert download.page.startswith("https://")
        assert "{path}" in download.use
        assert not os.path.isabs(download.file)
        assert ".." not in download.file
    genept = known["genept"]
    assert genept.transfer.size == 574_395_233
    assert genept.size == 460_797_248
    assert genept.file == MEMBER


@pytest.mark.parametrize(("name", "copy"), [("go-bp", "go_bp_2021.gmt.gz"), ("reactome", "reactome.gmt.gz")])
def test_digests_of_gene_sets_are_those_of_the_files_that_were_tried(name, copy):
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / copy
    if not path.is_file():
        pytest.skip("needs ../shared/data")
    content = gzip.decompress(path.read_bytes())
    download = known_downloads()[name]
    assert (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}") == (download.size, download.digest)


def test_the_command_shows_licence_place_and_use(site, tmp_path, monkeypatch, capsys):
    from tests.datasets.test_commands import call as run

    known = archived(site)
    monkeypatch.setattr("state_rag.datasets.fetching.downloads.known_downloads", lambda: known)
    monkeypatch.setattr(fetching, "known_downloads", lambda: known)
    run("data", "fetch", "genept", "--to", tmp_path / "my data", "--quiet")
    printed = capsys.readouterr().out
    assert re.search(r"licence +CC BY 4\.0", printed)
    assert f"fetched  {tmp_path / 'my data' / MEMBER}" in printed
    assert f"use it   '{tmp_path / 'my data' / MEMBER}'" in printed
    run("data", "fetch", "genept", "--to", tmp_path / "my data")
    assert "is here" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--list",)])
def test_the_list_has_names_sizes_and_licences(capsys, words):
    from tests.datasets.test_commands import call as run

    run("data", "fetch", *words)
    printed = capsys.readouterr().out
    for part in ("replogle-nadig", "genept", "574.4 MB", "CC BY 4.0", "licence not known here"):
        assert part in printed
