"""Find the file of perturbation embeddings that a run uses."""

import os
from collections.abc import Mapping
from pathlib import Path

from state_rag.cache import ENVIRONMENT as CACHE
from state_rag.cache import USUAL, cache_folder
from state_rag.errors import StateRagError
from state_rag.files import close_to_missing, existing_file
from state_rag.names import listing
from state_rag.settings import TEXT

ENVIRONMENT = "STATE_RAG_GENEPT"
PUBLISHED_FILE = "GenePT_gene_embedding_ada_text.pickle"
DEFAULT_PATHS = (
    f"GenePT_emebdding_v2/{PUBLISHED_FILE}",
    f"genept/{PUBLISHED_FILE}",
    f"{USUAL}/GenePT_emebdding_v2/{PUBLISHED_FILE}",
    f"{USUAL}/{PUBLISHED_FILE}",
)
WAYS = f"""Ways to get embeddings:
  1. GenePT, the paper's choice: state-rag data fetch genept (574 MB, CC BY 4.0) puts it where it is found; or
     download GenePT_emebdding_v2.zip from https://zenodo.org/records/10833191 and unpack it here, or point
     training.genept_path or the environment variable {ENVIRONMENT} at {PUBLISHED_FILE};
  2. offline, from gene summaries: state-rag embeddings build SUMMARIES.json -o OUT.safetensors (JSON: name -> text);
  3. your own vectors: .csv, .tsv, .parquet, .npz, .npy, .pt, .safetensors or .pickle, one vector a perturbation."""


def find_embeddings(path: str | os.PathLike[str] | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the embedding file to use.

    Parameters
    ----------
    path
        What the user gave (`training.genept_path`, `--genept-path`), or None. ``~`` is understood, and a folder that
        holds GenePT's published file stands for that file.
    environ
        Where `STATE_RAG_GENEPT` is looked up if `path` is None or empty. If neither says, the published file is looked
        for in `DEFAULT_PATHS`, relative to the current folder, and in the folder that `STATE_RAG_CACHE` names.

    Raises
    ------
    StateRagError
        The file named does not exist or is empty (no other place is tried then), or none was named and none is at a
        default place; the message lists the ways of getting embeddings.
    """
    if path is not None and str(path):
        return _existing(str(path), "the embedding file that was asked for")
    named = environ.get(ENVIRONMENT, "")
    if named:
        return _existing(named, f"the embedding file that {ENVIRONMENT} names")
    places: tuple[str, ...] = DEFAULT_PATHS
    if environ.get(CACHE):
        kept = cache_folder(environ)
        places += (str(kept / "GenePT_emebdding_v2" / PUBLISHED_FILE), str(kept / PUBLISHED_FILE))
    for place in places:
        candidate = _expanded(place, environ)
        if candidate.is_file():
            return candidate
    raise StateRagError(
        f"no embeddings: no path was given, {ENVIRONMENT} is not set, and there is no file at "
        f"{', '.join(places)} (from {Path.cwd()}).\n{WAYS}"
    )


def find_sources(sources: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the file of each source of a run.

    Parameters
    ----------
    sources
        Source -> file as the user gave it, None for embeddings at a usual place (`RagSettings.sources`).

    Raises
    ------
    StateRagError
        If one does not exist.
    """
    return {
        name: find_embeddings(place)
        if place is None or name == TEXT
        else existing_file(Path(place).expanduser(), f"the file of source {name}")
        for name, place in sources.items()
    }


def _expanded(place: str, environ: Mapping[str, str]) -> Path:
    if place.startswith("~/") and "HOME" in environ:
        return Path(environ["HOME"], place[2:])
    return Path(place).expanduser()


def _existing(named: str, what: str) -> Path:
    path = Path(named).expanduser()
    if path.is_dir():
        inside = path / PUBLISHED_FILE
        if not inside.is_file():
            raise StateRagError(
                f"{path}: {what} is a folder without {PUBLISHED_FILE}; name the file itself. It holds "
                f"{listing(sorted(entry.name for entry in path.iterdir())) or 'nothing'}."
            )
        return inside
    if not path.is_file():
        close = close_to_missing(path)
        ways = "" if "close spellings" in close else f"\n{WAYS}"
        raise StateRagError(f"{path}: {what} does not exist (looked from {Path.cwd()}){close}.{ways}")
    return existing_file(path, what)
