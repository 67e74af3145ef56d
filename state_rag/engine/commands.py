"""`state-rag evidence fit`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from state_rag.counts import seed
from state_rag.datasets.command_words import add_data_options
from state_rag.effects.workers import add_worker_options


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
    _add_predict(commands)
    _add_add(commands)


def _add_fit(commands: Any) -> None:
    parser: ArgumentParser = commands.add_parser(
        "fit", help="fit on a split, or on a table of effects; writes a run folder"
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SPLIT.toml|EFFECTS.h5ad|CELLS",
        help="a split, or effects with a row a condition; or cells that all train: h5ad files, zarr stores, folders or "
        "quoted patterns of them",
    )
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="run folder to write")
    parser.add_argument("--embeddings", metavar="FILE", help="of perturbations (default: a usual place, else none)")
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="further knowledge of perturbations, once for each file: vectors, gene sets (.gmt), an edge list, "
        "signatures (.h5ad), molecules (SMILES); how much each counts is learned",
    )
    parser.add_argument(
        "--names",
        default="auto",
        metavar="FILE|package|off",
        help="other names of genes (AARS is AARS1), to find perturbations in these files: NCBI's gene_info, HGNC's "
        "complete set, or the package of the extra `names` (default: that, where it is installed)",
    )
    add_data_options(parser)
    parser.add_argument(
        "--every-use",
        action="store_true",
        help="train for every kind of question, not only for those of the split's test (up to four times as long)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the fit (%(default)s)")
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="record the fit in W&B; evaluations of the run go there too (WANDB_PROJECT, WANDB_MODE, ... hold)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an evidence run at that place")
    add_worker_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run_fit)


def run_fit(args: Namespace) -> None:
    """Fit the engine and write its run folder."""
    from state_rag.embeddings.sources import named_sources
    from state_rag.engine.called import caller_words
    from state_rag.engine.explaining.words import calibration_words
    from state_rag.engine.fitting import fit
    from state_rag.engine.knowledge import weights_words
    from state_rag.evidence.training import Settings

    run = fit(
        args.source,
        args.output,
        embeddings=args.embeddings,
        sources=named_sources(args.sources),
        names=args.names,
        pert_col=args.pert_col,
        cell_type_key=args.cell_type_key,
        batch_col=args.batch_col,
        control_pert=args.control_pert,
        mode_col=args.mode_col,
        dose_col=args.dose_col,
        time_col=args.time_col,
        embed_key=None if args.embed_key == "null" else args.embed_key,
        output_space=args.output_space,
        settings=Settings(seed=args.seed),
        every_use=args.every_use,
        overwrite=args.overwrite,
        progress=not args.quiet,
        scheduler=args.scheduler,
        workers=args.workers,
    )
    for use, learned in run.engine.trained.items():
        scores = ", ".join(f"{name} {value:.3f}" for name, value in learned.scores.items())
        how = "fusion" if learned.fusion is not None else learned.estimate
        print(f"{use:<10} by {how}{f' (correlation in held-back episodes: {scores})' if scores else ''}")
    for use in run.engine.trained if run.engine.similarity.sources else ():
        print(f"{use:<10} similar perturbations are told by {weights_words(run.engine, use)}")
    for use, found in run.engine.calibrated.items():
        print(f"{use:<10} {calibration_words(found)}")
    for use, caller in run.engine.callers.items():
        print(f"{use:<10} {caller_words(caller)}")
    print(f"run        {Path(args.output)}")
    if args.wandb:
        from state_rag.engine.fit_tracking import track

        track(run, Path(args.output))
    split = {} if run.identity is None else run.identity.split or {}
    if split.get("zeroshot") or split.get("fewshot"):
        print(f"next: state tx predict --output-dir {args.output} --eval-genept-pert --predict-only")
    else:
        print(f"next: state-rag evidence predict {args.output} --perturbations A,B -o predicted_effects.h5ad")


def _add_predict(commands: Any) -> None:
    parser: ArgumentParser = commands.add_parser(
        "predict",
        help="predict effects, a row a condition; for cells there are `state tx predict` and `state tx infer`",
        description="Writes the predicted effects of perturbations, what a table of measured ones holds: with how far "
        "to trust each in obs, and the standard deviation of each gene in the layer std. No cells are needed.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="run of `state-rag evidence fit` or `state tx train rag=evidence`"
    )
    parser.add_argument("--context", nargs="+", metavar="NAME", help="cell lines (default: all that were measured)")
    parser.add_argument(
        "--perturbations",
        metavar="A,B|FILE",
        help="names, or a file with one a line (default: all known ones that were not measured in the cell line)",
    )
    parser.add_argument("--new-context", action="store_true", help="a context is new: nothing was measured in it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.h5ad", help="file to write")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_predict)


def run_predict(args: Namespace) -> None:
    """Predict and write."""
    from state_rag.engine.effects import predicted_effects
    from state_rag.engine.evidence_of import evidence_of
    from state_rag.errors import StateRagError
    from state_rag.files import listed_names
    from state_rag.h5ad_writing import write_h5ad
    from state_rag.run_folders import find_run_folder

    if args.output.suffix != ".h5ad":
        raise StateRagError(f"-o {args.output}: effects are written as h5ad; give a name that ends in .h5ad.")
    run = evidence_of(find_run_folder(args.run_folder))
    wanted = None if args.perturbations is None else listed_names(args.perturbations, "--perturbations")
    found = predicted_effects(run, args.context, wanted, new_context=args.new_context, progress=not args.quiet)
    for context, rows in found.obs.groupby("context", observed=True):
        told = ""
        if "expected_pearson" in rows and rows["expected_pearson"].notna().any():
            grades = ", ".join(
                f"{count} {grade}" for grade, count in rows["trust_grade"].value_counts().items() if count
            )
            told = f", expected Pearson {rows['expected_pearson'].mean():.2f} ({grades})"
        print(f"{context}: {len(rows)} predicted{told}")
    print(f"Written: {write_h5ad(found, args.output)}")


def _add_add(commands: Any) -> None:
    parser: ArgumentParser = commands.add_parser(
        "add",
        help="give a fitted run new measurements; nothing is trained again",
        description="Reads new cells (with their controls) or effects, checks genes, scale and what the run's split "
        "holds out, and writes a run that knows them. What was learned stays, so that it takes seconds.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder of `state-rag evidence fit`")
    parser.add_argument(
        "source", nargs="+", metavar="NEW.h5ad", help="cells, or effects with a row a condition; one file or several"
    )
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="run folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an evidence run at that place")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run_add)


def run_add(args: Namespace) -> None:
    """Add the measurements and write the run folder."""
    from state_rag.engine.adding import add_to_folder, told
    from state_rag.engine.evidence_of import evidence_of
    from state_rag.run_folders import find_run_folder

    run = evidence_of(find_run_folder(args.run_folder))
    found = add_to_folder(run, args.source, args.output, overwrite=args.overwrite, progress=not args.quiet)
    print(f"added      {told(found.merged)}")
    for context, (count, before, after) in found.expected.items():
        print(f"expected   {context}: {after:.2f} instead of {before:.2f} (mean Pearson of {count} unmeasured)")
    print(f"run        {Path(args.output)}")
