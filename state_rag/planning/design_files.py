"""The files that `state-rag design` reads and writes."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import Design
from state_rag.evidence.choices.design_replay import Replay
from state_rag.evidence.choices.hits import Hits
from state_rag.files import atomic_path, read_text
from state_rag.planning.design import design_table, replay_table
from state_rag.plot.design import experiment_curves
from state_rag.plot.style import save_figure

PLATES = {96: (8, 12), 384: (16, 24)}
"""Wells -> rows and columns."""


def read_numbers(path: Path, flag: str, first: str, second: str) -> dict[str, float]:
    """Return the numbers of a CSV file with two columns of these names.

    Raises
    ------
    StateRagError
        If a column is missing, a value is no number, or a name stands twice.
    """
    rows = list(csv.DictReader(read_text(path, f"the table of {flag}").splitlines()))
    if not rows or not {first, second} <= set(rows[0]):
        found = ", ".join(map(str, rows[0])) if rows else "nothing"
        raise StateRagError(f"{flag} {path}: expected the columns {first},{second}; found {found}.")
    values: dict[str, float] = {}
    for row in rows:
        name, text = ((row[column] or "").strip() for column in (first, second))
        if not (name or text):
            continue  # as spreadsheets leave them
        if name in values:
            raise StateRagError(f"{flag} {path}: {name} stands twice; give it once.")
        try:
            values[name] = float(text)
        except ValueError as error:
            raise StateRagError(f"{flag} {path}: the {second} of {name} is {text!r}, not a number.") from error
    return values


def plate_table(names: Sequence[tuple[str, str]], batch_size: int, controls: int = 0) -> pd.DataFrame:
    """Return a row a well: `batch`, `well`, `perturbation`, `context`; a plate a batch, filled row by row.

    Parameters
    ----------
    names
        (context, perturbation), best first.
    batch_size
        Conditions of a batch, controls not counted.
    controls
        Wells of controls on each plate, after the others.

    Raises
    ------
    StateRagError
        If a batch does not fit a plate of 384 wells.
    """
    wells = next((size for size in PLATES if batch_size + controls <= size), 0)
    if batch_size < 1 or controls < 0 or not wells:
        raise StateRagError(
            f"--batch-size {batch_size} with --controls {controls}: a plate has 96 or 384 wells; give 1 to 384 in all."
        )
    columns = PLATES[wells][1]
    rows = []
    for start in range(0, len(names), batch_size):
        batch = list(names[start : start + batch_size])
        lines = dict.fromkeys(context for context, _ in batch)
        # controls are shared out among the lines of the plate
        extra = [(list(lines)[number % len(lines)], "control") for number in range(controls)]
        for place, (context, name) in enumerate([*batch, *extra]):
            well = f"{chr(ord('A') + place // columns)}{place % columns + 1:02d}"
            rows.append((start // batch_size + 1, well, name, context))
    return pd.DataFrame(rows, columns=["batch", "well", "perturbation", "context"])


def write_design(
    found: Design | Hits, folder: Path, batch_size: int = 96, controls: int = 0, replayed: Replay | None = None
) -> list[Path]:
    """Write the table, the plates and the curve of a design, and return what was written.

    With a replay the curve has the accuracy too that the variance went with there, NaN where it was not replayed;
    not for targets that are combinations, which a replay is not of.
    """
    table = design_table(found)
    plates = plate_table(found.conditions, batch_size, controls).merge(
        table[["perturbation", "context", *(["cost"] if "cost" in table else [])]],
        on=["perturbation", "context"],
        how="left",
    )
    written = [_write(table, folder / "design.csv"), _write(plates, folder / "plate.csv")]
    experiments = list(range(1, len(table) + 1))
    if isinstance(found, Hits):
        curves, quantity = {"designed": found.expected}, "expected hits"
    else:
        curves = {"designed": found.explained, "random": found.explained_by_random}
        quantity = "variance explained"
    curve = pd.DataFrame({"experiments": experiments, **{f"{name}": values for name, values in curves.items()}})
    if replayed is not None and isinstance(found, Design) and not found.combinations:
        curve["expected_pearson_designed"] = replayed.expected(found.remaining[1:] / found.prior)
        curve["expected_pearson_random"] = replayed.expected(found.random[1:] / found.prior)
    written.append(_write(curve, folder / "curve.csv"))
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    experiment_curves(experiments, curves, quantity, ax=figure.subplots())
    save_figure(figure, folder, "design")
    return [*written, folder / "design.png", folder / "design.svg"]


def write_replay(found: Replay, folder: Path) -> list[Path]:
    """Write the scores and the curves of a replay, and return what was written."""
    written = [_write(replay_table(found), folder / "replay.csv")]
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    curves = {name: values.mean(0) for name, values in found.scores.items()}
    intervals = {name: found.interval(name) for name in curves}
    experiment_curves(found.budgets, curves, f"Pearson, {found.context}", intervals, ax=figure.subplots())
    save_figure(figure, folder, "replay")
    return [*written, folder / "replay.png", folder / "replay.svg"]


def _write(table: pd.DataFrame, path: Path) -> Path:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return path
