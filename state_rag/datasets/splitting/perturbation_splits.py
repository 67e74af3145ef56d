"""Write splits that hold perturbations out, in every cell line that has them, in the TOML format that upstream reads.

Upstream trains on whatever is in neither list of a line, so a held-out perturbation is listed line by line; and what
may not train without being asked about (`Draw.aside`) has no place but the validation lists.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from state_rag.datasets.screen_table import ScreenTable, read_screen_table
from state_rag.datasets.splitting.dose_draws import DOSES, draw_doses, not_unseen
from state_rag.datasets.splitting.perturbation_draws import (
    ANY,
    BOTH,
    PAIR_CLASSES,
    Draw,
    draw_folds,
    draw_pairs,
    draw_share,
    families,
    of_lists,
    pairs_for,
)
from state_rag.datasets.splitting.split_toml import write_split_toml
from state_rag.datasets.splitting.splits import (
    WrittenSplit,
    check_listed,
    check_share,
    dataset_name,
    read_test_list,
    with_doses,
)
from state_rag.errors import StateRagError
from state_rag.names import listing

logger = logging.getLogger(__name__)

SHARE = 0.2
"""Fraction of the perturbations that is held out where none is said."""


def write_perturbation_splits(
    h5ad: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    share: float | None = None,
    test_list: str | os.PathLike[str] | None = None,
    pairs: str | None = None,
    doses: str | None = None,
    folds: int | None = None,
    held_out: str | None = None,
    few_shot: float = 0.0,
    val_fraction: float = 0.1,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    control: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> tuple[WrittenSplit, ...]:
    """Hold perturbations out of every cell line, so that no training cell shows them.

    Parameters
    ----------
    h5ad
        The data: an h5ad file, a folder of them, or a glob pattern. One cell line is enough.
    output
        The TOML file to write; with `folds`, fold 2 of `split.toml` is `split_fold2.toml`.
    share
        Fraction of the perturbations (with `pairs`: of the pairs of that class) to test on; default 0.2.
    test_list
        A file of the perturbations to test on, as `splits.read_test_list` reads it, in place of a fraction.
    pairs
        Test pairs `A+B` only, by how many of their members training sees: one of `perturbation_draws.PAIR_CLASSES`.
    doses
        Hold one dose of each drug out, whose other doses train: one of `dose_draws.DOSES`. Then `share` is a fraction
        of the drugs; default: all that have enough doses. Otherwise all doses of a name are held out together.
    folds
        Write so many splits, whose tests are disjoint and together all perturbations (with `pairs`: all such pairs).
    held_out
        A cell line to hold out as well: its other perturbations train up to `few_shot`, and the rest of them validates.
        The held-out perturbations, which are drawn among those of this line, are tested in every line.
    few_shot
        Fraction of the perturbations of `held_out` that trains.
    val_fraction
        Fraction of the perturbations that validates; at least one. Not used if `test_list` names them.
    pert_col, cell_type_col, control
        The obs columns and the control; found by their usual names where left out.
    name
        What the data set is called in the TOML; default: the file's name.
    seed
        Draws the perturbations.

    Returns
    -------
    tuple of WrittenSplit
        One, or one a fold.

    Raises
    ------
    StateRagError
        If what is asked for contradicts itself or the data, or leaves nothing to train on; nothing is written then.
    """
    _refuse_contradictions(share, test_list, pairs, folds)
    if doses is not None:
        _refuse_beside_doses(doses, test_list, pairs, folds)
    check_share(val_fraction, "--val-fraction")
    check_share(few_shot, "--few-shot")
    share = (SHARE if doses is None else 1.0) if share is None else share
    if not (0 < share < 1 or (doses is not None and share == 1)):
        raise StateRagError(f"--held-out-perturbations {share:g}: expected a fraction between 0 and 1, or a file.")
    dataset = dataset_name(h5ad, name)
    table = read_screen_table(h5ad, pert_col=pert_col, cell_type_col=cell_type_col, control=control)
    if held_out is not None:
        table.refuse_unknown_line(held_out)
        if len(table.lines) == 1:
            raise StateRagError(f"{h5ad}: {held_out!r} is the only cell line; leave --held-out out.")
    names = table.perturbations
    among = names if held_out is None else table.of_line(held_out)
    if test_list is not None:
        draws = [_listed(test_list, table, among, val_fraction, seed)]
    elif folds is not None:
        among = among if pairs is None else pairs_for(names, table.control, pairs, among)
        if pairs is not None and not among:
            raise StateRagError(f"--held-out-pairs {pairs}: 0 pairs (labels A+B) are of that class.")
        draws = draw_folds(names, table.control, folds, val_fraction, seed, among=among)
    elif pairs is not None:
        draws = [draw_pairs(names, table.control, pairs, share, val_fraction, seed, among=among)]
    elif doses is not None:
        draws = [draw_doses(names, table.control, doses, share, val_fraction, seed, among=among)]
    else:
        draws = [draw_share(names, table.control, share, val_fraction, seed, among=among)]
    for warning in not_unseen(draws[0].test, draws[0].train) if test_list is not None else ():
        logger.warning("%s: %s In a list the name of a drug stands for all its doses.", test_list, warning)
    all_lists = [_lists(table, draw, held_out, few_shot, seed) for draw in draws]
    written = []
    for number, (draw, lists) in enumerate(zip(draws, all_lists, strict=True)):
        path = Path(output)
        if folds is not None:
            path = path.with_name(f"{path.stem}_fold{number}{path.suffix}")
        what = f"Pairs ({pairs})" if pairs else f"One dose of each drug ({doses})" if doses else "Perturbations"
        how = (
            f"fold {number} of {folds} (from 0), seed {seed}"
            if folds is not None
            else f"lists from {Path(test_list).name}"
            if test_list is not None
            else f"fraction {share:g}, seed {seed}"
        )
        and_line = "" if held_out is None else f" Cell line {held_out} held out too, few-shot {few_shot:g}."
        write_split_toml(
            path, dataset, table.path, lists, f"{what} held out of every cell line: {how}.{and_line}{_aside(draw)}"
        )
        written.append(
            WrittenSplit(
                path=path,
                train=draw.train,
                val=draw.val,
                test=draw.test,
                lines=tuple(line for line, (_, test) in lists.items() if test),
                pert_col=table.pert_col,
                cell_type_col=table.cell_type_col,
                control=table.control,
                aside=draw.aside,
            )
        )
    return tuple(written)


def _refuse_contradictions(
    share: float | None, test_list: str | os.PathLike[str] | None, pairs: str | None, folds: int | None
) -> None:
    """Refuse two answers to the question of what is held out."""
    if folds is not None and (share is not None or test_list is not None):
        raise StateRagError(
            "--folds holds all perturbations out in turn; leave --held-out-perturbations, or --folds, out."
        )
    if pairs is not None and pairs not in PAIR_CLASSES:
        raise StateRagError(f"--held-out-pairs {pairs}: expected one of {', '.join(PAIR_CLASSES)}.")
    if pairs is not None and test_list is not None:
        raise StateRagError(
            f"--held-out-perturbations {test_list} says which are tested, and --held-out-pairs draws them; leave one "
            "out. With the first, whatever contains a listed perturbation is kept from training, too."
        )
    if pairs not in (None, BOTH, ANY) and folds is not None:
        raise StateRagError(
            f"--held-out-pairs {pairs} takes singles out of training, so there are no folds of it. Use {BOTH} or "
            f"{ANY}, or one split with --held-out-perturbations FRACTION."
        )


def _refuse_beside_doses(
    doses: str, test_list: str | os.PathLike[str] | None, pairs: str | None, folds: int | None
) -> None:
    """Refuse what says otherwise what is held out than doses do."""
    if doses not in DOSES:
        raise StateRagError(f"--held-out-doses {doses}: expected one of {', '.join(DOSES)}.")
    for option, given in (("--held-out-pairs", pairs), ("--folds", folds)):
        if given is not None:
            raise StateRagError(f"--held-out-doses {doses} draws one dose of each drug; leave {option} out.")
    if test_list is not None:
        raise StateRagError(
            f"--held-out-doses {doses} draws what is tested, and {test_list} lists it. Leave one out; "
            "--held-out-perturbations may be the fraction of the drugs."
        )


def _listed(
    source: str | os.PathLike[str], table: ScreenTable, among: Sequence[str], val_fraction: float, seed: int
) -> Draw:
    """Return the draw of a file's lists; a validation list is drawn where it has none."""
    val, test = (with_doses(part, table.perturbations) for part in read_test_list(source))
    check_listed(source, val, test, table.control, table.perturbations)
    possible = set(among)
    if absent := [name for name in test if name not in possible]:
        logger.warning(
            "%d listed perturbations have no cells in the held-out line: they are tested in other lines only (%s).",
            len(absent),
            listing(absent),
        )
    if len(absent) == len(test):
        raise StateRagError(f"{source}: names no perturbation that has cells in the held-out line. Name others.")
    if not val:
        together = [*families(possible - set(test)).values()]
        order = np.random.default_rng(seed).permutation(len(together))
        chosen = order[: max(1, round(val_fraction * len(families(possible))))]
        val = [label for i in chosen for label in together[i]]
    return of_lists(table.perturbations, table.control, test, val)


def _lists(
    table: ScreenTable, draw: Draw, held_out: str | None, few_shot: float, seed: int
) -> dict[str, tuple[list[str], list[str]]]:
    """Return each line's validation and test perturbations; lines without any are left out."""
    test, val = set(draw.test), {*draw.val, *draw.aside}
    lists = {}
    trains = False
    for line in table.lines:
        in_line = table.of_line(line)
        rest = [name for name in in_line if name not in test and name not in val]
        waiting: set[str] = set()
        if line == held_out:
            order = np.random.default_rng(seed).permutation(len(rest))
            waiting = {rest[i] for i in order[round(few_shot * len(in_line)) :]}
        trains = trains or len(rest) > len(waiting)
        parts = [name for name in in_line if name in val or name in waiting], [n for n in in_line if n in test]
        if any(parts):
            table.refuse_without_controls(line)
            lists[line] = parts
    if not trains:
        raise StateRagError(
            f"{table.given}: no perturbation is left to train on, since all that are not held out have cells in "
            f"{held_out!r} only. Raise --few-shot, or hold out another line."
        )
    return lists


def _aside(draw: Draw) -> str:
    if not draw.aside:
        return ""
    return f" Of val, {len(draw.aside)} are there only because they may not train: they contain what is held out."
