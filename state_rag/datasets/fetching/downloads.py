"""What can be downloaded: an entry a file, read from `datasets/checksums.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from state_rag.errors import StateRagError
from state_rag.names import suggest

UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Transfer:
    """What comes over the network: the file itself, or the archive that it is in.

    Attributes
    ----------
    file
        Its name in the folder of downloads.
    address
        Where it is.
    size
        Bytes; None where nobody measured them.
    digest
        Algorithm, colon and hexadecimal digest; None where nobody computed one.
    """

    file: str
    address: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Download:
    """A file that can be downloaded.

    Attributes
    ----------
    name
        What it is asked for by.
    about
        What it is.
    licence
        Its licence; empty where it is not known here.
    page
        The page that describes it.
    use
        What takes it, ``{path}`` in place of the file.
    file
        Its path within the folder of downloads.
    transfer
        What comes over the network.
    member
        Its name in the archive; None where no archive comes.
    size, digest
        As in `Transfer`, of the file.
    """

    name: str
    about: str
    licence: str
    page: str
    use: str
    file: str
    transfer: Transfer
    member: str | None = None
    size: int | None = None
    digest: str | None = None


def registry_path() -> Path:
    """Return the file of entries: inside an installed package, beside it in a checkout."""
    name, here = "checksums.toml", Path(__file__).resolve()
    packaged = here.with_name(name)
    return packaged if packaged.is_file() else here.parents[3] / "datasets" / name


def known_downloads(path: Path | None = None) -> dict[str, Download]:
    """Return what can be downloaded, by name.

    Parameters
    ----------
    path
        The file of entries; the package's own if None.

    Examples
    --------
    >>> genept = known_downloads()["genept"]
    >>> genept.licence, genept.file.rpartition("/")[2]
    ('CC BY 4.0', 'GenePT_gene_embedding_ada_text.pickle')
    """
    with open(path or registry_path(), "rb") as stream:
        entries = tomllib.load(stream)
    return {
        entry["name"]: _download(file, entry, entries[entry.get("inside", file)])
        for file, entry in entries.items()
        if "name" in entry
    }


def asked_for(name: str, known: Mapping[str, Download]) -> Download:
    """Return the download of a name.

    Raises
    ------
    StateRagError
        If there is none, with close spellings and all names.
    """
    if name in known:
        return known[name]
    raise StateRagError(
        f"there is no download {name}{suggest([name], known)}. Downloads: {', '.join(sorted(known))}. "
        "`state-rag data fetch --list` says what they are."
    )


def size_in_words(size: int | None) -> str:
    """Return a number of bytes as people say it.

    Examples
    --------
    >>> size_in_words(574395233), size_in_words(900), size_in_words(None)
    ('574.4 MB', '900 bytes', 'unknown')
    """
    if size is None:
        return "unknown"
    amount, unit = float(size), 0
    while amount >= 999.95 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {UNITS[unit]}" if unit else f"{size} {UNITS[0]}"


def _download(file: str, entry: Mapping[str, Any], source: Mapping[str, Any]) -> Download:
    """Return one entry; `source` is that of its archive, or its own."""
    transferred = entry.get("inside", file)
    return Download(
        name=entry["name"],
        about=entry["about"],
        licence=entry.get("licence", ""),
        page=source["url"],
        use=entry["use"],
        file=file,
        transfer=Transfer(transferred, source["download"], source.get("bytes"), _digest(source)),
        member=entry.get("member", file) if "inside" in entry else None,
        size=entry.get("bytes"),
        digest=_digest(entry),
    )


def _digest(entry: Mapping[str, Any]) -> str | None:
    return next((f"{kind}:{entry[kind]}" for kind in ("sha256", "md5") if kind in entry), None)
