"""Where the cells of a data set lie: one file, a folder of them, or those that match a pattern."""

import glob
import logging
import os
import re
from pathlib import Path

from state_rag.cell_files import SUFFIX, SUFFIXES, is_store
from state_rag.errors import StateRagError
from state_rag.files import close_to_missing
from state_rag.names import listing

logger = logging.getLogger(__name__)


def find_data_files(location: str, where: str) -> list[Path]:
    """Return the files of a data set: one file, the `.h5` and `.h5ad` files of a folder, or matches of a pattern.

    Patterns may hold `*`, `?`, `[...]` and `{a,b}`. As upstream does it, relative locations start at the current
    folder, and of files with equal stems the last is taken. Zarr stores, which upstream does not read, are files too;
    of a folder they are taken where it holds no others.

    Raises
    ------
    StateRagError
        If nothing is found; `where` says whose location it is.
    """
    found: dict[str, Path] = {}
    if is_pattern(location):
        for pattern in _expand_braces(location):
            if pattern.endswith(SUFFIXES):
                found.update((Path(match).stem, Path(match)) for match in sorted(glob.glob(pattern)))
            else:
                found.update(_in_folder(pattern.rstrip("/")))
        if not found:
            raise StateRagError(
                f"{where}: no .h5ad file or .zarr store matches {location!r} (in {Path.cwd()}). Correct the pattern."
            )
        return list(found.values())
    path = Path(location)
    if path.is_file() or is_store(path):
        return [path]
    if not path.exists():
        hint = "" if path.is_absolute() else f" Relative paths start at the current folder, {Path.cwd()}."
        close = close_to_missing(path, (".h5ad", ".h5")) or close_to_missing(path, folders=True)
        raise StateRagError(f"{where}: no such file or folder: {location}{close}.{hint} Correct the path.")
    found = _in_folder(glob.escape(str(path)))
    if not found:
        raise StateRagError(
            f"{where}: the folder {location} holds no .h5 or .h5ad file and no .zarr store (it holds "
            f"{listing(sorted(os.listdir(path))) or 'nothing'}). Correct the path."
        )
    return list(found.values())


def is_pattern(location: str | os.PathLike[str]) -> bool:
    """Tell whether a location has what stands for other characters in a pattern, as `find_data_files` takes them."""
    return any(character in str(location) for character in "*?[]{}")


def _in_folder(pattern: str) -> dict[str, Path]:
    """Return the files of cells in the folders that match, by their stems."""
    stores: dict[str, Path]
    files, stores = (
        {Path(match).stem: Path(match) for suffix in suffixes for match in sorted(glob.glob(f"{pattern}/*{suffix}"))}
        for suffixes in ((".h5", ".h5ad"), (SUFFIX,))
    )
    if files and stores:
        logger.warning(
            "%s: only its h5ad files are taken; of its %d zarr stores name the pattern, such as %s.",
            *(pattern, len(stores), f"'{pattern}/*{SUFFIX}'"),
        )
    return files or stores


def _expand_braces(pattern: str) -> list[str]:
    """Return the patterns that `{a,b}` groups stand for."""
    group = re.search(r"\{([^}]+)\}", pattern)
    if group is None:
        return [pattern]
    head, tail = pattern[: group.start()], pattern[group.end() :]
    return [full for option in group[1].split(",") for full in _expand_braces(head + option.strip() + tail)]
