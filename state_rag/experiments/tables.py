"""The paper's two tables from a sweep, whatever part of it has finished.

Table 1 has a column for each method and naive baseline, Table 2 a column for each K. What has not finished is shown as
missing, and values that stand beside each other are always over the same held-out lines, seeds and conditions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evaluation.results import definitions
from state_rag.experiments.finished import Shared, Sweep, compare_shared
from state_rag.experiments.jobs import kind_of
from state_rag.experiments.methods import Method, find_methods
from state_rag.experiments.table_notes import compared, line_notes, notes_of
from state_rag.files import atomic_path
from state_rag.metrics.registry import BY_NAME, METRICS, Metric, refuse_unknown
from state_rag.report import grid as rendering
from state_rag.report.grid import Cell, Grid, mark_best
from state_rag.report.tables import head, number, value_cell

MISSING = "missing"
NUMBERS = (
    "mean",
    "sd",
    "n",
    "n_missing",
    "difference",
    "p_mann_whitney",
    "p_wilcoxon",
    "q_mann_whitney",
    "q_wilcoxon",
    "sd_over_seeds",
    "n_seeds",
)
"""Columns of the CSV that only predictors with results fill."""

PAPER = tuple(metric.name for metric in METRICS if metric.in_paper)


@dataclass
class Table:
    """A table to print and to write.

    Attributes
    ----------
    name
        Stem of its files.
    grid, rows
        What is shown, and the numbers behind it one a row.
    metrics
        What is shown, as the results define it.
    title
        What the means are over.
    """

    name: str
    grid: Grid
    rows: pd.DataFrame
    metrics: list[Metric]
    title: str = ""


def all_of(sweep: Sweep) -> str:
    """Return what the means over everything that is held out in turn are called: `all lines`, `all folds`."""
    return f"all {kind_of(sweep.lines)}s"


def choose_methods(sweep: Sweep, words: Sequence[str] | None) -> list[Method]:
    """Return the sweep's methods, or those that `--methods` names, at every K they have."""
    if not words:
        return sweep.methods
    names = {name for word in words for name in find_methods(word, sweep.methods, "--methods")}
    return [method for method in sweep.methods if method.name in names]


def choose_reference(methods: Sequence[Method], word: str | None) -> str:
    """Return the name of the method to test against: the named one, else PT-RAG, else the last."""
    if word is not None:
        names = find_methods(word, methods, "--reference")
        if len(names) > 1:
            raise StateRagError(f"--reference {word!r} could be any of: {', '.join(names)}. Name one of them.")
        return names[0]
    ours = [method.name for method in methods if method.mode == "differentiable"]
    return ours[0] if ours else methods[-1].name


def table1(
    sweep: Sweep,
    *,
    methods: Sequence[str] | None = None,
    reference: str | None = None,
    metrics: Sequence[str] = PAPER,
    topk: int | None = None,
    by_line: bool = False,
) -> Table:
    """Return metrics by methods, or, with `by_line`, metrics and methods by held-out lines.

    Parameters
    ----------
    sweep
        From `finished.read_sweep`.
    methods, reference
        Names, modes or presets; by default all, tested against PT-RAG.
    metrics
        Names of metrics.
    topk
        K of the methods that retrieve; by default the largest that the sweep has for each.
    by_line
        Whether to show each held-out line in a column of its own.

    Raises
    ------
    StateRagError
        If a method, metric or K is unknown.
    """
    chosen = _at_one_k(sweep, choose_methods(sweep, methods), topk)
    names = {method: method.name for method in chosen}
    tested = choose_reference(chosen, reference)
    against = next(method for method in chosen if method.name == tested)
    _refuse_unknown(sweep, metrics)
    overall = compare_shared(sweep, names, against, metrics)
    shown = _metrics(metrics, overall)
    notes = notes_of(sweep, names, overall, tested)
    everything = all_of(sweep)
    whole = _long(sweep, names, overall, everything, sweep.lines, metrics)
    if not by_line:
        return Table("table1", _by_method(sweep, chosen, overall, shown, notes), whole, shown)
    columns = {line: compare_shared(sweep, names, against, metrics, [line]) for line in sweep.lines}
    notes = notes.replace("Best value of a row", "Best value of each metric and column")
    notes = "\n".join([notes, *(note for line, shared in columns.items() for note in line_notes(line, shared))])
    parts = [_long(sweep, names, shared, line, [line], metrics) for line, shared in columns.items()]
    return Table(
        "table1_by_line",
        _by_line(sweep, chosen, {**columns, everything: overall}, shown, notes),
        pd.concat([*parts, whole], ignore_index=True),
        shown,
    )


