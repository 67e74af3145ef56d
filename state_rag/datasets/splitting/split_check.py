"""Check a split against its data before any work: a few seconds of reading `obs`, never the matrix."""

import logging
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from state_rag.cell_files import CellFile
from state_rag.datasets.columns import (
    BATCH_COLUMNS,
    CELL_TYPE_COLUMNS,
    PERTURBATION_COLUMNS,
    find_column,
    find_control,
)
from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.doubled_labels import refuse_doubled
from state_rag.datasets.effects_tables import refuse_effects_table
from state_rag.datasets.formats.in_files import names_by_format
from state_rag.datasets.readable import refuse_unreadable
from state_rag.datasets.splitting.dose_draws import not_unseen
from state_rag.datasets.splitting.label_spelling import alike_labels, further_controls, shown
from state_rag.datasets.splitting.split_toml import Split, read_split
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells, read_column
from state_rag.names import listing, suggest

logger = logging.getLogger(__name__)

FEW_CELLS = 5
"""A validation or test perturbation with fewer cells than this in a line is told: its metrics are mostly noise."""


@dataclass(frozen=True)
class SplitSummary:
    """What a split and its data hold.

    Attributes
    ----------
    files
        The h5ad files, in the order that upstream reads them.
    perturbations
        All perturbations that have cells, over all files, sorted; the control is not among them.
    train_perturbations, val_perturbations, test_perturbations
        Perturbations with cells in each part, sorted. One can be in several, through different cell lines.
    cell_types
        Cell lines that have cells, sorted.
    cells
        Number of perturbed cells in `train`, `val` and `test`, and of `control` cells.
    conditions
        (part, cell line, perturbation) -> number of cells, over all files; controls are not among them.
    warnings
        What is allowed but probably not meant.
    """

    files: list[Path]
    perturbations: tuple[str, ...]
    train_perturbations: tuple[str, ...]
    val_perturbations: tuple[str, ...]
    test_perturbations: tuple[str, ...]
    cell_types: tuple[str, ...]
    cells: dict[str, int]
    conditions: dict[tuple[str, str, str], int]
    warnings: tuple[str, ...]


@dataclass
class _Tally:
    """What was seen so far, over the files."""

    perturbations: set[str] = field(default_factory=set)
    cell_types: dict[str, set[str]] = field(default_factory=dict)
    parts: dict[str, set[str]] = field(default_factory=lambda: {"train": set(), "val": set(), "test": set()})
    cells: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0, "test": 0, "control": 0})
    conditions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    placed: dict[tuple[str, str], set[tuple[str, str, Path]]] = field(default_factory=dict)
    """For each line and perturbation the parts that its cells are in: part, data set, file."""
    labels: set[str] = field(default_factory=set)
    """All categories of the perturbation column."""
    controlled: set[str] = field(default_factory=set)
    """Lines that have controls in some file."""
    files: dict[str, set[Path]] = field(default_factory=dict)
    """Perturbation -> files that have cells of it."""


