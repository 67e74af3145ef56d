"""Write files so that a final name never holds half a file."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from state_rag.errors import StateRagError

PIECE, PLACES = 1 << 20, 10
"""Bytes that `sample_digest` reads at each place of a file, and the number of places, the two ends included."""


@contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `final`, renamed to `final` on success and removed on failure.

    Parameters
    ----------
    final
        Where the finished file shall lie. Missing parent folders are made. The temporary name keeps the
        suffix of `final`, since several writers choose their format by it.

    Yields
    ------
    pathlib.Path
        The name to write to.

    Raises
    ------
    StateRagError
        If nothing can be written there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    final = Path(final)
    if final.is_dir():
        raise StateRagError(f"{final} cannot be written: it is a folder. Name a file.")
    try:
        temporary = _temporary_file(final.parent, prefix=f".{final.stem}.", suffix=final.suffix)
    except OSError as error:
        raise StateRagError(f"{final} cannot be written: {_reason(error)}. Choose another place.") from error
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def writable_folder(folder: str | os.PathLike[str], option: str) -> Path:
    """Return a folder that results can be written to, made if it is missing.

    Called before long work, so that a mistaken place costs no time.

    Parameters
    ----------
    folder
        Where results shall lie.
    option
        What the user chose it with, such as ``-o``, for the message.

    Raises
    ------
    StateRagError
        If it cannot be made or written to.
    """
    try:
        _temporary_file(Path(folder), prefix=".try.", suffix="").unlink()
    except OSError as error:
        raise StateRagError(
            f"{option} {folder}: nothing can be written there ({_reason(error)}). Choose another folder."
        ) from error
    return Path(folder)


def _temporary_file(folder: Path, prefix: str, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
    os.close(handle)
    return Path(name)


def _reason(error: OSError) -> str:
    """Return what stands in the way, and where."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is a file, not a folder"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _umask() -> int:
    """Return the process's file mode mask (reading it needs setting it for a moment)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sample_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of a file's size and of samples of its content, as lowercase hex.

    Read are 1 MiB at the beginning, at the end and at eight places between, or all of a file of at most 10 MiB: a
    screen has tens of gigabytes. A change elsewhere that keeps the size goes unnoticed; a copy or a move is no change.
    """
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        if size <= PIECE * PLACES:
            digest.update(stream.read())
        else:
            for place in range(PLACES):
                stream.seek((size - PIECE) * place // (PLACES - 1))
                digest.update(stream.read(PIECE))
    return digest.hexdigest()


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file as lowercase hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def print_or_write(text: str, path: Path | None) -> None:
    """Print a command's result, or write it where the user asked for it and say so."""
    if path is None:
        print(text, end="")
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Written: {path}")