def table2(sweep: Sweep, *, metric: str = "pearson_deg", methods: Sequence[str] | None = None) -> Table:
    """Return one metric by method and K, with the methods and naive baselines that retrieve nothing beside it.

    Raises
    ------
    StateRagError
        If no method of the sweep retrieves, or the metric is unknown.
    """
    chosen = choose_methods(sweep, methods)
    every_k = sorted({method.topk for method in chosen if method.topk is not None})
    if not every_k:
        raise StateRagError(
            f"{sweep.folder}: no method of this sweep retrieves, so there is no K to compare. Methods: "
            f"{', '.join(method.name for method in chosen)}. Sweep rag=vanilla,ptrag training.topk_rag=2,5,10,32."
        )
    full = dict.fromkeys(at for method in chosen for at in ([method.at(k) for k in every_k] or [method]))
    names = {method: f"{method.name}, K = {method.topk}" if method.retrieves else method.name for method in full}
    _refuse_unknown(sweep, [metric], "--metric")
    shared = compare_shared(sweep, names, None, [metric])
    (chosen_metric,) = _metrics([metric], shared)
    rows: list[tuple[tuple[str, ...], list[Cell]]] = []
    empty = [Cell("")] * len(every_k)
    for baseline in shared.baselines if shared else []:
        rows.append(((baseline,), [_value(shared, baseline, chosen_metric), *empty]))
    for name in dict.fromkeys(method.name for method in full):
        here = {method.topk: method for method in full if method.name == name}
        if None in here:
            rows.append(((name,), [_value_or_missing(sweep, shared, here[None], names, chosen_metric), *empty]))
        else:
            cells = [_value_or_missing(sweep, shared, here[k], names, chosen_metric) for k in every_k]
            rows.append(((name,), [Cell(""), *cells]))
    _mark_best_of_all(rows, shared, chosen_metric)
    notes = f"{head(chosen_metric)}. {notes_of(sweep, names, shared, None)}"
    columns = ["no retrieval", *(f"K = {k}" for k in every_k)]
    long = _long(sweep, names, shared, all_of(sweep), sweep.lines, [metric])
    title = compared(shared) if shared else ""
    return Table(f"table2_{metric}", Grid(("method",), columns, rows, notes), long, [chosen_metric], title)


def save_table(table: Table, folder: Path) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, and return the files."""
    texts = {"md": rendering.markdown(table.grid), "tex": rendering.latex(table.grid)}
    texts["csv"] = table.rows.to_csv(index=False)
    written = []
    for suffix in ("csv", "md", "tex"):
        with atomic_path(folder / f"{table.name}.{suffix}") as path:
            path.write_text(texts[suffix], encoding="utf-8")
        written.append(folder / f"{table.name}.{suffix}")
    return written


def _at_one_k(sweep: Sweep, methods: Sequence[Method], topk: int | None) -> list[Method]:
    """Return each method at the K asked for, or at its largest that has results (the largest, if none has)."""
    every_k = sorted({method.topk for method in methods if method.topk is not None})
    if topk is not None and topk not in every_k:
        raise StateRagError(f"--topk {topk}: the sweep has K = {', '.join(map(str, every_k)) or 'none'}.")
    chosen: dict[str, Method] = {}
    for method in methods:
        if topk is not None:
            chosen[method.name] = method.at(topk)
        elif sweep.finished(method) or not sweep.finished(chosen.get(method.name, method)):
            chosen[method.name] = method
    return list(chosen.values())


def _refuse_unknown(sweep: Sweep, metrics: Sequence[str], flag: str = "--metrics") -> None:
    """Refuse metrics that neither the registry nor the results know."""
    known = [*BY_NAME, *definitions([found.folder for found in sweep.results.values()])]
    refuse_unknown(list(metrics), flag, list(dict.fromkeys(known)))


def _metrics(names: Sequence[str], shared: Shared | None) -> list[Metric]:
    """Return the metrics of these names, as the results define them where there are some."""
    known = {metric.name: metric for metric in shared.comparison.metrics} if shared else BY_NAME
    return [known[name] for name in names]


def _value(shared: Shared | None, name: str, metric: Metric) -> Cell:
    assert shared is not None
    return value_cell(shared.comparison.cell(name, metric.name), spread=shared.spread(name, metric.name))


def _value_or_missing(
    sweep: Sweep, shared: Shared | None, method: Method, names: Mapping[Method, str], metric: Metric
) -> Cell:
    if shared is not None and names[method] in shared.comparison.predictors:
        return _value(shared, names[method], metric)
    return Cell(f"{MISSING} {_count(sweep, method)}")


def _count(sweep: Sweep, method: Method, lines: Sequence[str] | None = None) -> str:
    """Return how many of a method's runs have finished, such as `3/12`."""
    whole = len(sweep.lines if lines is None else lines) * len(sweep.seeds)
    return f"{len(sweep.finished(method, lines))}/{whole}"


