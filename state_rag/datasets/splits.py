"""Write leave-one-cell-type-out splits in the TOML format that upstream reads."""

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.datasets.columns import (
    CELL_TYPE_COLUMNS,
    PERTURBATION_COLUMNS,
    find_column,
    find_control,
)
from state_rag.datasets.split_check import SplitSummary, check_split, find_data_files
from state_rag.datasets.split_toml import Split, read_split
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, read_text, reason
from state_rag.h5ad import open_h5ad, read_column
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
        Perturbations of the held-out line in each part; all other lines are for training.
    pert_col, cell_type_col, control
        The columns and the control that were used, given or found.
    """

    path: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    pert_col: str
    cell_type_col: str
    control: str

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
    single_line: bool = False,
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
        Fraction of the held-out line's perturbations that stay in training. Not used with `test_list`.
    val_fraction
        Fraction of the held-out line's perturbations for validation; at least one. Not used if `test_list` names
        validation perturbations.
    test_list
        A text file of test perturbations, one on a line, or a JSON file: a list, or an object with `test` and
        optionally `val`. All perturbations of the line that it does not name, less a validation list, stay in training.
    pert_col, cell_type_col, control
        The obs columns and the control; found by their usual names where left out.
    single_line
        The data have one cell line only: perturbations of it are held out, and the others of it are all that trains.
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
    for value, label in ((few_shot, "--few-shot"), (val_fraction, "--val-fraction")):
        if not 0 <= value < 1:
            raise StateRagError(f"{label} {value}: expected a fraction from 0 up to, but not including, 1.")
    dataset = name if name is not None else re.sub(r"\W+", "_", Path(h5ad).stem).strip("_") or "screen"
    if not re.fullmatch(r"[\w-]+", dataset):
        raise StateRagError(f"--name {dataset!r}: use letters, digits, '_' and '-' only; upstream splits it at dots.")

    absolute = Path(os.path.abspath(h5ad))
    files = find_data_files(str(absolute), f"{h5ad}")
    in_line: set[str] = set()
    elsewhere: set[str] = set()
    lines: set[str] = set()
    controls_in_line = 0
    all_names: set[str] = set()
    tables = []
    for path in files:
        with open_h5ad(path) as file:
            pert_col = find_column(file, pert_col, PERTURBATION_COLUMNS, "perturbation", "--pert-col")
            cell_type_col = find_column(file, cell_type_col, CELL_TYPE_COLUMNS, "cell line", "--cell-type-col")
            perts, pert_codes = read_column(file, pert_col, "--pert-col")
            types, type_codes = read_column(file, cell_type_col, "--cell-type-col")
        tables.append((perts, pert_codes, types, type_codes))
        all_names.update(perts[np.unique(pert_codes[pert_codes >= 0])].tolist())
        lines.update(types[np.unique(type_codes[type_codes >= 0])].tolist())
    assert pert_col is not None
    assert cell_type_col is not None
    control = find_control(all_names, control, f"{h5ad}, obs column {pert_col!r}", "--control")
    if held_out not in lines:
        raise StateRagError(
            f"{h5ad}: no cell line {held_out!r} (from --held-out) in obs column {cell_type_col!r}. Cell lines present: "
            f"{', '.join(sorted(lines))}."
        )
    for perts, pert_codes, types, type_codes in tables:
        held = (types == held_out)[type_codes] & (type_codes >= 0) & (pert_codes >= 0)
        counts = np.bincount(pert_codes[held], minlength=len(perts))
        in_line.update(perts[counts > 0].tolist())
        controls_in_line += int(counts[perts == control].sum())
        elsewhere.update(perts[np.unique(pert_codes[~held & (pert_codes >= 0)])].tolist())
    in_line.discard(control)
    if not controls_in_line:
        raise StateRagError(
            f"{h5ad}: cell line {held_out!r} has no {control!r} cells. Upstream predicts from the controls of the same "
            "line; hold out another line or add its controls."
        )
    _check_lines(lines, h5ad, held_out, single_line, few_shot if test_list is None else None)

    if test_list is None:
        train, val, test = _draw(sorted(in_line), few_shot, val_fraction, seed)
    else:
        listed_val, listed_test = read_test_list(test_list)
        _check_listed(test_list, listed_val, listed_test, control, sorted(all_names - {control}))
        train, val, test = _from_lists(sorted(in_line), listed_val, listed_test, val_fraction, seed)
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
    only_here = [p for p in test if p not in elsewhere]
    if only_here:
        logger.warning(
            "%d of %d test perturbations occur in no other cell line (%s): no training cell shows them.",
            len(only_here),
            len(test),
            listing(only_here),
        )
    path = Path(output)
    text = _render(dataset, absolute, held_out, val, test, few_shot, seed, test_list)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            _check_written(temporary, path, dataset, held_out, val, test)
    except OSError as error:
        raise StateRagError(
            f"{path}: cannot be written: {reason(error)}. Choose another place with --output."
        ) from error
    return WrittenSplit(path, tuple(train), tuple(val), tuple(test), pert_col, cell_type_col, control)


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
                f"{type(part).__name__} content. See the README, section on splits."
            )
    assert isinstance(val, list)
    assert isinstance(test, list)
    if not test:
        raise StateRagError(f"{path}: names no test perturbation. Add names, one on a line, or a JSON key 'test'.")
    return list(dict.fromkeys(val)), list(dict.fromkeys(test))


def _check_lines(
    lines: set[str], h5ad: str | os.PathLike[str], held_out: str, single_line: bool, few_shot: float | None
) -> None:
    """Refuse to hold out the only line there is, unless perturbations of it are what shall be held out."""
    if len(lines) < 2 and not single_line:
        raise StateRagError(
            f"{h5ad}: {held_out!r} is the only cell line, so no other one is left to train on. Leave-one-cell-type-out "
            "needs data of two lines or more; to hold out perturbations of it, give --single-line --few-shot 0.8."
        )
    if single_line and len(lines) > 1:
        raise StateRagError(
            f"{h5ad}: --single-line is for data of one cell line; these have {', '.join(sorted(lines))}. Leave it out."
        )
    if single_line and few_shot == 0:
        raise StateRagError("--single-line --few-shot 0: no perturbation is left to train on. Give a fraction above 0.")


def _check_listed(
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
    """Draw the training, validation and test perturbations of a line, each sorted."""
    order = np.random.default_rng(seed).permutation(len(names))
    n_train = round(few_shot * len(names))
    n_val = max(1, round(val_fraction * len(names)))
    parts = np.split(order, [n_train, n_train + n_val])
    train, val, test = ([names[i] for i in sorted(part)] for part in parts)
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
    n_val = min(len(rest), max(1, round(val_fraction * len(names))))
    val = sorted(rest[i] for i in np.random.default_rng(seed).permutation(len(rest))[:n_val])
    return sorted(set(rest).difference(val)), val, test


def _check_written(
    temporary: Path, path: Path, dataset: str, held_out: str, val: Sequence[str], test: Sequence[str]
) -> None:
    """Refuse names that upstream's TOML parser does not give back, such as those that begin with a comma."""
    try:
        lists = read_split(temporary).fewshot.get((dataset, held_out), {})
    except StateRagError:
        lists = {}
    if lists != {"val": list(val), "test": list(test)}:
        odd = [name for name in [held_out, *val, *test] if not re.fullmatch(r"[\w.+-]+", name)]
        raise StateRagError(
            f"{path}: upstream's TOML parser misreads some of these names: {listing(odd)}. Rename them in the data."
        )


def _render(
    dataset: str,
    data: Path,
    held_out: str,
    val: Sequence[str],
    test: Sequence[str],
    few_shot: float,
    seed: int,
    test_list: str | os.PathLike[str] | None,
) -> str:
    """Return the TOML text."""

    def quote(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    def array(names: Sequence[str]) -> str:
        return "[\n" + "".join(f"  {quote(n)},\n" for n in names) + "]"

    origin = f"lists from {Path(test_list).name}" if test_list is not None else f"few-shot {few_shot}, seed {seed}"
    return (
        f"# Cell line {held_out} held out; {origin}.\n"
        f"[datasets]\n{dataset} = {quote(str(data))}\n\n"
        f'[training]\n{dataset} = "train"\n\n'
        f"[zeroshot]\n\n"
        f"[fewshot.{quote(f'{dataset}.{held_out}')}]\nval = {array(val)}\ntest = {array(test)}\n"
    )
