"""Files that a user names: what is there in place of them, and writing so that no name ever holds half a file."""

import filecmp
import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from state_rag.errors import StateRagError
from state_rag.names import listing, suggest

logger = logging.getLogger(__name__)

PIECE, PLACES = 1 << 20, 10
"""Bytes that `sample_digest` reads at each place of a file, and the number of places, the two ends included."""


def existing_file(
    path: str | os.PathLike[str], wanted: str, suffixes: Sequence[str] = (), option: str = "", remedy: str = ""
) -> Path:
    """Return the path of a file that must be there and readable.

    Parameters
    ----------
    path
        What the user named.
    wanted
        What is expected there, with its article, such as ``an h5ad file``.
    suffixes
        Endings of such files, for what a folder in their place holds and for close spellings.
    option
        What the user named it with, such as ``--toml``.
    remedy
        A sentence for a file that is missing.

    Raises
    ------
    StateRagError
        If there is a folder (whose fitting files are named), nothing (with close spellings), an empty file, or one that
        may not be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = Path(folder, "a.toml").write_text("x = 1")
    >>> try:
    ...     existing_file(folder, "a split file", [".toml"])
    ... except StateRagError as error:
    ...     print(str(error).replace(folder, "DIR"))
    DIR is a folder; expected a split file (.toml). It holds a.toml.
    """
    place = Path(path)
    named = f"{option} {path}".lstrip()
    kind = _kind(wanted, suffixes)
    try:
        if place.is_dir():
            raise StateRagError(f"{named} is a folder; expected {kind}. It holds {_fitting(place, suffixes)}.")
        if not place.is_file():
            close = close_to_missing(place, suffixes)
            remedy = remedy or ("" if place.is_absolute() or close else f" Looked for from {Path.cwd()}.")
            raise StateRagError(f"{named}: no such file; expected {kind}{close}. {remedy.strip()}".rstrip())
        if place.stat().st_size == 0:
            raise StateRagError(f"{named}: the file is empty; expected {kind}. Download or write it again.")
        with open(place, "rb"):
            pass
    except OSError as error:
        raise StateRagError(f"{named} cannot be read: {reason(error)}.") from error
    return place


def close_to_missing(place: Path, suffixes: Sequence[str] = (), *, folders: bool = False) -> str:
    """Return what to say of a path where there is nothing: names like it in the same place, or that this lacks too.

    Parameters
    ----------
    place
        The path.
    suffixes
        Endings that a file must have to be named.
    folders
        Whether folders are named, instead of files.

    Returns
    -------
    str
        `; close spellings: A -> B`, `; there is no folder DIR either`, or nothing.
    """
    try:
        if not place.parent.is_dir():
            upper = suggest([place.parent.name], _beside(place.parent, (), folders=True))
            return f"; there is no folder {place.parent} either{upper}"
        return suggest([place.name], _beside(place, suffixes, folders=folders))
    except OSError:
        return ""


def _beside(place: Path, suffixes: Sequence[str], *, folders: bool) -> list[str]:
    """Return names in the folder of a path, sorted: of folders, or of all that end as wanted."""
    if not place.parent.is_dir():
        return []
    return sorted(
        other.name
        for other in place.parent.iterdir()
        if (other.is_dir() if folders else not suffixes or other.name.lower().endswith(tuple(suffixes)))
    )


def read_text(
    path: str | os.PathLike[str], wanted: str, suffixes: Sequence[str] = (), option: str = "", remedy: str = ""
) -> str:
    """Return the text of a file that must be there; arguments and refusals are those of `existing_file`.

    Raises
    ------
    StateRagError
        If it is not there, or no text in UTF-8.
    """
    place = existing_file(path, wanted, suffixes, option, remedy)
    try:
        return place.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        said = f"{option} {path}".lstrip()
        raise StateRagError(f"{said} is no text file; expected {_kind(wanted, suffixes)}.") from error
    except OSError as error:
        raise StateRagError(f"{f'{option} {path}'.lstrip()} cannot be read: {reason(error)}.") from error


def listed_names(given: str, option: str) -> list[str]:
    """Return the names that an option gives: with commas between, or one on a line of a text file.

    Raises
    ------
    StateRagError
        If it looks like a file and is none, the file is no text, or there is no name.
    """
    if Path(given).is_file() or given.endswith((".txt", ".csv")):
        return names_in(Path(given), option, (".txt", ".csv"))
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise StateRagError(f"{option} {given} names none. Give names with commas between, or a file of them.")
    return list(dict.fromkeys(names))


