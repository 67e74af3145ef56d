"""Write leave-one-cell-type-out splits in the TOML format that upstream reads."""

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.datasets.screen_table import read_screen_table
from state_rag.datasets.splitting.perturbation_draws import families
from state_rag.datasets.splitting.split_check import SplitSummary, check_split
from state_rag.datasets.splitting.split_toml import Split, read_split, write_split_toml
from state_rag.errors import StateRagError
from state_rag.files import read_text
from state_rag.names import listing, suggest

__all__ = ["Split", "SplitSummary", "WrittenSplit", "check_split", "read_split", "read_test_list", "write_split"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenSplit:
    """A split file and what it says; usable as a path.

    Attributes
    ----------
    path
        The TOML file.
    train, val, test
        Perturbations in each part: of the held-out line, whose other lines are for training; where perturbations are
        held out, of all lines.
    lines
        The cell lines that are tested.
    pert_col, cell_type_col, control
        The columns and the control that were used, given or found.
    aside
        Perturbations that are neither asked about nor trained on, since they would give a tested one away; they
        validate.
    """

    path: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    lines: tuple[str, ...]
    pert_col: str
    cell_type_col: str
    control: str
    aside: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        """Return the path of the TOML file."""
        return str(self.path)


def write_split(
    h5ad: str | os.PathLike[str],
    held_out: str,
    *,
    output: str | os.PathLike[str],
    few_shot: float = 0.3,
    val_fraction: float = 0.1,
    test_list: str | os.PathLike[str] | None = None,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    control: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> WrittenSplit:
    """Write a split that holds one cell line out, all but a fraction of its perturbations.

    There is always a validation list: without one, upstream validates, and picks its best checkpoint, on the test set.
    The defaults are the published proportions: 30 % of the line's perturbations for training, 10 % for validation.

    Parameters
    ----------
    h5ad
        The data: an h5ad file, a folder of them, or a glob pattern.
    held_out
        The cell line to hold out.
    output
        The TOML file to write.
    few_shot
        Fraction of the held-out line's perturbations that stay in training, all doses of a name or none. Not used with
        `test_list`.
    val_fraction
        Fraction of the held-out line's perturbations for validation; at least one. Not used if `test_list` names
        validation perturbations.
    test_list
        A text file of test perturbations, one on a line, or a JSON file: a list, or an object with `test` and
        optionally `val`. All perturbations of the line that it does not name, less a validation list, stay in training.
        The name of a drug stands for all its doses.
    pert_col, cell_type_col, control
        The obs columns and the control; found by their usual names where left out.
    name
        What the data set is called in the TOML; default: the file's name.
    seed
        Draws the perturbations.

    Returns
    -------
    WrittenSplit
        The file and the three lists.

    Raises
    ------
    StateRagError
        If the line, a column, the control or a listed perturbation is unknown, or a list would be empty.
    """
    check_share(few_shot, "--few-shot")
    check_share(val_fraction, "--val-fraction")
    dataset = dataset_name(h5ad, name)
    table = read_screen_table(h5ad, pert_col=pert_col, cell_type_col=cell_type_col, control=control)
    table.refuse_unknown_line(held_out)
    table.refuse_without_controls(held_out)
    if len(table.lines) < 2:
        raise StateRagError(
            f"{h5ad}: {held_out!r} is the only cell line, so no other one is left to train on. Hold out perturbations "
            "of it: --held-out-perturbations 0.2, or --folds 5 for all in turn, in place of --held-out."
        )
    in_line = table.of_line(held_out)
    if test_list is None:
        train, val, test = _draw(in_line, few_shot, val_fraction, seed)
    else:
        listed_val, listed_test = (with_doses(part, table.perturbations) for part in read_test_list(test_list))
        check_listed(test_list, listed_val, listed_test, table.control, table.perturbations)
        train, val, test = _from_lists(in_line, listed_val, listed_test, val_fraction, seed)
    for part, label in ((test, "test"), (val, "validation")):
        if not part:
            raise StateRagError(
                f"{h5ad}: the {label} list would be empty: line {held_out!r} has {len(in_line)} perturbations"
                + (
                    f", and {test_list} names none of them for that list. Hold out another line or name others."
                    if test_list is not None
                    else f". Lower --few-shot (now {few_shot}) or --val-fraction (now {val_fraction})."
                )
            )
    elsewhere = table.elsewhere(held_out)
    only_here = [p for p in test if p not in elsewhere]
    if only_here:
        logger.warning(
            "%d of %d test perturbations occur in no other cell line (%s): no training cell shows them.",
            len(only_here),
            len(test),
            listing(only_here),
        )
    drawn = f"lists from {Path(test_list).name}" if test_list is not None else f"few-shot {few_shot}, seed {seed}"
    origin = f"Cell line {held_out} held out; {drawn}."
    write_split_toml(Path(output), dataset, table.path, {held_out: (val, test)}, origin)
    return WrittenSplit(
        path=Path(output),
        train=tuple(train),
        val=tuple(val),
        test=tuple(test),
        lines=(held_out,),
        pert_col=table.pert_col,
        cell_type_col=table.cell_type_col,
        control=table.control,
    )


def check_share(value: float, flag: str) -> None:
    """Refuse what is no fraction from 0 up to, but not including, 1."""
    if not 0 <= value < 1:
        raise StateRagError(f"{flag} {value}: expected a fraction from 0 up to, but not including, 1.")


def dataset_name(h5ad: str | os.PathLike[str], given: str | None) -> str:
    """Return what the data set is called in the TOML: the given name, else the file's with letters and digits only."""
    dataset = given if given is not None else re.sub(r"\W+", "_", Path(h5ad).stem).strip("_") or "screen"
    if not re.fullmatch(r"[\w-]+", dataset):
        raise StateRagError(f"--name {dataset!r}: use letters, digits, '_' and '-' only; upstream splits it at dots.")
    return dataset


def read_test_list(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Read perturbation lists from a text or JSON file.

    Returns
    -------
    tuple of list
        Validation and test perturbations in file order, without repeats; the first is empty where the file has none.

    Raises
    ------
    StateRagError
        If the file is missing, is not what its suffix says, or names no test perturbation.
    """
    path = Path(path)
    text = read_text(path, "a list of test perturbations: one name on a line, or JSON", (".txt", ".json"))
    val: object = []
    test: object
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise StateRagError(f"{path}: not valid JSON ({error}).") from error
        test = content.get("test", []) if isinstance(content, dict) else content
        val = content.get("val", []) if isinstance(content, dict) else []
    else:
        test = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for part in (val, test):
        if not isinstance(part, list) or not all(isinstance(item, str) for item in part):
            raise StateRagError(
                f'{path}: expected a list of names, or {{"test": [names], "val": [names]}}; found '
                f"{type(part).__name__} content."
            )
    assert isinstance(val, list)
    assert isinstance(test, list)
    if not test:
        raise StateRagError(f"{path}: names no test perturbation. Add names, one on a line, or a JSON key 'test'.")
    return list(dict.fromkeys(val)), list(dict.fromkeys(test))


def with_doses(listed: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return listed perturbations, names of drugs as all their labels in the data.

    Examples
    --------
    >>> with_doses(["A", "B:dose=1", "C"], ["A:dose=1", "A:dose=2", "B:dose=1", "C"])
    ['A:dose=1', 'A:dose=2', 'B:dose=1', 'C']
    """
    present, by_name = set(known), families(known)
    expanded = ([name] if name in present or name not in by_name else by_name[name] for name in listed)
    return list(dict.fromkeys(label for labels in expanded for label in labels))


def check_listed(
    source: str | os.PathLike[str], val: Sequence[str], test: Sequence[str], control: str, known: Sequence[str]
) -> None:
    """Refuse lists that name the control, one perturbation twice, or perturbations that the data lacks."""
    if control in val or control in test:
        raise StateRagError(f"{source}: names the control {control!r}. Remove it; controls are in every part.")
    both = sorted(set(val) & set(test))
    if both:
        raise StateRagError(f"{source}: {len(both)} names are in both lists ({listing(both)}). Keep each in one.")
    present = set(known)
    unknown = [p for p in [*val, *test] if p not in present]
    if unknown:
        raise StateRagError(
            f"{source}: {len(unknown)} of {len(val) + len(test)} names are not in the data ({listing(unknown)}"
            f"{suggest(unknown, known)}). Correct or remove them."
        )


def _draw(names: list[str], few_shot: float, val_fraction: float, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Draw the training, validation and test perturbations of a line, each sorted; all doses of a name in one."""
    together = [*families(names).values()]
    order = np.random.default_rng(seed).permutation(len(together))
    n_train = round(few_shot * len(together))
    n_val = max(1, round(val_fraction * len(together)))
    parts = np.split(order, [n_train, n_train + n_val])
    train, val, test = (sorted(label for i in part for label in together[i]) for part in parts)
    return train, val, test


def _from_lists(
    names: list[str], listed_val: list[str], listed_test: list[str], val_fraction: float, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Take the listed perturbations that the line has; draw a validation list from the rest if none is listed."""
    present = set(names)
    absent = [p for p in [*listed_val, *listed_test] if p not in present]
    if absent:
        logger.warning(
            "%d listed perturbations have no cells in the line: left out (%s).", len(absent), listing(absent)
        )
    test = [p for p in listed_test if p in present]
    if listed_val:
        val = [p for p in listed_val if p in present]
        return sorted(present.difference(val, test)), val, test
    rest = sorted(present.difference(test))
    together = [*families(rest).values()]
    n_val = min(len(together), max(1, round(val_fraction * len(families(names)))))
    chosen = np.random.default_rng(seed).permutation(len(together))[:n_val]
    val = sorted(label for i in chosen for label in together[i])
    return sorted(set(rest).difference(val)), val, test
