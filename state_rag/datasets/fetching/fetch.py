"""Download data sets and embeddings into the cache: whole and checked, or not there at all."""

import logging
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from state_rag.cache import cache_folder
from state_rag.datasets.fetching.downloads import Download, Transfer, asked_for, known_downloads, size_in_words
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, damage_told, writable_folder
from state_rag.names import listing

PIECE = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Attributes
    ----------
    path
        Where it lies.
    is_new
        Whether this call put it there.
    """

    path: Path
    is_new: bool


def fetch(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    mirror: str | None = None,
    downloads: Mapping[str, Download] | None = None,
    progress: bool = True,
    tries: int = 5,
    wait: float = 2.0,
) -> Fetched:
    """Download a file, check it, and unpack it if it comes in an archive.

    A download that was cut goes on where it ended, in this call or the next. No file has its final name before its size
    and digest are those expected. An archive is kept beside what was taken out of it.

    Parameters
    ----------
    name
        What to download, a key of `downloads`.
    to
        The folder; that of `STATE_RAG_CACHE`, or ``~/.cache/state-rag``, if None.
    mirror
        Address of a folder that has the files by their names, in place of the original addresses.
    downloads
        What there is; `known_downloads()` if None.
    progress
        Whether to show a progress bar.
    tries, wait
        How often a cut connection is taken up again in this call, and seconds between.

    Raises
    ------
    StateRagError
        If the name is unknown, the server cannot be reached or refuses, the disk has no space, size or digest are not
        those expected, or there is another file already.
    """
    wanted = asked_for(name, known_downloads() if downloads is None else downloads)
    folder = cache_folder() if to is None else Path(to).expanduser()
    final = folder / wanted.file
    if _is_there(final, wanted.size, wanted.digest):
        return Fetched(final, False)
    address = _address(wanted.transfer, mirror)
    writable_folder(folder, "STATE_RAG_CACHE" if to is None else "--to")
    with _alone(folder, wanted.transfer.file):
        received = _received(wanted, address, folder, progress=progress, tries=tries, wait=wait)
        if wanted.member is not None:
            _unpack(received, wanted, final)
    return Fetched(final, True)


@contextmanager
def _alone(folder: Path, file: str) -> Iterator[None]:
    """Hold the right to download a file to a folder, where its file system knows locks."""
    lock = FileLock(folder / f".{file}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StateRagError(f"another process downloads {file} to {folder}. Wait for it.") from error
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _address(transfer: Transfer, mirror: str | None) -> str:
    """Return where a file is, at its source or at a mirror."""
    if mirror is None:
        return transfer.address
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise StateRagError(f"--from {mirror} is no address; it begins with https:// or http://.")
    return f"{mirror.rstrip('/')}/{quote(transfer.file)}"


def _is_there(path: Path, size: int | None, digest: str | None) -> bool:
    """Return whether a file is there; refuse another one in its place."""
    if not path.exists():
        return False
    wrong = _difference(path, size, digest)
    if wrong:
        raise StateRagError(
            f"{path} {wrong}: it is not the file that was asked for. Move it away, or choose another folder with --to."
        )
    return True


def _difference(path: Path, size: int | None, digest: str | None) -> str:
    """Return what is wrong with a file; nothing where it is the one expected."""
    from pooch import file_hash

    if not path.is_file():
        return "is no file"
    if size is not None and path.stat().st_size != size:
        return f"has {path.stat().st_size:,} bytes, not {size:,}"
    if digest is None:
        return ""
    kind, _, expected = digest.partition(":")
    found = file_hash(str(path), alg=kind)
    return "" if found == expected else f"has the {kind} {found}, not {expected}"


def _received(wanted: Download, address: str, folder: Path, *, progress: bool, tries: int, wait: float) -> Path:
    """Return what comes over the network, downloaded unless it is there."""
    import pooch

    from state_rag.datasets.fetching.transfer import Resuming, announced

    transfer = wanted.transfer
    path = folder / transfer.file
    if _is_there(path, transfer.size, transfer.digest):
        return path
    size, digest = announced(address, path)
    digest = transfer.digest or digest
    receive = Resuming(
        folder / f"{transfer.file}.part",
        transfer.size,
        is_checked=digest is not None,
        progress=progress,
        tries=tries,
        wait=wait,
    )
    unpacked = wanted.size or 0 if wanted.member is not None else 0
    _check_space(folder, max((transfer.size or size or 0) - receive.here(), 0) + unpacked)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(address, known_hash=digest, fname=transfer.file, path=folder, downloader=receive)
    except ValueError as error:
        raise StateRagError(
            f"{address}: what came is not the file expected, its digest is another ({digest} is right). It was thrown "
            "away. It was damaged on the way, which the same command mends, or it was changed there."
        ) from error
    return path


def _check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StateRagError(
            f"{folder} has {size_in_words(free)} of free space; {size_in_words(needed)} are needed. Make room, or "
            "choose another folder with --to or STATE_RAG_CACHE."
        )


def _unpack(archive: Path, wanted: Download, final: Path) -> None:
    """Take one file out of an archive, by its name; names within the archive are no paths here."""
    with damage_told(archive, "Remove it and fetch it again."), zipfile.ZipFile(archive) as packed:
        if wanted.member not in packed.namelist():
            raise StateRagError(f"{archive} has no {wanted.member}. It holds {listing(sorted(packed.namelist()))}.")
        entry = packed.getinfo(wanted.member)
        if wanted.size is not None and entry.file_size != wanted.size:
            raise StateRagError(
                f"{archive}: {wanted.member} has {entry.file_size:,} bytes; {wanted.size:,} are expected. The archive "
                "is another one; remove it and fetch it again."
            )
        final.parent.mkdir(parents=True, exist_ok=True)
        _check_space(final.parent, entry.file_size)
        with atomic_path(final) as temporary:
            with packed.open(entry) as source, open(temporary, "wb") as stream:
                shutil.copyfileobj(source, stream, PIECE)
            wrong = _difference(temporary, wanted.size, wanted.digest)
            if wrong:
                raise StateRagError(f"{archive}: {wanted.member} {wrong}. Remove the archive and fetch it again.")
