"""One self-contained HTML page about one or more runs, and every picture of it as PNG and SVG."""

import base64
import html
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from state_rag.errors import StateRagError
from state_rag.evaluation import ablation, plots
from state_rag.evaluation.cell_maps import cell_maps
from state_rag.evaluation.compare import Comparison
from state_rag.evaluation.conditions import open_pair
from state_rag.evaluation.metrics import glossary
from state_rag.evaluation.metrics.registry import BY_NAME, Metric
from state_rag.evaluation.results import load_profiles
from state_rag.evaluation.retrieval_analysis import RetrievalAnalysis
from state_rag.evaluation.runs import PREDICTED, REAL, Run, predicted_matrix
from state_rag.evaluation.tables import head, legend, marks, number
from state_rag.files import atomic_path
from state_rag.names import listing, suggest

logger = logging.getLogger(__name__)
CURVES = ("train_loss", "val_loss", "train/gumbel_active_ratio")
CHOSEN_AT = (0.9, 0.5, 0.1)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: right; }
.words th, .words td { text-align: left; vertical-align: top; } .words code { white-space: normal; }
summary { cursor: pointer; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #444; vertical-align: bottom; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5em 0; } figcaption, .note { font-size: 13px; color: #555; }
"""


@dataclass
class Report:
    """A page that is put together piece by piece.

    Attributes
    ----------
    title
        Heading of the page.
    folder
        Where page and pictures go.
    """

    title: str
    folder: Path
    parts: list[str] = field(default_factory=list)
    pictures: list[tuple[str, Figure]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Start a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """Add small print; line breaks are kept."""
        self.parts.append(f'<p class="note">{html.escape(text).replace(chr(10), "<br>")}</p>')

    def table(self, head: list[str], rows: list[list[str]], kind: str = "numbers") -> None:
        """Add a table of `numbers` or of `words`; cells are HTML."""
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        self.parts.append(f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>')

    def folded(self, title: str, head: list[str], rows: list[list[str]], note: str) -> None:
        """Add a table, with small print below it, that is shown on a click on its title."""
        self.parts.append(f"<details><summary>{html.escape(title)}</summary>")
        self.table(head, rows, "words")
        self.note(note)
        self.parts.append("</details>")

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        """Add a picture; it is embedded in the page and also written as `name.png` and `name.svg`."""
        stream = io.BytesIO()
        plots.settle(figure)
        figure.savefig(stream, format="png", dpi=130)
        data = base64.b64encode(stream.getvalue()).decode()
        text = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )
        self.pictures.append((name, figure))

    def write(self) -> Path:
        """Write the pictures and, last, `index.html`."""
        for name, figure in self.pictures:
            plots.save_figure(figure, self.folder / "plots", name)
        title = html.escape(self.title)
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>\n" + "\n".join(self.parts) + "\n</body></html>\n"
        )
        with atomic_path(self.folder / "index.html") as path:
            path.write_text(page, encoding="utf-8")
        return self.folder / "index.html"


def build_report(
    folder: Path,
    runs: Mapping[str, tuple[Run, Path]],
    tables: Mapping[str, pd.DataFrame],
    comparison: Comparison,
    *,
    retrieval: RetrievalAnalysis | None = None,
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
    tables
        Predictor (baselines included) to per-condition table.
    comparison
        Of these tables.
    retrieval
        Analysis of the runs that retrieve, if any.
    switched_off
        What `state-rag retrieval --ablate` found for one of them, if it was run.
    perturbations
        Conditions to draw; by default those at the 90th, 50th and 10th percentile of the reference's Pearson delta.
    remarks
        What a reader should know about the baselines.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    StateRagError
        If a chosen perturbation was not predicted.
    """
    report = Report("Evaluation of " + ", ".join(runs), folder)
    _summary(report, comparison)
    report.heading("All metrics")
    _comparison_table(report, comparison, remarks)
    report.heading("Per condition")
    shown = [BY_NAME[name] for name in plots.SHOWN_METRICS if all(name in table for table in tables.values())]
    if shown:
        report.picture(
            "distributions",
            plots.distributions(tables, shown),
            "One value a condition. Box: quartiles; line: median; triangle: mean; whiskers: 1.5 interquartile ranges.",
        )
    for name, (run, results) in runs.items():
        _effects_and_cells(report, name, run, results, perturbations)
    _curves(report, {name: run for name, (run, _) in runs.items()})
    if retrieval is not None:
        _retrieval(report, retrieval)
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


def _effects_and_cells(report: Report, name: str, run: Run, results: Path, wanted: list[str] | None) -> None:
    """Draw real against predicted effects and cells of a few conditions."""
    profiles, _ = load_profiles(results)
    table = pd.read_csv(results / "results.csv", dtype={"perturbation": str, "cell_line": str})
    chosen = choose_conditions(table, wanted)
    if chosen.empty:
        return
    report.heading(f"{name}: chosen conditions")
    panels, correlations = [], []
    for row in chosen.itertuples():
        line = profiles[str(row.cell_line)]
        place = line.perturbations.index(str(row.perturbation))
        effects = line.real[place] - line.control, line.predicted[place] - line.control
        panels.append((f"{row.perturbation} in {row.cell_line}", *effects, line.degs[place]))
        correlations.append(float(row.pearson_delta))  # type: ignore[arg-type]
    how = "as asked for" if wanted else "at the 90th, 50th and 10th percentile of Pearson delta"
    safe = "".join(sign if sign.isalnum() else "_" for sign in name)
    report.picture(
        f"effects_{safe}",
        plots.effect_scatter(panels, correlations),
        f"Mean effect of each gene against the real control, conditions {how}. Dashed: perfect prediction.",
    )
    pair = open_pair(run.predictions / PREDICTED, run.predictions / REAL, run.columns, matrix=predicted_matrix(run))
    of = str(chosen.iloc[0]["cell_line"])
    same_line = chosen[chosen["cell_line"] == of]
    for drawn in cell_maps(pair, of, [str(value) for value in same_line["perturbation"]]):
        report.picture(f"{drawn.name}_{safe}", drawn.figure, drawn.caption)


def choose_conditions(table: pd.DataFrame, wanted: list[str] | None) -> pd.DataFrame:
    """Return the rows of the conditions to draw, best first.

    Raises
    ------
    StateRagError
        If a wanted perturbation was not predicted.
    """
    if wanted:
        known = sorted(set(table["perturbation"]))
        if missing := [name for name in wanted if name not in known]:
            raise StateRagError(
                f"--perturbations: '{missing[0]}' was not predicted"
                f"{suggest(missing[:1], known)}; predicted are {listing(known)}"
            )
        return table[table["perturbation"].isin(wanted)].drop_duplicates("perturbation")
    if "pearson_delta" not in table:
        return table.iloc[:0]
    ranked = table.dropna(subset=["pearson_delta"]).sort_values("pearson_delta", kind="stable")
    if ranked.empty:
        return ranked
    places = [round(share * (len(ranked) - 1)) for share in CHOSEN_AT]
    return ranked.iloc[list(dict.fromkeys(places))]


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


def _retrieval(report: Report, retrieval: RetrievalAnalysis) -> None:
    report.heading("Retrieval")
    table, summary = retrieval.neighbours, retrieval.summary
    report.text(
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
    if len(retrieval.jaccard) > 1:
        figure = plots.jaccard_map(retrieval.jaccard, retrieval.shared)
        report.picture("jaccard", figure, "Do cell lines select the same neighbours for the same perturbation?")
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