def check_split(
    toml_path: str | os.PathLike[str],
    *,
    pert_col: str,
    cell_type_key: str,
    batch_col: str,
    control_pert: str,
    embed_key: str | None = None,
    require: Collection[str] = ("train", "test"),
    upstream: bool = True,
    called: str | None = None,
) -> SplitSummary:
    """Check that a split's data can be read and that the split says what it seems to say.

    Parameters
    ----------
    toml_path
        The split file.
    pert_col, cell_type_key, batch_col, control_pert, embed_key
        As under `data.kwargs` in upstream's configuration. `embed_key` is looked for in `obsm`.
    require
        The parts (`train`, `val`, `test`) that must hold perturbed cells.
    upstream
        Whether upstream reads the data too. It reads h5ad files, and needs in each the controls of its lines; otherwise
        zarr stores will do, and controls in any file of the data.
    called
        What messages call the split; by default its path.

    Returns
    -------
    SplitSummary
        Files, perturbations and cell counts. Warnings are logged too.

    Raises
    ------
    StateRagError
        If the TOML, a data file, a column, the control, a cell line or a perturbation is missing or wrong, or a
        required part is empty.
    """
    split = read_split(toml_path)
    if called is not None:
        split = replace(split, path=Path(called))
    files: list[Path] = []
    tally = _Tally()
    for dataset, location in split.datasets.items():
        for path in find_data_files(location, f"{split.path}, data set {dataset!r}"):
            files.append(path)
            with open_cells(path) as file:
                refuse_effects_table(file, control_pert)
                refuse_unreadable(file, path, pert_col, cell_type_key, batch_col, embed_key, upstream=upstream)
                _count(file, split, dataset, tally, pert_col, cell_type_key, control_pert, upstream)
    if not upstream:
        _refuse_without_controls(split, tally, control_pert)
    refuse_doubled(tally.files, control_pert, pert_col)
    _check_named(split, tally, control_pert)
    _refuse_leaks(split, tally)
    for part in require:
        if not tally.cells[part]:
            raise StateRagError(_explain_empty(split, part))
    warnings = _find_warnings(split, tally, control_pert)
    for warning in warnings:
        logger.warning("%s", warning)
    return SplitSummary(
        files=files,
        perturbations=tuple(sorted(tally.perturbations)),
        train_perturbations=tuple(sorted(tally.parts["train"])),
        val_perturbations=tuple(sorted(tally.parts["val"])),
        test_perturbations=tuple(sorted(tally.parts["test"])),
        cell_types=tuple(sorted(set().union(*tally.cell_types.values()))),
        cells=dict(tally.cells),
        conditions=dict(tally.conditions),
        warnings=tuple(warnings),
    )


def find_names(
    toml_path: str | os.PathLike[str],
    *,
    pert_col: str | None = None,
    cell_type_key: str | None = None,
    batch_col: str | None = None,
    control_pert: str | None = None,
) -> dict[str, str]:
    """Return the columns and the control of a split's data: those given, else the usual names in its first file.

    Returns
    -------
    dict
        `pert_col`, `cell_type_key`, `batch_col` and `control_pert`, as `check_split` takes them.

    Raises
    ------
    StateRagError
        If a name is not given and not found, or found more than once.
    """
    split = read_split(toml_path)
    dataset, location = next(iter(split.datasets.items()))
    path = find_data_files(location, f"{split.path}, data set {dataset!r}")[0]
    with open_cells(path) as file:
        refuse_effects_table(file, control_pert)
        by_format = names_by_format(file, pert_col, cell_type_key, batch_col, control_pert)
        pert_col, cell_type_key, batch_col, control_pert = by_format
        pert_col = find_column(file, pert_col, PERTURBATION_COLUMNS, "perturbation", "--pert-col")
        cell_type_key = find_column(file, cell_type_key, CELL_TYPE_COLUMNS, "cell line", "--cell-type-key")
        batch_col = find_column(file, batch_col, BATCH_COLUMNS, "batch", "--batch-col")
        categories, _ = read_column(file, pert_col, "--pert-col")
    control_pert = find_control(categories.tolist(), control_pert, f"{path}, obs column {pert_col!r}", "--control-pert")
    return {
        "pert_col": pert_col,
        "cell_type_key": cell_type_key,
        "batch_col": batch_col,
        "control_pert": control_pert,
    }


def _count(
    file: CellFile,
    split: Split,
    dataset: str,
    tally: _Tally,
    pert_col: str,
    cell_type_key: str,
    control_pert: str,
    upstream: bool,
) -> None:
    """Add one file's cells to the tally, part by part as upstream assigns them."""
    perts, pert_codes = read_column(file, pert_col, "data.kwargs.pert_col")
    types, type_codes = read_column(file, cell_type_key, "data.kwargs.cell_type_key")
    if upstream:
        origin = f"{file.filename}, obs column {pert_col!r}"
        find_control(perts.tolist(), control_pert, origin, "data.kwargs.control_pert")
    else:
        tally.labels.update(perts.tolist())
    table = np.bincount(type_codes * len(perts) + pert_codes, minlength=len(types) * len(perts))
    is_control = perts == control_pert
    for line, counts in zip(types.tolist(), table.reshape(len(types), len(perts)), strict=True):
        if not counts.any():
            continue
        tally.cell_types.setdefault(dataset, set()).add(line)
        perturbed = np.where(is_control, 0, counts)
        names = perts[perturbed > 0].tolist()
        tally.perturbations.update(names)
        for name in names:
            tally.files.setdefault(name, set()).add(Path(str(file.filename)))
        part = _part_of_line(split, dataset, line)
        if part is None:
            continue
        if counts[is_control].any():
            tally.controlled.add(line)
        elif names and upstream:
            raise StateRagError(
                f"{file.filename}: cell line {line!r} has perturbed cells but no {control_pert!r} cells, which "
                "upstream predicts from. Add its controls or remove the line."
            )
        tally.cells["control"] += int(counts[is_control].sum())
        lists = split.fewshot.get((dataset, line), {}) if part == "fewshot" else {}
        val, test = set(lists.get("val", ())), set(lists.get("test", ()))
        for name, cells in zip(names, perturbed[perturbed > 0].tolist(), strict=True):
            listed = [key for key, group in (("val", val), ("test", test)) if name in group]
            for target in (listed or ["train"]) if part == "fewshot" else [part]:
                tally.parts[target].add(name)
                place = target, dataset, Path(str(file.filename)).resolve()
                tally.placed.setdefault((line, name), set()).add(place)
                tally.cells[target] += cells
                tally.conditions[target, line, name] += cells


