"""`state-rag evidence fit`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from state_rag.datasets.commands import add_data_options


def add_commands(subparsers: Any) -> None:
    """Add `evidence` with its sub-commands."""
    evidence = subparsers.add_parser(
        "evidence",
        help="predict from what similar perturbations did: fit the evidence engine, no network needed",
        description="The evidence engine predicts the effect of a perturbation from measured responses: of similar "
        "perturbations in the same cell line, and of the same and similar ones in others. It takes minutes on a CPU.",
    )
    commands = evidence.add_subparsers(dest="evidence_command", required=True, metavar="COMMAND")
    _add_fit(commands)


def _add_fit(commands: Any) -> None:
    parser: ArgumentParser = commands.add_parser(
        "fit", help="fit on a split, or on a table of effects; writes a run folder"
    )
    parser.add_argument("source", metavar="SPLIT.toml|EFFECTS.h5ad", help="a split, or effects with a row a condition")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="run folder to write")
    parser.add_argument("--embeddings", metavar="FILE", help="of perturbations (default: a usual place, else none)")
    add_data_options(parser)
    parser.add_argument(
        "--every-use",
        action="store_true",
        help="train for every kind of question, not only for those of the split's test (up to four times as long)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an evidence run at that place")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run_fit)


def run_fit(args: Namespace) -> None:
    """Fit the engine and write its run folder."""
    from state_rag.engine.explained_words import calibration_words
    from state_rag.engine.fitting import fit
    from state_rag.evidence.training import Settings

    run = fit(
        args.source,
        args.output,
        embeddings=args.embeddings,
        pert_col=args.pert_col,
        cell_type_key=args.cell_type_key,
        batch_col=args.batch_col,
        control_pert=args.control_pert,
        embed_key=None if args.embed_key == "null" else args.embed_key,
        output_space=args.output_space,
        settings=Settings(seed=args.seed),
        every_use=args.every_use,
        overwrite=args.overwrite,
        progress=not args.quiet,
    )
    for use, learned in run.engine.trained.items():
        scores = ", ".join(f"{name} {value:.3f}" for name, value in learned.scores.items())
        how = "fusion" if learned.fusion is not None else learned.estimate
        print(f"{use:<10} by {how}{f' (correlation in held-back episodes: {scores})' if scores else ''}")
    for use, found in run.engine.calibrated.items():
        print(f"{use:<10} {calibration_words(found)}")
    print(f"run        {Path(args.output)}")
    if run.identity is not None:
        print(f"next: state tx predict --output-dir {args.output} --eval-genept-pert --predict-only")
