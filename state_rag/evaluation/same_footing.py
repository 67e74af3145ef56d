"""Runs that cover different conditions, evaluated again on the shared ones, so that their values can be compared.

A condition's values depend on the others of its cell line: PCA is fitted on all of them, centred effects are against
their mean, and discrimination is among them.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from state_rag.datasets.treated_labels import TreatmentColumns
from state_rag.effects.conditions import Columns
from state_rag.evaluation.baselines.evidence_row import FITTED
from state_rag.evaluation.evaluate import Settings
from state_rag.evaluation.run_evaluation import READ_FROM, evaluate_run
from state_rag.evaluation.runs import Run
from state_rag.evaluation.up_to_date import (
    BASELINES_LEFT_OUT,
    NOT_ASKED,
    RIDGE,
    has_trained_baselines,
    metadata_in,
    training_state,
)
from state_rag.metrics.registry import BY_NAME, Metric

logger = logging.getLogger(__name__)
Condition = tuple[str, str]
"""A cell line and a perturbation."""
SAME_FOOTING = "runs cover different conditions: evaluated again on the %d shared ones"


def uneven(conditions: Mapping[str, Collection[Condition]]) -> tuple[set[Condition], list[str]]:
    """Return the conditions that all share, and the runs that have further ones in a cell line of these.

    Examples
    --------
    >>> uneven({"a": {("x", "P"), ("x", "Q"), ("y", "P")}, "b": {("x", "P")}})
    ({('x', 'P')}, ['a'])
    >>> uneven({"a": {("x", "P"), ("y", "P")}, "b": {("x", "P")}})[1]
    []
    """
    shared = set.intersection(*map(set, conditions.values()))
    lines = {line for line, _ in shared}
    return shared, [name for name, own in conditions.items() if {key for key in own if key[0] in lines} != {*shared}]


@contextmanager
def on_same_footing(
    done: Mapping[str, tuple[Run, Path]],
    conditions: Mapping[str, Collection[Condition]],
    **asked: Any,
) -> Iterator[dict[str, Path]]:
    """Evaluate runs again, on the shared conditions, where their conditions in a shared cell line differ.

    Parameters
    ----------
    done
        Name to run and the folder of its finished evaluation, which stays as it is.
    conditions
        Name to pairs of cell line and perturbation.
    asked
        Attributes of `Request` in place of those of the finished evaluations; None stands for theirs.

    Yields
    ------
    dict
        Name to folder, of every run: the finished evaluation's, or a temporary one.
    """
    shared, again = uneven(conditions)
    folders = {name: folder for name, (_, folder) in done.items()}
    if not shared or not again:
        yield folders
        return
    logger.info(SAME_FOOTING, len(shared))
    with tempfile.TemporaryDirectory(prefix="state-rag-evaluation-") as place:
        for number, name in enumerate(again):
            run, stored = done[name]
            options = {**_as_stored(metadata_in(stored)), **{key: it for key, it in asked.items() if it is not None}}
            folders[name] = evaluate_run(
                run, conditions=shared, output=Path(place, str(number)), per_gene=(), picture=False, **options
            )
        yield folders


def _as_stored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an evaluation was made with, as attributes of `Request`."""
    left_out = str(metadata["notes"].get(BASELINES_LEFT_OUT, ""))
    read_from = {name: Path(path) for name, path in metadata.get(READ_FROM, {}).items()}
    # What could not be used then, or is not there now, is looked for as for any evaluation.
    if not has_trained_baselines(metadata) or training_state(read_from.get("split")) is None:
        read_from.pop("split", None)
    if left_out.startswith(RIDGE) or not read_from.get("embeddings", Path()).is_file():
        read_from.pop("embeddings", None)
    settings = Settings(**metadata["settings"])
    return {
        "columns": _columns(metadata),
        "settings": settings,
        "metrics": tuple(_metric(name, settings) for name in metadata["metric_names"]),
        "toml": read_from.get("split"),
        "embeddings": read_from.get("embeddings"),
        "with_baselines": left_out != NOT_ASKED,
        "with_evidence": FITTED in metadata["notes"],
    }


def _columns(metadata: Mapping[str, Any]) -> Columns:
    perturbation, cell_line, control = metadata["columns"]
    return Columns(perturbation, cell_line, control, TreatmentColumns.of(metadata.get("treatment_columns", {})))


def _metric(name: str, settings: Settings) -> Metric:
    """Return a metric of the registry, or one of GGE's, which are called `gge_<name>` or `gge_<name>_<space>`."""
    if name in BY_NAME:
        return BY_NAME[name]
    from state_rag.metrics.gge import from_gge

    called, _, space = name.removeprefix("gge_").rpartition("_")
    if space in ("deg", "pca"):
        return from_gge(called, space, **settings.of_gge)
    return from_gge(name.removeprefix("gge_"), **settings.of_gge)
