"""Where downloads lie, and fits that several evaluations share: the one folder that may be removed at any time."""

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ENVIRONMENT = "STATE_RAG_CACHE"
USUAL = "~/.cache/state-rag"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that `STATE_RAG_CACHE` names, or the usual one; it need not exist.

    Examples
    --------
    >>> print(cache_folder({"STATE_RAG_CACHE": "/scratch/kept"}), cache_folder({"HOME": "/home/ada"}))
    /scratch/kept /home/ada/.cache/state-rag
    """
    named = environ.get(ENVIRONMENT) or USUAL
    if named.startswith("~/") and "HOME" in environ:
        return Path(environ["HOME"], named[2:])
    return Path(named).expanduser()


@cache
def program_digest(*rooms: Path) -> str:
    """Return a digest of Python sources, which tells what this program made from what another one did.

    Versions alone do not, between releases.

    Parameters
    ----------
    rooms
        Modules, or folders of them with all below.
    """
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted(room.rglob("*.py")) if room.is_dir() else [room]:
            digest.update(path.read_bytes())
    return digest.hexdigest()
