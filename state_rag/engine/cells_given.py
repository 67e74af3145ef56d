"""Cells without a split, given to a fit as files, folders or patterns: a split of which all cells train."""

import os
from collections.abc import Sequence
from pathlib import Path

import toml

from state_rag.cell_files import SUFFIXES, is_store
from state_rag.datasets.data_files import find_data_files, is_pattern
from state_rag.datasets.effects_tables import LABELS, refuse_other_names
from state_rag.errors import StateRagError
from state_rag.files import existing_file
from state_rag.h5ad import obs_columns, open_h5ad

Given = str | os.PathLike[str]


def kind_of(sources: Sequence[Given]) -> str:
    """Return what sources are: a `split`, a `table` of effects, or `cells`.

    Parameters
    ----------
    sources
        Files, folders or patterns; one at least.

    Raises
    ------
    StateRagError
        If there is nothing, or a split or a table stands beside others.
    """
    kinds = [_kind_of(one) for one in sources]
    for source, kind in zip(sources, kinds, strict=True):
        if kind != "cells" and len(kinds) > 1:
            what = "a split" if kind == "split" else "a table of effects"
            raise StateRagError(f"{source} is {what}, and {len(kinds) - 1} more are given; give it alone.")
    return kinds[0]


def _kind_of(source: Given) -> str:
    path = Path(source)
    if path.is_dir() or (is_pattern(source) and not path.exists()):
        return "cells"
    existing_file(path, "a split, a table of effects or cells", (".toml", *SUFFIXES))
    if path.suffix == ".toml":
        return "split"
    with open_h5ad(path) as file:
        if set(LABELS) <= set(obs_columns(file)):
            return "table"
        refuse_other_names(file)
        return "cells"


def write_split_of(sources: Sequence[Given], path: Path) -> Path:
    """Write a split file, of a data set for each source, all of whose cells train; return it.

    Raises
    ------
    StateRagError
        If there are no cells at one of the places.
    """
    datasets = {}
    for number, source in enumerate(sources, 1):
        place = os.path.abspath(source)
        for file in find_data_files(place, str(source)):
            if not is_store(file):
                existing_file(file, "an h5ad file", SUFFIXES)
        datasets["cells" if number == 1 else f"cells_{number}"] = place
    tables = {"datasets": datasets, "training": dict.fromkeys(datasets, "train")}
    path.write_text(toml.dumps(tables), encoding="utf-8")
    return path
