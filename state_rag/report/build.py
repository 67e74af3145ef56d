"""One self-contained HTML page about one or more runs, and every picture of it as PNG and SVG."""

import html
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.analysis.ablation_files import SwitchedOff
from state_rag.evaluation.compare import Comparison
from state_rag.evaluation.runs import Run
from state_rag.files import damage_told
from state_rag.metrics import glossary
from state_rag.metrics.registry import BY_NAME, Metric
from state_rag.plot import figures
from state_rag.report.called_genes import show_called_genes
from state_rag.report.conditions import choose_conditions, draw_conditions, why_none
from state_rag.report.evidence import show_evidence
from state_rag.report.page import Report
from state_rag.report.retrieval import Analysed, show_retrieval, show_switched_off
from state_rag.report.tables import head, legend, marks, number
from state_rag.report.trust import show_trust

logger = logging.getLogger(__name__)
CURVES = ("train_loss", "val_loss", "train/gumbel_active_ratio")


def build_report(
    folder: Path,
    runs: Mapping[str, tuple[Run, Path]],
    comparison: Comparison,
    *,
    retrieval: Sequence[Analysed] = (),
    switched_off: Sequence[SwitchedOff] = (),
    perturbations: list[str] | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write the report.

    Parameters
    ----------
    folder
        Where to.
    runs
        Name to run and results folder.
    comparison
        Of these runs and the reference's baselines.
    retrieval
        One for each method that retrieves.
    switched_off
        What `state-rag retrieval --ablate` found, of the runs that it was run for.
    perturbations
        Perturbations to draw, in every cell line; by default the conditions at the 90th, 50th and 10th percentile of
        the reference's Pearson delta. The same conditions are drawn for all runs.
    remarks
        What a reader should know about the baselines.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    StateRagError
        If a chosen perturbation was not predicted by every run.
    """
    report = Report("Evaluation of " + ", ".join(runs), folder)
    _summary(report, comparison)
    report.heading("All metrics")
    _comparison_table(report, comparison, remarks)
    report.heading("Per condition")
    compared = {metric.name for metric in comparison.metrics}
    shown = [BY_NAME[name] for name in figures.SHOWN_METRICS if name in compared]
    if shown:
        report.picture(
            "distributions",
            figures.distributions(comparison.values, shown),
            "One value a condition, of those conditions where every predictor has one. Box: quartiles; line: median; "
            "triangle: mean; whiskers: 1.5 interquartile ranges.",
        )
    else:
        report.note(
            "Not drawn, since none of these metrics is shown (--metrics): "
            + ", ".join(BY_NAME[name].label for name in figures.SHOWN_METRICS)
            + "."
        )
    chosen = choose_conditions(comparison.values[comparison.reference], perturbations)
    how = f"at the 90th, 50th and 10th percentile of {comparison.reference}'s Pearson delta"
    draw_conditions(report, runs, chosen, "as asked for" if perturbations else how)
    if not chosen:
        report.heading("Chosen conditions")
        report.note(why_none(comparison.values[comparison.reference]))
    show_trust(report, runs)
    show_called_genes(report, runs)
    show_evidence(report, runs, comparison.values, perturbations)
    _curves(report, {name: run for name, (run, _) in runs.items()})
    show_retrieval(report, retrieval)
    show_switched_off(report, switched_off)
    return report.write()


def _summary(report: Report, comparison: Comparison) -> None:
    report.heading("Summary")
    report.text(
        f"{comparison.n_conditions} conditions (perturbation in a cell line, controls excluded); reference: "
        f"{comparison.reference}. The naive baselines come from the data the reference was trained on."
    )
    for metric in comparison.metrics:
        if metric.name in ("pearson_delta", "energy_pca50"):
            means = {name: float(comparison.cell(name, metric.name)["mean"]) for name in comparison.predictors}
            order = sorted((n for n in means if np.isfinite(means[n])), key=means.__getitem__)
            order = order[::-1] if metric.higher_is_better else order
            ranked = ", ".join(f"{name} {number(means[name])}" for name in order)
            report.text(f"{metric.label}, best first: {ranked}.")


def _comparison_table(report: Report, comparison: Comparison, remarks: Sequence[str]) -> None:
    rows = []
    for metric in comparison.metrics:
        cells = [comparison.cell(name, metric.name) for name in comparison.predictors]
        best = _best(metric, [float(cell["mean"]) for cell in cells])
        row = [html.escape(head(metric))]
        for cell in cells:
            text = number(float(cell["mean"]))
            dagger, star = marks(cell["q_mann_whitney"], cell["q_wilcoxon"])
            row.append((f"<b>{text}</b>" if cell["mean"] == best else text) + f"<sup>{dagger}{star}</sup>")
        rows.append(row)
    report.table(["metric", *comparison.predictors], rows)
    report.note("\n".join([legend(comparison), *remarks]))
    _glossary(report, comparison.metrics)


def _glossary(report: Report, metrics: Sequence[Metric]) -> None:
    """Say what the metrics shown mean; those that come from GGE are described there."""
    head = ["metric", "space", "definition", "values", "source"]
    rows = [
        [
            html.escape(label),
            html.escape(space),
            f"{html.escape(meaning)}<br><code>{html.escape(formula)}</code>",
            html.escape(values),
            html.escape(source),
        ]
        for label, _, space, formula, meaning, values, source in glossary.rows([m for m in metrics if m.formula])
    ]
    report.folded("What the metrics mean", head, rows, f"{glossary.SYMBOLS}\n{glossary.SPACES_LINE}.")


def _best(metric: Metric, means: list[float]) -> float:
    known = [value for value in means if np.isfinite(value)]
    return float("nan") if not known else max(known) if metric.higher_is_better else min(known)


def _curves(report: Report, runs: Mapping[str, Run]) -> None:
    """Draw what the runs logged while they trained."""
    logs: dict[str, pd.DataFrame] = {}
    for name, run in runs.items():
        logged = logged_values(run.folder)
        if logged is not None:
            logs[name] = logged
    started = False
    for column in CURVES:
        with_it = {n: t for n, t in logs.items() if {column, "step"} <= set(t) and t[column].notna().sum() > 1}
        if with_it:
            if not started:
                report.heading("Learning curves")
                started = True
            file = "curve_" + column.replace("/", "_")
            report.picture(file, figures.learning_curves(with_it, column), f"{column} as logged during training.")


def _logged(path: Path) -> pd.DataFrame:
    with damage_told(path, "Move it away, and the report is made without learning curves."):
        return pd.read_csv(path)  # numbers alone, among them nan as Lightning writes it


def logged_values(folder: Path) -> pd.DataFrame | None:
    """Return what a run logged last, with what was set aside each time that its training went on."""
    last = max(folder.glob("version_*/metrics.csv"), key=lambda path: path.stat().st_mtime, default=None)
    if last is None:
        return None
    parts = [_logged(last)]
    for path in last.parent.glob("metrics_to_step_*.csv"):
        earlier, step = _logged(path), int(path.stem.rpartition("_")[2])
        parts.append(earlier[earlier["step"] < step] if "step" in earlier else earlier)
    together = pd.concat(parts, ignore_index=True)
    return together.sort_values("step", kind="stable", ignore_index=True) if "step" in together else together
