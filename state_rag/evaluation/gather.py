"""What `evaluate`, `compare` and `report` share: take or make each run's evaluation, and put them beside each other."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.effects.workers import Workers
from state_rag.engine.folder import is_evidence_run
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.evidence_row import FITTED, LEFT_OUT
from state_rag.evaluation.baselines.naive import EVIDENCE, NAMES, NO_EFFECT
from state_rag.evaluation.compare import KEY, Comparison, compare
from state_rag.evaluation.embeddings_source import of_other_runs
from state_rag.evaluation.evaluate import Settings
from state_rag.evaluation.real_side import refuse_other_real_cells
from state_rag.evaluation.remarks import MIXED, NOT_APPLICABLE
from state_rag.evaluation.results import definitions, load_summary, load_tables
from state_rag.evaluation.run_evaluation import Request
from state_rag.evaluation.runs import Run, find_run
from state_rag.evaluation.same_footing import SAME_FOOTING, on_same_footing
from state_rag.evaluation.up_to_date import BASELINES_LEFT_OUT
from state_rag.files import writable_folder
from state_rag.metrics.registry import METRICS, Metric, choose
from state_rag.names import suggest

FALLBACKS = "fallbacks of "
"""How notes on baselines that did not know an answer begin."""
ODDITIES = ("pseudobulk", "predicted_genes_left_out")
"""Notes of an evaluation that a reader of a comparison needs."""


@dataclass
class Gathered:
    """Runs, evaluated, and the comparison of them and the reference's baselines.

    Attributes
    ----------
    runs
        Name to run and folder of its results, of those that are compared.
    tables
        Predictor to table.
    comparison
        Result of `compare`.
    remarks
        What a reader should know about the baselines.
    apart
        Name to run and folder of those that share no condition with the reference; see `gather`.
    conditions
        Name of every run, of both kinds, to its conditions.
    """

    runs: dict[str, tuple[Run, Path]]
    tables: dict[str, pd.DataFrame]
    comparison: Comparison
    remarks: list[str]
    apart: dict[str, tuple[Run, Path]] = field(default_factory=dict)
    conditions: dict[str, set[tuple[str, str]]] = field(default_factory=dict)


def gather(args: argparse.Namespace, *, set_apart: bool = False) -> Gathered:
    """Evaluate the runs of `args` and compare them and the reference's baselines.

    Parameters
    ----------
    args
        From a parser with this room's options.
    set_apart
        Whether runs that share no condition with the reference are evaluated only, rather than refused.

    Raises
    ------
    StateRagError
        If two runs have one name or are the same, a name is a baseline's, runs were scored on different real cells,
        no condition is shared, or nothing can be written to `args.output`; before the work where that can be told.
    """
    runs = find_runs(args)
    names = names_of(runs, args.names)
    reference = _reference(args.reference, runs, names)
    if args.output is not None:
        writable_folder(args.output, "-o")
    done = {name: (run, folder) for name, (run, folder, _) in zip(names, evaluated(args, runs), strict=True)}
    engines = [name for name, (run, _) in done.items() if is_evidence_run(run.config)]
    without = args.no_baselines, args.evidence is False or bool(engines)
    own = {name: predictors(name, folder, *without) for name, (_, folder) in done.items()}
    conditions = {name: set(own[name][name][KEY].itertuples(index=False, name=None)) for name in names}
    apart = {name: found for name, found in done.items() if not conditions[name] & conditions[reference]}
    if apart and not set_apart:
        raise StateRagError(
            f"{next(iter(apart))} and {reference} have no condition (perturbation in cell line) in common; they were "
            "predicted on different tests, so there is nothing to compare"
        )
    compared = {name: found for name, found in done.items() if name not in apart}
    refuse_other_real_cells({name: folder for name, (_, folder) in compared.items()}, reference)
    covered = {name: conditions[name] for name in compared}
    with on_same_footing(compared, covered, **_to_do_again(args)) as folders:
        again = {name: folder for name, folder in folders.items() if folder != done[name][1]}
        own.update({name: predictors(name, folder, *without) for name, folder in again.items()})
        tables = {key: table for key, table in own[reference].items() if key != reference}
        tables.update({name: own[name][name] for name in compared})
        comparison = compare(tables, reference, shown_metrics(args), definitions(list(folders.values())))
        comparison.left_out |= {name: len(covered[name]) - comparison.n_conditions for name in again}
        told = [f"{SAME_FOOTING.capitalize()}." % comparison.n_conditions] if again else []
        told += remarks(folders[reference], engines)
        told += [line for name, folder in folders.items() for line in _oddities(name, folder)]
    return Gathered(compared, tables, comparison, told, apart, conditions)


def _to_do_again(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for that a finished evaluation does not say."""
    return {
        "metrics": _metrics(args) if args.metrics else None,
        "toml": args.toml,
        "embeddings": args.embeddings,
        "with_baselines": False if args.no_baselines else None,
        "with_evidence": args.evidence,
        "progress": not args.quiet,
    }


