"""What a sweep has finished so far, and the part of it that methods can be compared on."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evaluation.compare import KEY, Comparison, compare, in_common
from state_rag.evaluation.real_side import refuse_other_real_cells
from state_rag.evaluation.results import SUMMARY, definitions, load_tables
from state_rag.evaluation.runs import RESULTS
from state_rag.experiments.jobs import Job, kind_of, read_jobs
from state_rag.experiments.lock import is_locked
from state_rag.experiments.methods import Method, in_order, methods_of
from state_rag.names import suggest

logger = logging.getLogger(__name__)
Place = tuple[str, int]
"""A held-out line, or fold of perturbations, and a seed."""


@dataclass(frozen=True)
class Results:
    """The evaluation of one job: values per condition, of the model and of naive baselines."""

    folder: Path
    model: pd.DataFrame
    baselines: dict[str, pd.DataFrame]


@dataclass
class Sweep:
    """A sweep's jobs as a grid of methods and places.

    Attributes
    ----------
    folder
        The sweep's folder.
    methods
        In table order.
    lines, seeds
        Every held-out line and seed that a job has.
    jobs
        By method and place; combinations without a job are not there.
    results
        Of the finished jobs that have an evaluation.
    """

    folder: Path
    methods: list[Method]
    lines: list[str]
    seeds: list[int]
    jobs: dict[tuple[Method, Place], Job]
    results: dict[tuple[Method, Place], Results]

    def finished(self, method: Method, lines: Iterable[str] | None = None) -> set[Place]:
        """Return the places where a method has results, of all lines or of the given ones."""
        wanted = set(self.lines if lines is None else lines)
        return {place for other, place in self.results if other == method and place[0] in wanted}

    def missing(self, method: Method, lines: Iterable[str] | None = None) -> dict[Place, str]:
        """Return the places where a method has no results, each with the reason."""
        found = {}
        for line in self.lines if lines is None else lines:
            for seed in self.seeds:
                if (method, (line, seed)) not in self.results:
                    job = self.jobs.get((method, (line, seed)))
                    found[line, seed] = "not in the sweep" if job is None else _why_missing(self.folder, job)
        return found

    @property
    def is_done(self) -> bool:
        """Whether no job waits or runs."""
        return not any(job.status in ("waiting", "running") for job in self.jobs.values())


def read_sweep(folder: Path) -> Sweep:
    """Read the records of a sweep and the evaluations of its finished jobs.

    Raises
    ------
    StateRagError
        If the folder is no sweep or has no job, or two jobs stand for the same cell of a table.
    """
    jobs = read_jobs(folder)
    if not jobs:
        raise StateRagError(f"{folder}: the sweep has no jobs yet. Start it with `state-rag sweep`.")
    methods = methods_of(jobs)
    grid: dict[tuple[Method, Place], Job] = {}
    results: dict[tuple[Method, Place], Results] = {}
    for job in jobs:
        key = methods[job.name], (job.held_out, job.seed)
        if key in grid:
            raise StateRagError(_same_cell(folder, key[0], grid[key], job))
        grid[key] = job
        found = _results(job)
        if found is not None:
            results[key] = found
    lines = list(dict.fromkeys(job.held_out for job in jobs))
    seeds = sorted({job.seed for job in jobs})
    return Sweep(folder, in_order(methods.values()), lines, seeds, grid, results)


def sweep_state(folder: Path) -> list[tuple[str, str, int]]:
    """Return what tables change with, quickly: each job's name and status, and when its evaluation was written."""
    return [(job.name, job.status, _stamp(job)) for job in read_jobs(folder)]


def _stamp(job: Job) -> int:
    """Return the time of a finished job's evaluation in nanoseconds, 0 where there is none."""
    if job.status != "finished" or job.predictions is None:
        return 0
    try:
        return (job.predictions / RESULTS / SUMMARY).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=512)
def _load(folder: Path, stamp: int) -> Results | None:
    """Read an evaluation; a watched sweep's are read again only when `stamp`, their time, has changed."""
    try:
        model, baselines, _ = load_tables(folder)
    except (StateRagError, FileNotFoundError):
        return None  # it is being written again
    return Results(folder, model, {str(name): rows for name, rows in baselines.groupby("predictor", sort=False)})


def _results(job: Job) -> Results | None:
    stamp = _stamp(job)
    return _load(job.predictions / RESULTS, stamp) if stamp and job.predictions is not None else None


def _same_cell(folder: Path, method: Method, first: Job, second: Job) -> str:
    """Return the error for two jobs that stand for one cell of a table."""
    differing = sorted(set(first.overrides) ^ set(second.overrides))
    what = f"They differ in {', '.join(differing)}" if differing else "They differ in their data or software only"
    return (
        f"{folder}: the jobs {first.name} and {second.name} are both {method.name}, K {first.topk}, held-out "
        f"{kind_of([first.held_out])} {first.held_out}, seed {first.seed}. {what}, which tables do not tell apart. "
        "Sweep them into folders of their own (sweep_dir), or remove the outdated one's record, NAME.json, from "
        f"{folder / 'jobs'}."
    )