def names_in(path: str | os.PathLike[str], option: str, suffixes: Sequence[str] = ()) -> list[str]:
    """Return the names of a text file, one a line, each once; lines that are empty or begin with # are left out.

    Raises
    ------
    StateRagError
        If there is no such file, it is no text, or there is no name in it.
    """
    lines = read_text(path, "a list of names, one on a line", suffixes, option).splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise StateRagError(f"{option} {path}: no name in it; write one a line.")
    return list(dict.fromkeys(names))


@contextmanager
def damage_told(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Turn what a reader raises for a damaged file that a command wrote into an error that names it.

    Parameters
    ----------
    path
        The file that is read inside.
    remedy
        What to do about it, a sentence.

    Raises
    ------
    StateRagError
        If the reader fails.

    Examples
    --------
    >>> import json
    >>> try:
    ...     with damage_told("summary.json", "Evaluate again."):
    ...         json.loads("{")["notes"]
    ... except StateRagError as error:
    ...     print(str(error).partition(" (")[0])
    summary.json cannot be read: it is damaged or incomplete
    """
    try:
        yield
    except StateRagError:
        raise
    except UnicodeDecodeError as error:
        raise StateRagError(f"{path} cannot be read: it is damaged, and no text. {remedy}") from error
    except OSError as error:
        raise StateRagError(f"{path} cannot be read: {reason(error)}. {remedy}") from error
    except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        said = "" if "pickle" in said else f" ({said})"
        raise StateRagError(f"{path} cannot be read: it is damaged or incomplete{said}. {remedy}") from error


def _kind(wanted: str, suffixes: Sequence[str]) -> str:
    """Return what is wanted, with its endings where they are few."""
    return f"{wanted} ({', '.join(suffixes)})" if 0 < len(suffixes) <= 4 else wanted


def _fitting(folder: Path, suffixes: Sequence[str]) -> str:
    """Say which files of a folder fit, or what is there instead."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    fitting = [name for name in names if name.lower().endswith(tuple(suffixes))] if suffixes else names
    if fitting:
        return listing(fitting)
    return f"none of these, but {listing(names)}" if names else "nothing"


def reason(error: OSError) -> str:
    """Return what stands in the way, and where, without error numbers."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is a file, not a folder"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename} is a folder, not a file"
    said = (error.strerror or str(error)).lower() if error.errno else str(error)
    return f"{said}{f': {error.filename}' if error.filename else ''}"


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
        raise StateRagError(f"{final} cannot be written: {reason(error)}. Choose another place.") from error
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def keep_other(path: Path, new: Path) -> Path | None:
    """Keep a file that says something else than what takes its place, with `.before` at the end of its name.

    Parameters
    ----------
    path
        The file; there may be none.
    new
        What will be there.

    Returns
    -------
    pathlib.Path or None
        What was kept, which is said too; None where there was nothing to keep.
    """
    if not path.is_file() or filecmp.cmp(path, new, shallow=False):
        return None
    kept = path.with_name(f"{path.name}.before")
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)  # no second copy of what may be large
    except OSError:
        shutil.copyfile(path, kept)
    logger.warning("%s said something else; what it said is in %s now.", path, kept)
    return kept


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
            f"{option} {folder}: nothing can be written there ({reason(error)}). Choose another folder."
        ) from error
    return Path(folder)


def _temporary_file(folder: Path, prefix: str, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
    os.close(handle)
    return Path(name)


def _umask() -> int:
    """Return the process's file mode mask (reading it needs setting it for a moment)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def data_size(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a file, or of all files of a folder (a zarr store)."""
    return sum(size for _, size, _ in files_of(Path(path)))


def data_time(path: str | os.PathLike[str]) -> int:
    """Return when a file, or the last of a folder's, was changed, in nanoseconds."""
    return max((time for _, _, time in files_of(Path(path))), default=0)


def files_of(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change (ns) of a file, or of all files of a folder, by their names in it."""
    if not path.is_dir():
        about = path.stat()
        return [("", about.st_size, about.st_mtime_ns)]
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            place = Path(folder, name)
            about = place.stat()
            found.append((place.relative_to(path).as_posix(), about.st_size, about.st_mtime_ns))
    return sorted(found)


def sample_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of a file's size and of samples of its content, as lowercase hex.

    Read are 1 MiB at the beginning, at the end and at eight places between, or all of a file of at most 10 MiB: a
    screen has tens of gigabytes. A change elsewhere that keeps the size goes unnoticed; a copy or a move is no change.
    Of a folder (a zarr store) it is a digest of the names and sizes of its files, and of its ten largest files alike.
    """
    if Path(path).is_dir():
        files = files_of(Path(path))
        largest = sorted(files, key=lambda one: -one[1])[:PLACES]
        told = [*((name, size) for name, size, _ in files), *(sample_digest(Path(path, one[0])) for one in largest)]
        return hashlib.sha256(repr(told).encode()).hexdigest()
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
