"""What of an evaluation goes to the W&B run of its training: the table, the conditions and the plots."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.evaluation.compare import compare
from state_rag.evaluation.results import SUMMARY, definitions, load_tables
from state_rag.evaluation.runs import Run
from state_rag.files import sample_digest
from state_rag.tracking.evaluation_run import log_evaluation


def send_evaluation(run: Run, folder: Path) -> bool:
    """Log a finished evaluation to the W&B run of a training, unless it is there; see `log_evaluation`.

    Parameters
    ----------
    run
        From `runs.find_run`.
    folder
        The evaluation, as `evaluate_run` returns it.

    Returns
    -------
    bool
        Whether it was logged.
    """
    model, baselines, _ = load_tables(folder)
    known = definitions([folder])
    metrics = [name for name in known if name in model]
    predictors = {str(name): table for name, table in baselines.groupby("predictor", sort=False)}
    own = f"{run.name} (run)" if run.name in predictors else run.name
    predictors[own] = model
    shown = [name for name in metrics if all(name in table for table in predictors.values())]
    comparison = compare(predictors, own, shown, known)
    rows: list[list[Any]] = [
        [name, len(table), *(_number(comparison.cell(name, metric)["mean"]) for metric in shown)]
        for name, table in predictors.items()
    ]
    means = {metric: value for metric in metrics if (value := _number(model[metric].mean())) is not None}
    conditions = model[["perturbation", "cell_line", *metrics]]
    listed = [[_plain(value) for value in row] for row in conditions.itertuples(index=False)]
    return log_evaluation(
        run.folder,
        means=means,
        tables={
            "table": (["predictor", "conditions", *shown], rows),
            "conditions": (list(conditions.columns), listed),
        },
        pictures={path.stem: path for path in sorted((folder / "plots").glob("*.png"))},
        notes={"checkpoint": run.predictions.name.removeprefix("eval_")},
        digest=sample_digest(folder / SUMMARY),
    )


def _number(value: Any) -> float | None:
    return float(value) if pd.notna(value) and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else _number(value)