def _part_of_line(split: Split, dataset: str, line: str) -> str | None:
    """Return `train`, `val`, `test`, `fewshot`, or None where upstream leaves the line's cells out."""
    if (dataset, line) in split.zeroshot:
        return split.zeroshot[dataset, line]
    if (dataset, line) in split.fewshot:
        return "fewshot"
    return "train" if dataset in split.training else None


def _refuse_without_controls(split: Split, tally: _Tally, control_pert: str) -> None:
    """Refuse lines with perturbed cells that have controls in no file."""
    find_control(sorted(tally.labels), control_pert, f"the data of {split.path}", "data.kwargs.control_pert")
    bare = sorted({line for line, _ in tally.placed} - tally.controlled)
    if bare:
        raise StateRagError(
            f"{split.path}: {listing(bare)} have perturbed cells but, in all files of the data, no {control_pert!r} "
            "cells, against which effects are measured. Add their controls or remove these lines."
        )


def _check_named(split: Split, tally: _Tally, control_pert: str) -> None:
    """Refuse cell lines and perturbations that no file of the data set holds."""
    for dataset, line in [*split.zeroshot, *split.fewshot]:
        present = sorted(tally.cell_types.get(dataset, ()))
        if line not in present:
            raise StateRagError(
                f'{split.path}: "{dataset}.{line}" names a cell line that data set {dataset!r} lacks'
                f"{suggest([line], present)}. Cell lines present: {', '.join(present)}."
            )
    known = sorted(tally.perturbations)
    for (dataset, line), lists in split.fewshot.items():
        for part, names in lists.items():
            unknown = [name for name in names if name not in tally.perturbations and name != control_pert]
            if unknown:
                raise StateRagError(
                    f'{split.path}: [fewshot."{dataset}.{line}"] {part} names {len(unknown)} perturbations, out of '
                    f"{len(names)}, that the data lack ({listing(unknown)}{suggest(unknown, known)}). Correct or "
                    "remove them; upstream would ignore them without a word."
                )


