"""One self-contained HTML page about one or more runs, and every picture of it as PNG and SVG."""

import html
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.evaluation import ablation, plots
from state_rag.evaluation.compare import Comparison
from state_rag.evaluation.metrics import glossary
from state_rag.evaluation.metrics.registry import BY_NAME, Metric
from state_rag.evaluation.report_conditions import choose_conditions, draw_conditions
from state_rag.evaluation.report_page import Report
from state_rag.evaluation.retrieval_analysis import RetrievalAnalysis
from state_rag.evaluation.retrieval_tables import overlap_line
from state_rag.evaluation.runs import Run
from state_rag.evaluation.tables import head, legend, marks, number

logger = logging.getLogger(__name__)
CURVES = ("train_loss", "val_loss", "train/gumbel_active_ratio")


def build_report(
    folder: Path,
    runs: Mapping[str, tuple[Run, Path]],
    comparison: Comparison,
    *,
    retrieval: RetrievalAnalysis | None = None,
    retrieval_of: Sequence[str] = (),
    switched_off: pd.DataFrame | None = None,
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
        Analysis of one method's runs, if any retrieves.
    retrieval_of
        Names of those runs.
    switched_off
        What `state-rag retrieval --ablate` found for one of them, if it was run.
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
    shown = [BY_NAME[name] for name in plots.SHOWN_METRICS if name in compared]
    if shown:
        report.picture(
            "distributions",
            plots.distributions(comparison.values, shown),
            "One value a condition, of those conditions where every predictor has one. Box: quartiles; line: median; "
            "triangle: mean; whiskers: 1.5 interquartile ranges.",
        )
    chosen = choose_conditions(comparison.values[comparison.reference], perturbations)
    how = f"at the 90th, 50th and 10th percentile of {comparison.reference}'s Pearson delta"
    draw_conditions(report, runs, chosen, "as asked for" if perturbations else how)
    _curves(report, {name: run for name, (run, _) in runs.items()})
    if retrieval is not None:
        _retrieval(report, retrieval, retrieval_of)
    if switched_off is not None:
        _ablation(report, switched_off)
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
            report.picture(file, plots.learning_curves(with_it, column), f"{column} as logged during training.")


def logged_values(folder: Path) -> pd.DataFrame | None:
    """Return what a run logged last, with what was set aside each time that its training went on."""
    last = max(folder.glob("version_*/metrics.csv"), key=lambda path: path.stat().st_mtime, default=None)
    if last is None:
        return None
    parts = [pd.read_csv(last)]
    for path in last.parent.glob("metrics_to_step_*.csv"):
        earlier, step = pd.read_csv(path), int(path.stem.rpartition("_")[2])
        parts.append(earlier[earlier["step"] < step] if "step" in earlier else earlier)
    together = pd.concat(parts, ignore_index=True)
    return together.sort_values("step", kind="stable", ignore_index=True) if "step" in together else together


def _retrieval(report: Report, retrieval: RetrievalAnalysis, of: Sequence[str]) -> None:
    report.heading("Retrieval")
    table, summary = retrieval.neighbours, retrieval.summary
    report.text(
        f"Analysed: {', '.join(of)}, {summary['conditions']} conditions in {', '.join(summary['cell_lines'])}. "
        f"{summary['mean_number_selected']:.1f} of {summary['mean_number_retrieved']:.1f} retrieved neighbours are "
        f"selected (mean inclusion above one half); mean inclusion {summary['mean_inclusion']:.3f}."
    )
    report.picture(
        "inclusion_by_rank",
        plots.inclusion_by_rank(table),
        "Mean inclusion by rank of retrieval; bands: two standard errors over conditions.",
    )
    labels = {
        "similarity": "cosine similarity of the embeddings",
        "agreement": "correlation of the two true effects",
    }
    for column, label in labels.items():
        if column in table and table[column].notna().sum() > 2:
            result = summary[f"inclusion_against_{column}"]
            rho = result["mean_spearman_within_conditions"]
            within = f"; mean Spearman correlation within conditions {rho:.2f}" if rho is not None else ""
            figure = plots.inclusion_against(table, column, label)
            report.picture(f"inclusion_by_{column}", figure, f"Inclusion against {label}{within}.")
    if (overlap := plots.jaccard_map(retrieval.overlap)) is not None:
        report.picture(
            "jaccard",
            overlap,
            "Do cell lines choose the same neighbours for the same perturbation? n: perturbations that both lines "
            f"have. In all: {overlap_line(summary)}.",
        )
    for remark in summary.get("remarks", ()):
        report.note(remark)
    if "inclusion_by_relation" in summary:
        rows = [
            [html.escape(name), number(value["mean"]), str(value["candidates"])]
            for name, value in summary["inclusion_by_relation"].items()
        ]
        report.table(["relation (simulated truth)", "mean inclusion", "candidates"], rows)


def _ablation(report: Report, table: pd.DataFrame) -> None:
    report.heading("Neighbours switched off")
    report.note("\n".join(ablation.describe(ablation.summarise(table))))
    report.picture(
        "ablation",
        plots.ablation(table),
        "Left: how far the predicted mean effect moves when one neighbour's weight is set to zero and nothing else "
        "changes. Right: agreement with the real effect with all neighbours, with none, and without single ones.",
    )
