"""The files of ablations: conditions are added to those that earlier commands found in the same way."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evaluation.ablation import summarise
from state_rag.files import atomic_path
from state_rag.names import listing

TABLE, SUMMARY = "ablation.csv", "ablation.json"
CONDITION = ["cell_line", "perturbation"]


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
    text = {"cell_line": str, "perturbation": str, "neighbour": str}
    table = pd.read_csv(path, dtype={**text, "rank": "Int64"}, keep_default_na=False, na_values=[""])
    if missing := {"neighbour", "inclusion", "relative_change", "help"} - set(table):
        raise StateRagError(f"{path}: no column '{min(missing)}'; make it again with `state-rag retrieval --ablate`")
    return table


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