def _why_missing(folder: Path, job: Job) -> str:
    if job.status == "running" and not _is_worked_on(folder, job):
        return "stopped, or running on another machine"
    if job.status == "finished":
        return f"not evaluated; see {job.log}"
    return f"failed; see {job.log}" if job.status == "failed" else job.status


def _is_worked_on(folder: Path, job: Job) -> bool:
    """Whether a process holds the job; taken for granted where that cannot be told."""
    try:
        return is_locked(folder, job.name)
    except OSError:
        return True


@dataclass
class Shared:
    """Methods on the lines, seeds and conditions that all of them have finished.

    Attributes
    ----------
    comparison
        Means and tests. Each predictor's `mean` is the mean over seeds of the mean over the conditions of all lines;
        `sd_over_seeds` is that mean's standard deviation (NaN with one seed). The tests take one value a condition,
        its mean over seeds, so that seeds do not pass for conditions.
    lines, seeds
        What was compared.
    baselines
        Names of the naive baselines.
    unused
        Number of finished runs outside of these lines and seeds, for each method that has some.
    """

    comparison: Comparison
    lines: tuple[str, ...]
    seeds: tuple[int, ...]
    baselines: list[str] = field(default_factory=list)
    unused: dict[str, int] = field(default_factory=dict)

    def spread(self, predictor: str, metric: str) -> float:
        """Return the standard deviation over seeds; NaN with one seed, or where it is rounding error."""
        row = self.comparison.cell(predictor, metric)
        spread = float(row["sd_over_seeds"])
        return spread if spread > 1e-9 * abs(float(row["mean"])) else float("nan")


def compare_shared(
    sweep: Sweep,
    names: Mapping[Method, str],
    reference: Method | None,
    metrics: Sequence[str],
    lines: Sequence[str] | None = None,
) -> Shared | None:
    """Compare methods on what all of them have finished; None where nothing has.

    A method without results is left out. So is one whose results share no line and seed with the others'. Of the lines
    and seeds that the rest have in common the largest full rectangle is taken (every line with every seed), so that
    no mean is over another set of lines than its neighbour's.

    Parameters
    ----------
    sweep
        From `read_sweep`.
    names
        The methods to compare, and what to call them.
    reference
        The method that others are tested against; where it is left out, there are no tests.
    metrics
        Names of metrics; the tests are corrected over them.
    lines
        Only these held-out lines.

    Raises
    ------
    StateRagError
        If an evaluation lacks one of the metrics, or methods have no condition in common or other real cells.
    """
    finished = {method: sweep.finished(method, lines) for method in names}
    included, some_lines, some_seeds = shared_places(finished, reference)
    if not included:
        return None
    shared_lines, shared_seeds = [x for x in sweep.lines if x in some_lines], sorted(some_seeds)
    places = [(line, seed) for seed in shared_seeds for line in shared_lines]
    chosen = {names[method]: {place: sweep.results[method, place] for place in places} for method in included}
    for line, seed in places:
        by_name = {name: by[line, seed].folder for name, by in chosen.items()}
        refuse_other_real_cells(by_name, next(iter(by_name)), f" (held-out {kind_of([line])} {line}, seed {seed})")
    tables: dict[str, dict[Place, pd.DataFrame]] = _baselines(list(chosen.values()), places)
    baselines = list(tables)
    tables.update({name: {place: found.model for place, found in by.items()} for name, by in chosen.items()})
    tables, left_out = _same_conditions(tables, places)
    known = definitions([found.folder for by in chosen.values() for found in by.values()])
    first = names[reference] if reference in included else next(iter(chosen))
    common = [name for name in known if all(name in table.columns for by in tables.values() for table in by.values())]
    if unknown := [name for name in metrics if name not in common]:
        without = next(
            (found.folder for by in chosen.values() for found in by.values() if unknown[0] not in found.model), None
        )
        where = f" ({without} has none; `state-rag evaluate --force` computes it)" if without else ""
        raise StateRagError(
            f"no metric {unknown[0]!r} in all of the evaluations{where}{suggest(unknown[:1], common)}; choose from "
            f"{', '.join(common)}."
        )
    whole = {name: _one_table(by) for name, by in tables.items()}
    values, lacking = in_common(whole, metrics)
    averaged = {name: table.groupby(level=KEY, sort=False).mean().reset_index() for name, table in values.items()}
    comparison = compare(averaged, first, metrics, known)
    comparison.left_out = left_out
    _over_seeds(comparison, values, lacking)
    if reference not in included:
        tests = [column for column in comparison.rows if column.startswith(("p_", "q_")) or column == "difference"]
        comparison.rows[tests] = np.nan
    unused = {names[method]: len(finished[method] - set(places)) for method in names}
    return Shared(
        comparison,
        tuple(shared_lines),
        tuple(shared_seeds),
        baselines,
        {name: count for name, count in unused.items() if count},
    )


