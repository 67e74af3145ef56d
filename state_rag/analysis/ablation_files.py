"""The files of ablations: conditions are added to those that earlier commands found in the same way."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.analysis.ablation import summarise
from state_rag.csv_tables import read_csv_table
from state_rag.errors import StateRagError
from state_rag.evaluation.runs import Run
from state_rag.files import atomic_path, sample_digest
from state_rag.names import listing

TABLE, SUMMARY = "ablation.csv", "ablation.json"
CONDITION = ["cell_line", "perturbation"]
CHECKPOINT, SPLIT = "checkpoint", "split file"
"""What each run's rows depend on, and a digest of it tells: keys of `made_with`."""
AGAIN = "`state-rag retrieval RUN --ablate` makes it anew"


@dataclass(frozen=True)
class SwitchedOff:
    """What is known of the ablation that lies with a run.

    Attributes
    ----------
    runs
        Name of that run and of those that were done with it.
    table
        From `ablation.ablation_table`; None where it is not of the runs as they are.
    remarks
        What a reader should know about it.
    """

    runs: tuple[str, ...]
    table: pd.DataFrame | None
    remarks: tuple[str, ...] = ()


def save_ablation(
    table: pd.DataFrame, folder: Path, made_with: Sequence[Mapping[str, Any]] = ()
) -> tuple[pd.DataFrame, str]:
    """Write `ablation.csv` and `ablation.json`, and return the whole table and what became of an earlier one.

    Parameters
    ----------
    table
        From `ablation.ablation_table`.
    folder
        Where to. Other conditions of a table there stay if it was made with the same; else it is replaced.
    made_with
        For each run, what its rows depend on: name to value.

    Returns
    -------
    tuple
        The table written, sorted by condition; a line on the earlier table, empty where there was none.
    """
    wanted = sorted((dict(one) for one in made_with), key=str)
    earlier, remark = _earlier(folder, wanted)
    if earlier is not None:
        new = pd.MultiIndex.from_frame(table[CONDITION])
        again = pd.MultiIndex.from_frame(earlier[CONDITION]).isin(new)
        earlier = earlier[~again]
        names = [f"{name} in {line}" for line, name in dict.fromkeys(earlier[CONDITION].itertuples(index=False))]
        remark = f"Kept in {TABLE} from before, same checkpoint and settings: {listing(names)}." if names else ""
        table = pd.concat([table, earlier], ignore_index=True)
    table = table.sort_values(CONDITION, kind="stable", ignore_index=True)
    (folder / SUMMARY).unlink(missing_ok=True)
    with atomic_path(folder / TABLE) as path:
        table.to_csv(path, index=False, float_format="%.5g")
    with atomic_path(folder / SUMMARY) as path:
        path.write_text(json.dumps({"made_with": wanted, **summarise(table)}, indent=2) + "\n")
    return table, remark


def load_ablation(folder: Path) -> pd.DataFrame | None:
    """Read the table back; None where there is none.

    Raises
    ------
    StateRagError
        If the file is not one that `save_ablation` wrote.
    """
    path = folder / TABLE
    if not path.is_file():
        return None
    table = read_csv_table(path, (*CONDITION, "neighbour"), remedy="Make it again with `state-rag retrieval --ablate`.")
    if missing := {*CONDITION, "neighbour", "inclusion", "relative_change", "help"} - set(table):
        raise StateRagError(f"{path}: no column '{min(missing)}'; make it again with `state-rag retrieval --ablate`")
    return table.astype({"rank": "Int64"}) if "rank" in table else table


def ablation_of(
    name: str,
    runs: Mapping[str, Run],
    conditions: Mapping[str, Collection[tuple[str, str]]],
    toml: str | Path | None = None,
) -> SwitchedOff | None:
    """Return the ablation that lies with a run, as far as it is of runs as they are now; None where there is none.

    Parameters
    ----------
    name
        Of the run.
    runs, conditions
        Every run's folders, and conditions (cell line and perturbation), by name.
    toml
        Split file in place of the configurations'.
    """
    folder = runs[name].predictions / "retrieval"
    try:
        table = load_ablation(folder)
    except StateRagError as error:
        return SwitchedOff((name,), None, (f"Left out: {error}.",))
    if table is None:
        return None
    made_with = _made_with(folder)
    if not made_with:
        remark = f"{TABLE} does not say which checkpoint it was made with; it may have been an earlier one. {AGAIN}."
        return SwitchedOff((name,), table, (remark,))
    checkpoints = {each: _checkpoint(run) for each, run in runs.items()}
    digests = {each: sample_digest(path) for each, path in checkpoints.items() if path.is_file()}
    if name not in digests:
        remark = f"Whether this is of the run as it is now is not known: there is no checkpoint {checkpoints[name]}."
        return SwitchedOff((name,), table, (remark,))
    made_of = {str(one.get(CHECKPOINT)): one for one in made_with}
    if digests[name] not in made_of:
        remark = f"Left out: it was made with another {checkpoints[name].name} than the one that is there now. {AGAIN}."
        return SwitchedOff((name,), None, (remark,))
    same = (name, *(each for each, digest in digests.items() if each != name and digest in made_of))
    remarks = []
    if set(made_of) - {digests[each] for each in same}:
        known = {condition for each in same for condition in conditions[each]}
        table = table[[tuple(row) in known for row in table[CONDITION].itertuples(index=False)]]
        remarks.append("Left out: conditions of runs that are not in this report, or have changed since.")
    for each in same:
        split = runs[each].split_path(toml)
        if split is not None and split.is_file() and sample_digest(split) != made_of[digests[each]].get(SPLIT):
            remarks.append(f"{each}: it was made with another split file than {split}, as it is now.")
    return SwitchedOff(same, None if table.empty else table, tuple(remarks))


def _checkpoint(run: Run) -> Path:
    return run.folder / "checkpoints" / run.predictions.name.removeprefix("eval_")


def _made_with(folder: Path) -> list[dict[str, Any]]:
    """Return what a table was made with; nothing where that is not known."""
    try:
        found = json.loads((folder / SUMMARY).read_text())["made_with"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _earlier(folder: Path, wanted: list[dict[str, Any]]) -> tuple[pd.DataFrame | None, str]:
    """Return the table that is there, or None and why it cannot be added to."""
    if not (folder / TABLE).is_file():
        return None, ""
    try:
        made_with = json.loads((folder / SUMMARY).read_text())["made_with"]
        table = load_ablation(folder)
    except (OSError, ValueError, KeyError, StateRagError):
        return None, f"{TABLE} starts anew: the one there does not say what it was made with."
    if made_with == wanted:
        return table, ""
    if len(made_with) != len(wanted):
        why = "number of runs"
    else:
        pairs = zip(made_with, wanted, strict=True)
        keys = dict.fromkeys(key for old, new in pairs for key in new if old.get(key) != new[key])
        why = " and another ".join(keys) or "setting"
    return None, f"{TABLE} starts anew: the one there was made with another {why}."