def find_runs(args: argparse.Namespace) -> list[Run]:
    """Find the runs of `args`, with the columns and control label that were given in place of the configuration's.

    So whatever reads a run's cells takes the same columns.
    """
    given = {"pert_col": args.pert_col, "cell_type_key": args.cell_type_key, "control_pert": args.control}
    given = {key: value for key, value in given.items() if value is not None}
    runs = [find_run(place, args.checkpoint) for place in args.runs]
    return [_with_data(run, given) for run in runs] if given else runs


def _with_data(run: Run, given: Mapping[str, str]) -> Run:
    data = {**(run.config.get("data") or {}), "kwargs": {**run.data, **given}}
    return replace(run, config={**run.config, "data": data})


def evaluated(args: argparse.Namespace, runs: Sequence[Run] | None = None) -> list[tuple[Run, Path, bool]]:
    """Evaluate every run, or take its finished evaluation.

    Returns
    -------
    list
        Run, results folder, and whether it was written now. What can be refused is refused before the first is.
    """
    runs = find_runs(args) if runs is None else runs
    settings, metrics = _settings(args), _metrics(args)
    workers = Workers(args.scheduler, args.workers)
    requests = [
        Request(
            run,
            settings=settings,
            metrics=metrics,
            toml=args.toml,
            embeddings=args.embeddings,
            otherwise=of_other_runs(runs, run),
            with_baselines=not args.no_baselines,
            with_evidence=args.evidence,
            per_gene=tuple(args.per_gene),
            force=args.force,
            progress=not args.quiet,
            workers=workers,
        )
        for run in runs
    ]
    for request in requests:
        request.check()
    return [(request.run, request.fulfil(), request.needed) for request in requests]


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        deg_p=args.deg_p,
        deg_log2fc=args.deg_log2fc,
        fold_change=args.fold_change,
        components=args.components,
        device=args.device,
    )


def _metrics(args: argparse.Namespace) -> tuple[Metric, ...]:
    metrics = choose(args.metrics)
    if args.gge_metrics:
        from state_rag.metrics.gge import from_gge

        parts = [text.partition(":") for text in args.gge_metrics]
        metrics += tuple(from_gge(name, space or "raw", **_settings(args).of_gge) for name, _, space in parts)
    return metrics


def shown_metrics(args: argparse.Namespace) -> list[str] | None:
    """Return the names of the metrics that were asked for; None for all that are there."""
    if getattr(args, "paper", False):
        return [metric.name for metric in METRICS if metric.in_paper]
    if args.metrics is None:
        return None
    return [metric.name for metric in _metrics(args)]


def predictors(
    name: str, folder: Path, no_baselines: bool = False, no_evidence: bool = False
) -> dict[str, pd.DataFrame]:
    """Return the tables of the baselines (or only the one that needs no training data) and, last, of the run.

    The evidence engine's is among the baselines, unless it is not wanted.
    """
    model, baselines, _ = load_tables(folder)
    grouped = {str(key): table for key, table in baselines.groupby("predictor", sort=False)}
    if name in grouped:
        raise StateRagError(f"'{name}' is what a baseline is called; name the run otherwise with --names")
    wanted = {key: table for key, table in grouped.items() if key == NO_EFFECT or not no_baselines}
    if no_evidence:
        wanted.pop(EVIDENCE, None)
    return {**wanted, name: model}