def shared_places(
    finished: Mapping[Method, set[Place]], reference: Method | None = None
) -> tuple[list[Method], set[str], set[int]]:
    """Return the methods that can be compared, and the lines and seeds where all of them have finished.

    Starting with the reference, then by number of finished runs, a method is taken if it shares a place with those
    before it.

    Examples
    --------
    >>> state, ptrag = Method("STATE", "none", None), Method("PT-RAG", "differentiable", 32)
    >>> places = {state: {("a", 0), ("b", 0), ("a", 1)}, ptrag: {("a", 0), ("a", 1), ("b", 1)}}
    >>> shared_places(places)[1:]
    ({'a'}, {0, 1})
    """
    order = sorted(finished, key=lambda method: (method != reference, -len(finished[method])))
    common: set[Place] = set()
    included: list[Method] = []
    for method in order:
        narrowed = common & finished[method] if included else finished[method]
        if narrowed:
            common = narrowed
            included.append(method)
    lines_of = {seed: frozenset(line for line, other in common if other == seed) for _, seed in common}
    closed: set[frozenset[str]] = set()
    for lines in lines_of.values():
        closed |= {lines} | {lines & other for other in closed}
    best: tuple[frozenset[str], set[int]] = frozenset(), set()
    for lines in sorted(closed, key=sorted):
        seeds = {seed for seed, here in lines_of.items() if lines <= here}
        if (len(lines) * len(seeds), len(lines)) > (len(best[0]) * len(best[1]), len(best[0])):
            best = lines, seeds
    return [method for method in finished if method in included], set(best[0]), best[1]


def _baselines(
    chosen: Sequence[Mapping[Place, Results]], places: Sequence[Place]
) -> dict[str, dict[Place, pd.DataFrame]]:
    """Return the baselines that are known at every place, each from the first method that has it there."""
    names = list(dict.fromkeys(name for by in chosen for found in by.values() for name in found.baselines))
    tables: dict[str, dict[Place, pd.DataFrame]] = {}
    for name in names:
        rows = {
            place: next((by[place].baselines[name] for by in chosen if name in by[place].baselines), None)
            for place in places
        }
        if all(table is not None for table in rows.values()):
            tables[name] = {place: table for place, table in rows.items() if table is not None}
        else:
            logger.warning("%s: not evaluated for every line and seed compared, so it is left out", name)
    return tables


def _same_conditions(
    tables: Mapping[str, Mapping[Place, pd.DataFrame]], places: Sequence[Place]
) -> tuple[dict[str, dict[Place, pd.DataFrame]], dict[str, int]]:
    """Limit every table to the conditions that all predictors have at its place, and count what is left out."""
    limited: dict[str, dict[Place, pd.DataFrame]] = {name: {} for name in tables}
    left_out: dict[str, int] = {}
    for place in places:
        indexed = {name: by[place].set_index(KEY) for name, by in tables.items()}
        common = sorted(set.intersection(*(set(table.index) for table in indexed.values())))
        if not common:
            raise StateRagError(
                f"held-out {kind_of([place[0]])} {place[0]}, seed {place[1]}: the methods have no test perturbation "
                "in common. They were predicted with different splits; run them again with one split for each of these "
                "and each seed."
            )
        for name, table in indexed.items():
            _refuse_overlap(place, common, limited[name])
            limited[name][place] = table.loc[common].reset_index()
            if len(table) > len(common):
                left_out[name] = left_out.get(name, 0) + len(table) - len(common)
    return limited, left_out


def _refuse_overlap(place: Place, conditions: Sequence[tuple], others: Mapping[Place, pd.DataFrame]) -> None:
    """Refuse a condition that was tested with two lines held out, which would count twice."""
    for (line, seed), table in others.items():
        twice = set(conditions) & set(table[KEY].itertuples(index=False, name=None)) if seed == place[1] else set()
        if twice:
            where, name = min(twice)
            raise StateRagError(
                f"{name} in {where} was tested both with {line} and with {place[0]} held out (seed {seed}), so it "
                "would count twice. Sweep splits of which each tests its own conditions."
            )


def _one_table(by_place: Mapping[Place, pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of all places as one, whose index says held-out line, seed and condition."""
    parts = [table.assign(held_out=line, seed=seed) for (line, seed), table in by_place.items()]
    return pd.concat(parts).set_index(["held_out", "seed", *KEY])


def _over_seeds(
    comparison: Comparison, values: Mapping[str, pd.DataFrame], lacking: Mapping[str, pd.DataFrame]
) -> None:
    """Set each row's `mean` to the mean over seeds, `n_missing` to the conditions that lack a seed; add the spread."""
    by_seed = {name: table.groupby(level="seed").mean() for name, table in values.items()}
    missing = {name: table.groupby(level=KEY).any().sum() for name, table in lacking.items()}
    rows = comparison.rows
    pairs = list(zip(rows["predictor"], rows["metric"], strict=True))
    rows["mean"] = [float(by_seed[name][metric].mean()) for name, metric in pairs]
    rows["n_missing"] = [int(missing[name][metric]) for name, metric in pairs]
    rows["sd_over_seeds"] = [float(by_seed[name][metric].std(ddof=1)) for name, metric in pairs]
    rows["n_seeds"] = [len(by_seed[name]) for name, _ in pairs]
