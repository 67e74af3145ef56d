"""Which folder a user means by a run."""

import logging
import os
from pathlib import Path

from state_rag.errors import StateRagError
from state_rag.files import close_to_missing

logger = logging.getLogger(__name__)
CONFIG = "config.yaml"
"""The file that makes a folder a run's."""
SPLIT = "split.toml"
"""The split that a run was trained on, with absolute locations of the data."""
PREDICTED, REAL = "adata_pred.h5ad", "adata_real.h5ad"
"""In a folder of predictions: predicted cells, and the cells that were measured."""
TRUST = "trust.csv"
"""In a folder of predictions: how far each condition's can be trusted."""
CHECKPOINTS = ("final.ckpt", "last.ckpt")
"""Below `checkpoints` in a run, what stands for it where none is named; the first that is there."""


def find_run_folder(place: str | os.PathLike[str], flag: str = "") -> Path:
    """Return the folder of a run: `place` itself, or the only run in a folder right below it.

    Parameters
    ----------
    place
        The folder that was given.
    flag
        The option that it was given with, for errors.

    Raises
    ------
    StateRagError
        If there is no run, or more than one.
    """
    place = Path(place)
    given = f"{flag} {place}".lstrip()
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else f"does not exist{close_to_missing(place, folders=True)}"
        raise StateRagError(f"{given} {what}. Give the folder that `state tx train` wrote (output_dir/name).")
    if (place / CONFIG).is_file():
        return place
    runs = sorted(path.parent for path in place.glob(f"*/{CONFIG}"))
    if not runs:
        raise StateRagError(
            f"{given} holds no run: neither it nor a folder in it has a {CONFIG}. Give the folder that "
            "`state tx train` wrote (output_dir/name)."
        )
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:10]) + (", ..." if len(runs) > 10 else "")
        raise StateRagError(f"{given} holds {len(runs)} runs ({names}). Name one of them.")
    logger.info("Took the run %s, the only one in %s.", runs[0], place)
    return runs[0]


def usual_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that stands for a run where none is named; the first of `CHECKPOINTS` where none is there.

    Examples
    --------
    >>> usual_checkpoint(Path("runs/none")).as_posix()
    'runs/none/checkpoints/final.ckpt'
    """
    places = [folder / "checkpoints" / name for name in CHECKPOINTS]
    return next((place for place in places if place.is_file()), places[0])


def split_file(folder: Path, configured: str | None) -> Path | None:
    """Return the split of a run: its own copy, or the configured file for a run of before there were copies.

    Where the data have moved and the configured file says where to, that one is returned.
    """
    own, named = folder / SPLIT, Path(configured) if configured else None
    if not own.is_file():
        return named
    if named is not None and named.is_file() and not _has_data(own) and _has_data(named):
        logger.info("The data are no longer where they were trained on; their places were taken from %s.", named)
        return named
    return own


def _has_data(split: Path) -> bool:
    """Whether something is at every location that a split file names."""
    import toml

    try:
        places = toml.loads(split.read_text(encoding="utf-8")).get("datasets", {}).values()
    except (OSError, ValueError):
        return False
    return all(os.path.exists(place) or any(character in place for character in "*?[{") for place in places)