def notes(folder: Path) -> Mapping[str, Any]:
    """Return what an evaluation counted."""
    found: Mapping[str, Any] = load_summary(folder)["metadata"]["notes"]
    return found


def remarks(folder: Path, engines: Sequence[str] = ()) -> list[str]:
    """Return lines on baselines that are missing or did not know an answer, and on a PCA of another size.

    Parameters
    ----------
    folder
        An evaluation.
    engines
        Names of evidence runs beside it, which stand for the engine's row.
    """
    found = notes(folder)
    why = found.get(BASELINES_LEFT_OUT)
    lines = [f"Baselines left out: {str(why).rstrip('.')}."] if why else []
    if engines:
        lines.append(f"The evidence engine alone: {', '.join(engines)}.")
    elif fitted := found.get(FITTED):
        lines.append(f"{EVIDENCE}: the evidence engine, {fitted}.")
    elif why := found.get(LEFT_OUT):
        lines.append(f"No row of the evidence engine: {str(why).rstrip('.')}.")
    if mixed := found.get(MIXED):
        lines.append(f"Conditions ask different questions: {mixed}.")
    if asked_in_vain := found.get(NOT_APPLICABLE):
        lines.append(f"Baseline that does not apply here: {asked_in_vain}.")
    fallbacks = {str(key): count for key, count in found.items() if str(key).startswith(FALLBACKS)}
    if fallbacks:
        parts = [f"{key.removeprefix(FALLBACKS)} in {count}" for key, count in fallbacks.items()]
        lines.append(f"Conditions where a baseline had to fall back to a simpler one: {', '.join(parts)}.")
    if size := found.get("pca_of_other_size_than_the_labels_say"):
        lines.append(f"Dimensions of PCA, whatever the labels say: {size}.")
    return lines


def _oddities(name: str, folder: Path) -> list[str]:
    """Return lines on what makes a run's values other than usual ones."""
    found = notes(folder)
    return [f"{name}, {key.replace('_', ' ')}: {str(found[key]).rstrip('.')}." for key in ODDITIES if found.get(key)]


def names_of(runs: Sequence[Run], given: Sequence[str] | None) -> list[str]:
    """Return the names that runs have in tables: those given, or their own, told apart by their folders where needed.

    Raises
    ------
    StateRagError
        If the same predictions are there twice, or a name is there twice or is a baseline's.
    """
    if given and len(given) != len(runs):
        raise StateRagError(f"--names: {len(given)} names for {len(runs)} runs")
    places = [run.predictions.resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise StateRagError(f"{place}: these predictions were given twice; name each run once")
    names = list(given) if given else _distinct([run.name for run in runs], places)
    for number, name in enumerate(names):
        if name in names[:number]:
            raise StateRagError(f"--names: '{name}' is there twice; give each run a name of its own")
        if name in NAMES:
            raise StateRagError(
                f"'{name}' ({places[number]}) is what a baseline is called; name the runs otherwise with --names, one "
                "name per run"
            )
    return names


def _distinct(names: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Return the names, those that are not unique replaced by as much of the runs' folders as tells them apart."""
    found = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        same = [number for number, other in enumerate(names) if other == name]
        depth = 3
        while len({places[number].parts[-depth:] for number in same}) < len(same):
            depth += 1
        for number in same:
            found[number] = "/".join(places[number].parts[-depth:])
    return found


def _reference(given: str | None, runs: Sequence[Run], names: Sequence[str]) -> str:
    if given is None:
        return names[-1]
    if given in names:
        return given
    for name, run in zip(names, runs, strict=True):
        if Path(given).resolve() in (run.folder.resolve(), run.predictions.resolve()):
            return name
    close = suggest([given], names)
    raise StateRagError(f"--reference: '{given}' is none of the runs given ({', '.join(names)}){close}")
