"""A file over HTTP that goes on where it was cut: the downloader that pooch is given."""

import os
import re
import time
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from state_rag.datasets.fetching.downloads import size_in_words
from state_rag.errors import StateRagError

PIECE = 1 << 16
"""Bytes that are read at once, and lost at most where a connection is cut."""
WORTH_ANOTHER = 1 << 20
"""Bytes of progress after which a cut counts as the first one."""
TIMEOUTS = (10.0, 60.0)
"""Seconds until a connection stands, and without a byte."""
CUT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def announced(address: str, place: Path) -> tuple[int | None, str | None]:
    """Return size and digest of a file as its server announces them; None each where it does not.

    Hugging Face sends the SHA-256 of large files, in `X-Linked-ETag`, with the answer that leads to the file.

    Parameters
    ----------
    address
        Where the file is.
    place
        Where it shall lie, for the message.

    Raises
    ------
    StateRagError
        If the server cannot be reached.
    """
    try:
        answer = requests.head(address, allow_redirects=True, timeout=TIMEOUTS, headers={"Accept-Encoding": "identity"})
    except requests.RequestException as error:
        raise _unreachable(address, error, place) from error
    if answer.status_code >= 400:  # some servers answer GET only, which then says what is wrong
        return None, None
    sizes = [part.headers.get("X-Linked-Size", "") for part in answer.history]
    sizes.append(answer.headers.get("Content-Length", ""))
    size = next((int(text) for text in sizes if text.isdigit() and int(text)), None)
    for part in (*answer.history, answer):
        found = re.fullmatch(r'"?([0-9a-f]{64})"?', part.headers.get("X-Linked-ETag", ""))
        if found:
            return size, f"sha256:{found[1]}"
    return size, None


class Resuming:
    """Download to a partial file, which stays when the connection is cut, and go on from there.

    Parameters
    ----------
    part
        The partial file. Beside it, ending in ``.of``, lies what the server calls this version of the file, so that no
        two versions are put together.
    size
        Bytes that the file has; None if not known.
    is_checked
        Whether a digest is known: what was put together wrongly is noticed then, and a server that names no version
        is trusted.
    progress
        Whether to show a progress bar, on standard error.
    tries
        Connections after which a cut is an error. After a mebibyte of progress they count anew.
    wait
        Seconds between two.
    """

    def __init__(
        self,
        part: Path,
        size: int | None,
        *,
        is_checked: bool,
        progress: bool = True,
        tries: int = 5,
        wait: float = 2.0,
    ) -> None:
        self.part, self.size, self.is_checked = part, size, is_checked
        self.progress, self.tries, self.wait = progress, tries, wait
        self.version = part.with_name(f"{part.name}.of")
        self.total = size

    def here(self) -> int:
        """Return the bytes of the partial file."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def forget(self) -> None:
        """Remove the partial file."""
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def __call__(self, url: str, output_file: Any, pooch: Any = None) -> None:
        """Download a file, as pooch's downloaders do.

        Raises
        ------
        StateRagError
            If the server refuses, cannot be reached or cuts the connection too often, or the file has another size.
        """
        left = self.tries
        while left:
            before = self.here()
            left -= 1
            try:
                if self._receive(url):
                    break
            except CUT as error:
                if self.here() - before >= WORTH_ANOTHER:
                    left = self.tries
                if not left:
                    raise self._cut(url, error) from error
                time.sleep(self.wait)
            except requests.RequestException as error:
                raise _unreachable(url, error, self.part.with_suffix("")) from error
        else:
            raise StateRagError(f"{url} changes while it is downloaded. Try again later.")
        if self.size is not None and self.here() != self.size:
            size = self.here()
            self.forget()
            self._check_size(size, url)
        os.replace(self.part, output_file)
        self.forget()

    def _receive(self, url: str) -> bool:
        """Write what is missing; return whether that was all (False: begin anew)."""
        known = self.version.read_text() if self.version.is_file() else ""
        if self.here() and not (known or self.is_checked):
            self.forget()
        start = self.here()
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if known:
                headers["If-Range"] = known
        with requests.get(url, stream=True, headers=headers, timeout=TIMEOUTS) as answer:
            first, total = _extent(answer)
            if answer.status_code == 416:  # nothing comes after what is here: it is whole, or not of this file
                if start and total == start:
                    return True
                self.forget()
                return False
            if answer.status_code >= 400:
                raise StateRagError(f"{url}: the server answers {answer.status_code} {answer.reason}.{_hint(answer)}")
            if answer.status_code == 206 and first != start:
                self.forget()
                return False
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise StateRagError(
                    f"{url}: a web page is sent in place of the file, such as that of a login or of a proxy. Open the "
                    "address in a browser to see what it says."
                )
            if total is not None:
                self._check_size(total, url)
                self.total = total
            self._write(answer, start if answer.status_code == 206 else 0)
        return True

    def _write(self, answer: requests.Response, start: int) -> None:
        tag = answer.headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        self.version.write_text(version)
        bar = tqdm(
            total=self.total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc="download",
            disable=not self.progress,
        )
        with open(self.part, "ab" if start else "wb") as stream, bar:
            for piece in answer.iter_content(PIECE):
                stream.write(piece)
                bar.update(len(piece))

    def _check_size(self, size: int, url: str) -> None:
        if self.size is not None and size != self.size:
            raise StateRagError(
                f"{url} has {size:,} bytes; {self.size:,} are expected. The file was changed there, or something else "
                "is sent in its place. Nothing of it was kept."
            )

    def _cut(self, url: str, error: Exception) -> StateRagError:
        if not self.here():
            return _unreachable(url, error, self.part.with_suffix(""))
        of = f" of {size_in_words(self.total)}" if self.total else ""
        return StateRagError(
            f"{url}: the connection was cut {self.tries} times ({_said(error)}). {size_in_words(self.here())}{of} are "
            f"kept in {self.part}; the same command goes on from there."
        )


def _extent(answer: requests.Response) -> tuple[int, int | None]:
    """Return the first byte that comes and the size of the whole file."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found:
        return int(found[1] or 0), int(found[2]) if found[2].isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() and answer.status_code == 200 else None


def _hint(answer: requests.Response) -> str:
    if answer.status_code in (401, 403):
        return " It asks who you are: download the file with a browser."
    if answer.status_code in (404, 410):
        return " The file is no longer there, or the mirror does not have it."
    return " Try again later."


def _unreachable(address: str, error: Exception, place: Path) -> StateRagError:
    return StateRagError(
        f"{address} cannot be reached ({_said(error)}). Without a network, download the file elsewhere, put it at "
        f"{place} and run the same command, or name a mirror with --from. Behind a proxy, set HTTPS_PROXY."
    )


def _said(error: BaseException) -> str:
    """Return the cause that a user can understand, from the innermost error that says one."""
    text = str(error)
    for sign, words in (
        ("resol", "its name is not known: no network, or no such server"),
        ("refused", "connection refused"),
        ("unreachable", "network unreachable"),
        ("imed out", "no answer in time"),
        ("IncompleteRead", "it ended early"),
        ("reset", "connection reset"),
        ("certificate", "its certificate is not trusted"),
    ):
        if sign in text:
            return words
    return type(error).__name__
