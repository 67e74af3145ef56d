"""One pass over the cells of many files: sums by line and perturbation, wherever and by whomever they are made.

A pass that was stopped goes on where it was, since the sums of each file are kept (`shards`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from state_rag.cell_files import n_cells
from state_rag.effects.aligned_rows import AlignedRows
from state_rag.effects.conditions import Columns
from state_rag.effects.group_totals import Group, GroupTotals
from state_rag.effects.shards import Shard, ShardSums, Wanted, cell_groups, kept_sums, shards_of, sum_shard, sums_folder
from state_rag.effects.sums_file import read_sums
from state_rag.effects.workers import Workers
from state_rag.errors import StateRagError
from state_rag.files import damage_told
from state_rag.h5ad import open_cells
from state_rag.progress import bar

logger = logging.getLogger(__name__)

Takes = Callable[[str, str, str], bool]
"""Whether a condition counts, by its line, its label and what the column of perturbations has."""


@dataclass(frozen=True)
class CellsOf:
    """A file of cells, and which of its conditions count."""

    path: Path
    takes: Takes = lambda line, label, name: True


def add_files(
    totals: GroupTotals,
    files: Sequence[CellsOf],
    columns: Columns,
    matrix: str,
    names: Sequence[str] | None = None,
    *,
    first: str = "the predictions",
    workers: Workers | None = None,
    progress: bool = True,
    check: Callable[[Path, int], object] | None = None,
) -> AlignedRows:
    """Add the cells of files to totals, in the order of the files.

    Parameters
    ----------
    totals
        By cell line and label.
    files
        h5ad files and zarr stores.
    columns
        Names in `obs`.
    matrix
        `X` or `obsm/NAME`, dense or CSR; it is read in blocks, and sparse rows stay sparse.
    names
        Genes, into whose order every file's are brought; by default those of the first file.
    first
        Whose `names` are.
    workers
        Who reads the files; by default threads of this process.
    progress
        Whether to show a progress bar.
    check
        Called with the first file and the width of its matrix (as aligned) before anything is read.

    Returns
    -------
    AlignedRows
        What the columns are called, and how many there are.

    Raises
    ------
    StateRagError
        If a file is missing, damaged, or lacks a column, the matrix or a gene; it is named.
    """
    aligned = AlignedRows(names, first)
    with open_cells(files[0].path) as file:
        width = aligned.open(file, matrix).shape[1]
    if check is not None:
        check(files[0].path, width)
    own = None if aligned.names is None else tuple(aligned.names)
    wanted = Wanted(matrix, columns, own, width, aligned.first)
    folder = sums_folder()
    tasks: dict[Shard, list[CellsOf]] = {}
    for source in files:
        with open_cells(source.path) as file:
            stretches = shards_of(source.path, n_cells(file), wanted, folder)
            if len(stretches) > 1:  # the order of a file's conditions is that of its categories, in whichever stretch
                totals.expect(_chosen(cell_groups(file, columns)[0], source.takes))
        for shard in stretches:
            tasks.setdefault(shard, []).append(source)  # a file may be in two data sets of a split
    _read(totals, tasks, wanted, workers or Workers(), progress)
    return aligned


def _read(
    totals: GroupTotals,
    tasks: Mapping[Shard, Sequence[CellsOf]],
    wanted: Wanted,
    workers: Workers,
    progress: bool,
) -> None:
    known = {shard: found for shard in tasks if (found := kept_sums(shard)) is not None}
    missing = [shard for shard in tasks if shard not in known]
    if known:
        logger.info("The sums of %d of %d shards are known from an earlier pass.", len(known), len(tasks))
    cells = sum(shard.stop - shard.start for shard in missing)
    unlabelled: dict[Path, int] = {}
    with bar(cells, "reading cells", "cells", disable=not (progress and missing)) as shown:

        def told(shard: Shard, done: int | None) -> None:
            shown.update(shard.stop - shard.start if done is None else done)

        with closing(workers.run(sum_shard, wanted, missing, told)) as made:
            for number, (shard, sources) in enumerate(tasks.items()):
                shown.set_postfix_str(f"{number} of {len(tasks)} shards", refresh=False)
                found = known[shard] if shard in known else next(made)
                unlabelled[shard.path] = unlabelled.get(shard.path, 0) + found.unlabelled
                for source in sources:
                    _join(totals, source, shard, found)
    for path, count in unlabelled.items():
        if count:
            logger.warning("%s: %d cells without a label are no training cells.", path, count)


def _join(totals: GroupTotals, source: CellsOf, shard: Shard, found: ShardSums) -> None:
    if found.sums is not None:
        totals.join(found.sums, _groups(found.sums.keys, source.takes))
        return
    assert shard.kept is not None
    if not shard.kept.is_file():
        raise StateRagError(
            f"{shard.kept}: a worker wrote the sums of {shard.path} there, and they are not there for this process. "
            "Set STATE_RAG_CACHE to a folder that all machines share."
        )
    with damage_told(shard.kept, "Remove it, and start again: its cells are read anew."):
        for part in read_sums(shard.kept):
            totals.join(part, _groups(part.keys, source.takes))


def _groups(keys: Sequence[tuple[str, ...]], takes: Takes) -> list[Group | None]:
    return [(line, label) if takes(line, label, name) else None for line, label, name in keys]


def _chosen(keys: Sequence[tuple[str, ...]], takes: Takes) -> list[Group]:
    return [group for group in _groups(keys, takes) if group is not None]