def _by_method(
    sweep: Sweep, methods: Sequence[Method], shared: Shared | None, metrics: Sequence[Metric], notes: str
) -> Grid:
    baselines = shared.baselines if shared else []
    predictors = [*baselines, *(method.name for method in methods)]
    rows: list[tuple[tuple[str, ...], list[Cell]]] = [
        ((head(metric),), _marked([shared] * len(predictors), predictors, metric)) for metric in metrics
    ]
    counts = [Cell("")] * len(baselines) + [Cell(_count(sweep, method)) for method in methods]
    return Grid(("metric",), predictors, [*rows, (("finished runs",), counts)], notes)


def _by_line(
    sweep: Sweep,
    methods: Sequence[Method],
    columns: Mapping[str, Shared | None],
    metrics: Sequence[Metric],
    notes: str,
) -> Grid:
    baselines = list(dict.fromkeys(name for shared in columns.values() if shared for name in shared.baselines))
    predictors = [*baselines, *(method.name for method in methods)]
    rows: list[tuple[tuple[str, ...], list[Cell]]] = []
    for metric in metrics:
        block = [_marked([shared] * len(predictors), predictors, metric) for shared in columns.values()]
        for place, name in enumerate(predictors):
            rows.append(((head(metric), name), [cells[place] for cells in block]))
    for method in methods:
        counts = [_count(sweep, method, None if line not in sweep.lines else [line]) for line in columns]
        rows.append((("finished runs", method.name), [Cell(count) for count in counts]))
    return Grid(("metric", "method"), list(columns), rows, notes)


def _marked(shared: Sequence[Shared | None], predictors: Sequence[str], metric: Metric) -> list[Cell]:
    """Return the cells of some predictors, the best in bold, those without results as missing."""
    found = [
        part.comparison.cell(name, metric.name) if part is not None and name in part.comparison.predictors else None
        for part, name in zip(shared, predictors, strict=True)
    ]
    values = [float("nan") if row is None else float(row["mean"]) for row in found]
    cells = []
    for part, name, row, best in zip(
        shared, predictors, found, mark_best(values, metric.higher_is_better), strict=True
    ):
        if part is None or row is None:
            cells.append(Cell(MISSING))
        else:
            cells.append(value_cell(row, best, part.spread(name, metric.name)))
    return cells


def _mark_best_of_all(rows: list[tuple[tuple[str, ...], list[Cell]]], shared: Shared | None, metric: Metric) -> None:
    """Mark the best value of a whole table."""
    if shared is None:
        return
    found = shared.comparison.rows[shared.comparison.rows["metric"] == metric.name]["mean"]
    best = number(float(found.max() if metric.higher_is_better else found.min()))
    for place, (names, cells) in enumerate(rows):
        marked = [Cell(cell.text, cell.text == best, spread=cell.spread) for cell in cells]
        rows[place] = names, marked


def _long(
    sweep: Sweep,
    names: Mapping[Method, str],
    shared: Shared | None,
    held_out: str,
    lines: Sequence[str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """Return a table's numbers, one row a predictor and metric, with rows for what is missing."""
    rows = []
    by_name = {name: method for method, name in names.items()}
    baselines = shared.baselines if shared else []
    for predictor in [*baselines, *names.values()]:
        method = by_name.get(predictor)
        for metric in metrics:
            known = shared is not None and predictor in shared.comparison.predictors
            row: dict[str, object] = {
                "predictor": predictor,
                "method": method.name if method else predictor,
                "K": method.topk if method else None,
                "metric": metric,
                "held_out": held_out,
                "status": "shown" if known else MISSING,
                "finished_runs": len(sweep.finished(method, lines)) if method else None,
                "expected_runs": len(lines) * len(sweep.seeds) if method else None,
                "missing_runs": "; ".join(
                    f"{line} seed {seed} ({why})" for (line, seed), why in sweep.missing(method, lines).items()
                )
                if method
                else "",
                "lines": " ".join(shared.lines) if shared and known else "",
                "seeds": " ".join(map(str, shared.seeds)) if shared and known else "",
            }
            if shared is not None and known:
                found = shared.comparison.cell(predictor, metric).drop(["predictor", "metric"])
                row.update(found.to_dict())
            rows.append(row)
    table = pd.DataFrame(rows)
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *NUMBERS]))).infer_objects()
    for column in ("K", "finished_runs", "expected_runs", "n", "n_missing", "n_seeds"):
        table[column] = table[column].astype("Int64")
    return table
