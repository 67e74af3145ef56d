"""What `evaluate`, `compare` and `report` share: take or make each run's evaluation, and put them beside each other."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import NO_EFFECT
from state_rag.evaluation.compare import Comparison, compare
from state_rag.evaluation.conditions import Columns
from state_rag.evaluation.embeddings_source import of_other_runs
from state_rag.evaluation.evaluate import Settings
from state_rag.evaluation.metrics.registry import METRICS, choose
from state_rag.evaluation.results import SUMMARY, definitions, load_tables
from state_rag.evaluation.run_evaluation import BASELINES_LEFT_OUT, evaluate_run
from state_rag.evaluation.runs import Run, find_run
from state_rag.names import suggest


@dataclass
class Gathered:
    """Runs, evaluated, and the comparison of them and the reference's baselines.

    Attributes
    ----------
    runs
        Name to run and folder of its results.
    tables
        Predictor to table.
    comparison
        Result of `compare`.
    remarks
        What a reader should know about the baselines.
    """

    runs: dict[str, tuple[Run, Path]]
    tables: dict[str, pd.DataFrame]
    comparison: Comparison
    remarks: list[str]


def gather(args: argparse.Namespace) -> Gathered:
    """Evaluate the runs of `args` and compare them and the reference's baselines."""
    if args.names and len(args.names) != len(args.runs):
        raise StateRagError(f"--names: {len(args.names)} names for {len(args.runs)} runs")
    done = evaluated(args)
    names = args.names or _distinct([run for run, _ in done])
    reference = _reference(args.reference, done, names)
    own = {name: predictors(name, folder, args.no_baselines) for name, (_, folder) in zip(names, done, strict=True)}
    tables = {key: table for key, table in own[reference].items() if key != reference}
    tables.update({name: own[name][name] for name in names})
    runs = dict(zip(names, done, strict=True))
    comparison = compare(tables, reference, shown_metrics(args), definitions([folder for _, folder in done]))
    return Gathered(runs, tables, comparison, left_out(runs[reference][1]))


def evaluated(args: argparse.Namespace) -> list[tuple[Run, Path]]:
    """Evaluate every run, or take its finished evaluation, and return pairs of run and results folder."""
    settings = Settings(
        deg_p=args.deg_p,
        deg_log2fc=args.deg_log2fc,
        fold_change=args.fold_change,
        components=args.components,
        device=args.device,
    )
    metrics = choose(args.metrics)
    if args.gge_metrics:
        from state_rag.evaluation.gge import from_gge

        parts = [text.partition(":") for text in args.gge_metrics]
        metrics += tuple(from_gge(name, settings, space or "raw") for name, _, space in parts)
    runs = [find_run(place, args.checkpoint) for place in args.runs]
    done = []
    for run in runs:
        own = run.columns
        columns = Columns(
            args.pert_col or own.perturbation, args.cell_type_key or own.cell_line, args.control or own.control
        )
        folder = evaluate_run(
            run,
            columns=columns,
            settings=settings,
            metrics=metrics,
            toml=args.toml,
            embeddings=args.embeddings,
            otherwise=of_other_runs(runs, run),
            with_baselines=not args.no_baselines,
            per_gene=tuple(args.per_gene),
            force=args.force,
            progress=not args.quiet,
        )
        done.append((run, folder))
    return done


def shown_metrics(args: argparse.Namespace) -> list[str] | None:
    """Return the names of the metrics that were asked for; None for all that are there."""
    if getattr(args, "paper", False):
        return [metric.name for metric in METRICS if metric.in_paper]
    if args.metrics is None:
        return None
    gge = [_gge_name(text) for text in args.gge_metrics]
    return [*args.metrics, *gge]


def predictors(name: str, folder: Path, no_baselines: bool = False) -> dict[str, pd.DataFrame]:
    """Return the tables of the baselines (or only the one that needs no training data) and, last, of the run."""
    model, baselines, _ = load_tables(folder)
    grouped = {str(key): table for key, table in baselines.groupby("predictor", sort=False)}
    return {**{key: table for key, table in grouped.items() if key == NO_EFFECT or not no_baselines}, name: model}


def notes(folder: Path) -> Mapping[str, Any]:
    """Return what an evaluation counted."""
    return json.loads((folder / SUMMARY).read_text())["metadata"]["notes"]


def left_out(folder: Path) -> list[str]:
    """Return a line on baselines that an evaluation lacks, if there are any."""
    why = notes(folder).get(BASELINES_LEFT_OUT)
    return [f"Baselines left out: {why}."] if why else []


def _gge_name(text: str) -> str:
    name, _, space = text.partition(":")
    return f"gge_{name}" if space in ("", "raw") else f"gge_{name}_{space}"


def _distinct(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names, with enough of their folders to tell equal ones apart."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.folder.parent.name}/{run.folder.name}/{run.predictions.name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _reference(given: str | None, done: Sequence[tuple[Run, Path]], names: Sequence[str]) -> str:
    if given is None:
        return names[-1]
    if given in names:
        return given
    for name, (run, _) in zip(names, done, strict=True):
        if Path(given).resolve() in (run.folder.resolve(), run.predictions.resolve()):
            return name
    close = suggest([given], names)
    raise StateRagError(f"--reference: '{given}' is none of the runs given ({', '.join(names)}){close}")