def _tested_and_used(tally: _Tally, same_file: bool) -> dict[tuple[str, str, str], list[str]]:
    """Return perturbations that one data set tests in a line and another trains or validates on in that line.

    Keys are the testing data set, the other and the line. `same_file` chooses data sets of one file, or of two.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for (line, name), places in sorted(tally.placed.items()):
        tested = {(dataset, path) for part, dataset, path in places if part == "test"}
        used = {(dataset, path) for part, dataset, path in places if part != "test"}
        for one, file in sorted(tested):
            for other in sorted({dataset for dataset, path in used if dataset != one and (path == file) == same_file}):
                found.setdefault((one, other, line), []).append(name)
    return found


def _refuse_leaks(split: Split, tally: _Tally) -> None:
    """Refuse a file under two names, where cells tested under one are trained or validated on under the other."""
    for (one, other, line), names in _tested_and_used(tally, same_file=True).items():
        raise StateRagError(
            f"{split.path}: the data sets {one!r} and {other!r} are the same file, and {len(names)} test perturbations "
            f"of {line!r} in {one!r} are in training or validation as cells of {other!r} ({listing(names)}). Name the "
            "file once."
        )


def _explain_empty(split: Split, part: str) -> str:
    """Return the error for a part without perturbed cells."""
    remedy = {
        "train": "Name a data set under [training] that has cell lines or perturbations not held out.",
        "val": 'Add a `val` list to a [fewshot."dataset.line"] table.',
        "test": 'Add a `test` list to a [fewshot."dataset.line"] table, or a line to [zeroshot].',
    }[part]
    return f"{split.path}: the {part} part holds no perturbed cell. {remedy} `state-rag data split` writes all three."


def _find_warnings(split: Split, tally: _Tally, control_pert: str) -> list[str]:
    """Return what upstream accepts but is probably not meant."""
    warnings = []
    if tally.cells["test"] and not tally.cells["val"]:
        warnings.append(
            f"{split.path}: no validation perturbations, so upstream validates, and picks its best checkpoint, on the "
            "test set. Add a `val` list."
        )
    for (dataset, line), lists in split.fewshot.items():
        both = sorted(set(lists["val"]) & set(lists["test"]))
        if both:
            warnings.append(
                f'{split.path}: [fewshot."{dataset}.{line}"] has {len(both)} perturbations in both lists '
                f"({listing(both)})."
            )
        if control_pert in lists["val"] or control_pert in lists["test"]:
            warnings.append(
                f'{split.path}: [fewshot."{dataset}.{line}"] lists the control {control_pert!r}; upstream ignores that.'
            )
        for part, named in lists.items():
            counts = {name: tally.conditions[part, line, name] for name in named if name != control_pert}
            if absent := [name for name, cells in counts.items() if not cells]:
                warnings.append(
                    f'{split.path}: [fewshot."{dataset}.{line}"] {part} names {len(absent)} perturbations, out of '
                    f"{len(counts)}, that have no cells in {line} ({listing(absent)}); they are not in the {part} part."
                )
    few: dict[tuple[str, str], list[str]] = {}
    for (part, line, name), cells in sorted(tally.conditions.items()):
        if part != "train" and cells < FEW_CELLS:
            few.setdefault((part, line), []).append(f"{name}: {cells}")
    for (part, line), told in few.items():
        warnings.append(
            f"{split.path}: {len(told)} {part} perturbations have fewer than {FEW_CELLS} cells in {line} "
            f"({listing(told)}), so their metrics are mostly noise. Leave them out of the data or of the lists."
        )
    for (one, other, line), names in _tested_and_used(tally, same_file=False).items():
        warnings.append(
            f"{split.path}: {len(names)} test perturbations of {line!r} in data set {one!r} are trained or "
            f"validated on in data set {other!r} ({listing(names)}), so the line is not fully held out."
        )
    return warnings + _about_labels(split, tally, control_pert)


def _about_labels(split: Split, tally: _Tally, control_pert: str) -> list[str]:
    """Return labels that look as if they meant the same as others, or a control."""
    warnings = []
    lines = set().union(*tally.cell_types.values()) if tally.cell_types else set()
    perturbations = alike_labels({*tally.perturbations, control_pert})
    perturbations.sort(key=lambda group: control_pert not in group)  # that costs most
    for what, groups in (("cell lines", alike_labels(lines)), ("perturbations", perturbations)):
        if groups:
            warnings.append(
                f"{split.path}: labels of {what} are spelled alike and count as different "
                f"({listing(map(shown, groups))}). If they mean the same, give them one name in the data."
            )
    test, other = tally.parts["test"], tally.parts["train"] | tally.parts["val"]
    leaks = sorted(name for group in perturbations for name in group if name in test and other & ({*group} - {name}))
    if leaks:
        warnings.append(
            f"{split.path}: {len(leaks)} tested perturbations are trained or validated on under such another spelling "
            f"({listing(leaks)}), so results would be too good."
        )
    warnings += [f"{split.path}: {text}" for text in not_unseen(test, tally.parts["train"])]
    if controls := further_controls(tally.perturbations, control_pert):
        warnings.append(
            f"{split.path}: named like controls, and perturbations here, since the control is {control_pert!r}: "
            f"{listing(shown([name]) for name in controls)}. If they are controls too, give them that name in the data."
        )
    return warnings
