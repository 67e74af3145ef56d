"""`state-rag data simulate|split|prepare|check`; `quickstart` and `data fetch` have modules of their own."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.datasets.fetching.fetch_command import add_fetch
from state_rag.datasets.quickstart_command import add_quickstart
from state_rag.datasets.simulation.screen_sizes import PRESETS
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.settings import RagSettings

if TYPE_CHECKING:
    from state_rag.datasets.split_check import SplitSummary

if TYPE_CHECKING:
    from state_rag.datasets.splits import WrittenSplit

# flag, type, what it sets; the parameters are described in `screen_sizes.ScreenSizes`
_SIMULATE_SIZES = (
    ("--perturbations", int, "n_perturbations", "perturbations"),
    ("--modules", int, "n_modules", "modules that the perturbations are spread over"),
    ("--genes", int, "n_genes", "genes of X"),
    ("--hvgs", int, "n_hvgs", "genes of X_hvg"),
    ("--cells-per-condition", int, "cells_per_condition", "cells of a perturbation in a cell line"),
    ("--controls-per-line", int, "controls_per_line", "control cells of a cell line"),
    ("--gem-groups-per-line", int, "gem_groups_per_line", "batches of a cell line"),
    ("--embedding-width", int, "embedding_width", "width of the text embeddings"),
    ("--misleading-fraction", float, "misleading_fraction", "perturbations whose text resembles a foreign module"),
    ("--active-fraction", float, "active_fraction", "cell lines that a module acts in"),
    ("--flip-fraction", float, "flip_fraction", "probability that a module's sign is the opposite in a line"),
    ("--effect-scale", float, "effect_scale", "factor on the effects"),
    ("--missing", int, "missing", "perturbations that get no embedding"),
    ("--unseen", int, "unseen", "perturbations that get an embedding but no cells"),
)


def add_commands(subparsers: Any) -> None:
    """Add `quickstart`, and `data` with its sub-commands."""
    add_quickstart(subparsers)
    data = subparsers.add_parser(
        "data", help="simulate or download a screen; write, check a split; prepare an h5ad file"
    )
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_split(commands)
    _add_prepare(commands)
    _add_check(commands)
    add_fetch(commands)


def _add_simulate(commands: Any) -> None:
    """Add `data simulate`."""
    parser = commands.add_parser("simulate", help="write a Replogle-shaped screen whose truth is known")
    parser.add_argument("folder", metavar="OUT", help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="demo", help="sizes (default: demo)")
    parser.add_argument("--lines", nargs="+", metavar="LINE", help="cell lines (default: k562 rpe1 jurkat hepg2)")
    for flag, kind, name, text in _SIMULATE_SIZES:
        parser.add_argument(flag, type=kind, dest=name, metavar="N" if kind is int else "X", help=text)
    parser.set_defaults(run=run_simulate)


def _add_names(parser: argparse.ArgumentParser) -> None:
    """Add the options that name columns and control."""
    parser.add_argument("--pert-col", metavar="COLUMN", help="obs column of the perturbation (default: found)")
    parser.add_argument("--cell-type-col", metavar="COLUMN", help="obs column of the cell line (default: found)")
    parser.add_argument("--control", metavar="NAME", help="name of the control (default: found)")


def _add_split(commands: Any) -> None:
    """Add `data split`."""
    from state_rag.datasets.perturbation_draws import PAIR_CLASSES

    parser = commands.add_parser(
        "split",
        help="hold a cell line out, perturbations, or both",
        description="Write which conditions train, validate and are tested: a cell line held out, all but a fraction "
        "of its perturbations (--held-out); perturbations held out in every line (--held-out-perturbations, --folds, "
        "--held-out-pairs), for which one line is enough; or both together.",
    )
    parser.add_argument("file", metavar="FILE", help="h5ad file, folder of them, or glob pattern in quotes")
    parser.add_argument("--held-out", metavar="LINE", help="the cell line to hold out")
    parser.add_argument(
        "--held-out-perturbations",
        metavar="X|LIST",
        help="hold these out in every line: a fraction, or a text or JSON file that names them (JSON: `val` too)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="write K splits, TOML_fold0.toml and so on, that hold all perturbations out in turn",
    )
    parser.add_argument(
        "--held-out-pairs",
        choices=PAIR_CLASSES,
        help="hold out pairs A+B only, by how many of their members training sees as singles (the fraction of them is "
        "--held-out-perturbations, or 0.2)",
    )
    parser.add_argument(
        "--few-shot",
        type=float,
        metavar="X",
        help="fraction of the held-out line's perturbations to train on (0.3; 0 where perturbations are held out too)",
    )
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=0.1,
        metavar="X",
        help="fraction of the perturbations to validate on (0.1)",
    )
    parser.add_argument(
        "--test-list",
        metavar="LIST",
        help="text or JSON file that names the held-out line's test perturbations (JSON: `val` too)",
    )
    _add_names(parser)
    parser.add_argument("--name", help="name of the data set in the TOML (default: the file's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", metavar="TOML", help="default: split_LINE.toml, or the like, beside the data")
    parser.set_defaults(run=run_split)


def _add_prepare(commands: Any) -> None:
    """Add `data prepare`."""
    parser = commands.add_parser("prepare", help="write a copy of an h5ad file that upstream can read")
    parser.add_argument("file", metavar="FILE", help="h5ad file")
    parser.add_argument("-o", "--output", metavar="OUT", help="default: NAME.prepared.h5ad beside the input")
    _add_names(parser)
    parser.add_argument(
        "--one-line",
        metavar="NAME",
        help="no column names the cell line: add one, cell_line, with NAME for all cells (default: one_line)",
    )
    parser.add_argument("--batch-col", metavar="COLUMN", help="obs column of the batch (default: found, or added)")
    parser.add_argument(
        "--n-hvgs", type=int, metavar="N", help="genes of X_hvg (default: the file's own choice, else 2000)"
    )
    parser.add_argument(
        "--replogle-names",
        action="store_true",
        help="rename to gene, cell_line, gem_group and non-targeting, as `data=replogle` expects",
    )
    parser.add_argument(
        "--like",
        nargs="+",
        default=(),
        metavar="FILE|RUN",
        help="take the genes of another h5ad file, or of a run, in their order, and its total",
    )
    parser.add_argument(
        "--common", action="store_true", help="with --like: keep only the genes that these and the file all have"
    )
    parser.set_defaults(run=run_prepare)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that stand for `data.kwargs` of a training: columns, control, and which matrix is predicted."""
    parser.add_argument("--pert-col", metavar="COLUMN", help="obs column of the perturbation (default: found)")
    parser.add_argument("--cell-type-key", metavar="COLUMN", help="obs column of the cell line (default: found)")
    parser.add_argument("--batch-col", metavar="COLUMN", help="obs column of the batch (default: found)")
    parser.add_argument("--control-pert", metavar="NAME", help="name of the control (default: found)")
    parser.add_argument(
        "--mode-col", metavar="COLUMN", help="obs column of the mode (CRISPRi, CRISPRa, KO, drug): evidence runs only"
    )
    parser.add_argument(
        "--dose-col",
        metavar="COLUMN",
        help="obs column of the dose, with or without a unit: evidence runs only",
    )
    parser.add_argument(
        "--time-col", metavar="COLUMN", help="obs column of the time, hours or with a unit: evidence runs only"
    )
    parser.add_argument("--embed-key", default="X_hvg", metavar="KEY", help="default: X_hvg; `null` for all of X")
    parser.add_argument(
        "--output-space", default="gene", choices=("gene", "all", "embedding"), help="what is predicted (default: gene)"
    )


def _add_check(commands: Any) -> None:
    """Add `data check`."""
    parser = commands.add_parser("check", help="check a split against its data and count its cells")
    parser.add_argument("toml", metavar="TOML", help="split file")
    add_data_options(parser)
    parser.add_argument("--set-size", type=int, default=64, metavar="N", help="cells of a set (default: 64)")
    parser.add_argument(
        "--evidence",
        action="store_true",
        help="check for `evidence fit` alone: zarr stores will do, and a line's controls in any of the files",
    )
    parser.set_defaults(run=run_check)


def run_simulate(args: argparse.Namespace) -> None:
    """Write a simulated screen."""
    from state_rag.datasets.simulation.simulate import simulate_screen

    sizes = dict(PRESETS[args.preset])
    sizes.update((name, value) for _, _, name, _ in _SIMULATE_SIZES if (value := getattr(args, name)) is not None)
    if args.lines:
        sizes["lines"] = tuple(args.lines)
    screen = simulate_screen(args.folder, seed=args.seed, **sizes)
    print(f"cells       {screen.h5ad}")
    print(f"embeddings  {screen.embeddings}")
    print(f"truth       {screen.truth}")
    print(f"            {screen.truth_effects}")
    held_out = f"--held-out {shlex.quote((args.lines or ['hepg2'])[-1])}"
    if len(args.lines or ()) == 1:
        held_out = "--held-out-perturbations 0.2"
    _print_next(f"state-rag data split {_quote(screen.h5ad)} {held_out}")


def run_split(args: argparse.Namespace) -> None:
    """Write a split file, or one a fold."""
    by_perturbation = args.held_out_perturbations or args.held_out_pairs or args.folds is not None
    if args.held_out is None and not by_perturbation:
        raise StateRagError(
            "say what is held out: a cell line (--held-out LINE), perturbations (--held-out-perturbations 0.2), all "
            "perturbations in turn (--folds 5), or a line and perturbations (both options)."
        )
    if args.held_out is None and args.few_shot is not None:
        raise StateRagError("--few-shot is about the cell line that --held-out names. Name one, or leave it out.")
    if by_perturbation and args.test_list:
        raise StateRagError("--test-list is for a held-out line; here --held-out-perturbations takes the file.")
    given = {name: getattr(args, name) for name in ("pert_col", "cell_type_col", "control", "name", "seed")}
    given["output"] = args.output if args.output is not None else _default_split(args)
    given["val_fraction"] = args.val_fraction
    splits = _split_perturbations(args, given) if by_perturbation else (_split_line(args, given),)
    for split in splits:
        print(f"split  {split.path}")
    _print_next(
        f"state-rag data check {_quote(splits[0].path)}"
        + _options(pert_col=splits[0].pert_col, cell_type_key=splits[0].cell_type_col, control_pert=splits[0].control)
    )


def _default_split(args: argparse.Namespace) -> Path:
    """Return where a split goes: beside the data, named after what is held out."""
    data = Path(args.file)
    kind = "pairs" if args.held_out_pairs else "perturbations" if args.held_out_perturbations else None
    parts = [args.held_out, kind]
    return (data.parent if data.is_file() else Path()) / f"{'_'.join(['split', *filter(None, parts)])}.toml"


def _split_line(args: argparse.Namespace, given: dict[str, Any]) -> "WrittenSplit":
    """Hold a line out."""
    from state_rag.datasets.splits import write_split

    few_shot = 0.3 if args.few_shot is None else args.few_shot
    split = write_split(args.file, args.held_out, few_shot=few_shot, test_list=args.test_list, **given)
    print(
        f"{args.held_out} held out: {len(split.train)} of its perturbations for training, {len(split.val)} for "
        f"validation, {len(split.test)} for test; all other cell lines for training"
    )
    return split


def _split_perturbations(args: argparse.Namespace, given: dict[str, Any]) -> "tuple[WrittenSplit, ...]":
    """Hold perturbations out, as a fraction, a list, in folds or as pairs."""
    from state_rag.datasets.perturbation_splits import write_perturbation_splits

    given_as: str | None = args.held_out_perturbations
    share = None if given_as is None else _number(given_as)
    splits = write_perturbation_splits(
        args.file,
        share=share,
        test_list=given_as if share is None else None,
        pairs=args.held_out_pairs,
        folds=args.folds,
        held_out=args.held_out,
        few_shot=args.few_shot or 0.0,
        **given,
    )
    lines = listing(splits[0].lines)
    print(
        f"{'pairs' if args.held_out_pairs else 'perturbations'} held out in {lines}"
        + (f"; {args.few_shot or 0:.0%} of the others of {args.held_out} train" if args.held_out else "")
    )
    for number, split in enumerate(splits):
        aside = f" and {len(split.aside)} that contain a held-out one" if split.aside else ""
        print(
            f"{f'fold {number}: ' if args.folds else ''}{len(split.train)} for training, {len(split.val)}{aside} for "
            f"validation, {len(split.test)} for test"
        )
    return splits


def _number(text: str) -> float | None:
    """Return a fraction; None for what is a file's name."""
    try:
        return float(text)
    except ValueError:
        return None


def run_prepare(args: argparse.Namespace) -> None:
    """Write a prepared copy of a file and say what changed."""
    from state_rag.datasets.prepare import prepare

    done = prepare(
        args.file,
        args.output,
        pert_col=args.pert_col,
        cell_type_col=args.cell_type_col,
        one_line=args.one_line,
        batch_col=args.batch_col,
        control=args.control,
        n_hvgs=args.n_hvgs,
        replogle_names=args.replogle_names,
        like=args.like,
        common=args.common,
    )
    for change in done.changes:
        print(f"- {change}")
    if not done.changes:
        print("nothing had to change")
    print(
        f"columns   {done.pert_col} (perturbation), {done.cell_type_col} (cell line), {done.batch_col} (batch); "
        f"control {done.control}; {done.n_hvgs:,} genes in X_hvg"
    )
    print(f"prepared  {done.path}")
    print(f"lines     {', '.join(done.cell_types)}")
    what = f"--held-out {shlex.quote(done.cell_types[0])}"
    if len(done.cell_types) == 1:
        what = "--held-out-perturbations 0.2"
    _print_next(
        f"state-rag data split {_quote(done.path)} {what} "
        f"--pert-col {shlex.quote(done.pert_col)} --cell-type-col {shlex.quote(done.cell_type_col)} "
        f"--control {shlex.quote(done.control)}"
    )


def run_check(args: argparse.Namespace) -> None:
    """Check a split and print its counts."""
    from state_rag.datasets.formats.in_files import told_format
    from state_rag.datasets.split_check import check_split, find_names
    from state_rag.datasets.split_questions import questions, told
    from state_rag.datasets.treated_labels import TreatmentColumns, count_labels, treatment_words

    names = find_names(
        args.toml,
        pert_col=args.pert_col,
        cell_type_key=args.cell_type_key,
        batch_col=args.batch_col,
        control_pert=args.control_pert,
    )
    embed_key = None if args.embed_key == "null" else args.embed_key
    summary = check_split(args.toml, **names, embed_key=embed_key, upstream=not args.evidence)  # type: ignore[arg-type]
    for path in summary.files:
        print(f"data    {path}")
    for line in told_format(summary.files[0], args.pert_col):
        print(f"format  {line}")
    print(f"lines   {', '.join(summary.cell_types)}")
    for part, perturbations in (
        ("train", summary.train_perturbations),
        ("val", summary.val_perturbations),
        ("test", summary.test_perturbations),
    ):
        print(f"{part:<8}{summary.cells[part]:,} perturbed cells of {len(perturbations):,} perturbations")
    print(f"control {summary.cells['control']:,} cells")
    for line in told(questions(summary.conditions, names["control_pert"])):
        print(f"asks    {line}")
    treatment = TreatmentColumns(args.mode_col, args.dose_col, args.time_col)
    if treatment:
        counts = count_labels(
            summary.files, names["pert_col"], names["cell_type_key"], names["control_pert"], treatment
        )
        for line in treatment_words(counts):
            print(line)
    wrong = print_values(summary, names, args)
    if wrong:
        raise SystemExit(1)
    overrides = {**names, "embed_key": args.embed_key}
    defaults = ("gene", "cell_line", "gem_group", "non-targeting", "X_hvg")
    changed = "".join(
        f" data.kwargs.{key}={shlex.quote(value)}"
        for (key, value), default in zip(overrides.items(), defaults, strict=True)
        if value != default
    )
    toml_path = shlex.quote(str(Path(args.toml).absolute()))
    if treatment or args.evidence:  # networks know no modes
        given = treatment.to_data().items()
        options = "".join(f" --{key.replace('_', '-')} {shlex.quote(value)}" for key, value in given)
        _print_next(f"state-rag evidence fit {toml_path} -o runs/evidence{_options(**names)}{options}")
        return
    embeddings = summary.files[0].absolute().with_name("embeddings.safetensors")
    source = f" training.genept_path={_quote(embeddings)}" if embeddings.is_file() else ""
    known = len({*summary.train_perturbations, *summary.val_perturbations, *summary.test_perturbations})
    fewer = f" training.topk_rag={max(known // 3, 1)}" if known <= RagSettings.topk_rag else ""
    _print_next(
        f"state tx train rag=ptrag data=replogle data.kwargs.toml_config_path={toml_path}{changed}{fewer}"
        f"{source or ' training.genept_path=EMBEDDINGS'} use_wandb=false output_dir=runs name=ptrag"
    )


def print_values(summary: "SplitSummary", names: dict[str, str], args: argparse.Namespace) -> bool:
    """Print what the values are and what was noticed; return whether results would be wrong."""
    from state_rag.datasets.value_check import check_values

    values = check_values(
        summary,
        pert_col=names["pert_col"],
        control_pert=names["control_pert"],
        cell_type_key=names["cell_type_key"],
        embed_key=None if args.embed_key == "null" else args.embed_key,
        output_space=args.output_space,
        set_size=args.set_size,
    )
    for space in values.identity.spaces.values():
        print(f"values  {space.words}")
    read = f"{values.cells_read:,} of {values.cells:,} cells were read" if values.cells_read < values.cells else ""
    print("what I noticed" + (f" ({read})" if read else ""))
    for finding in values.findings:
        print(f"- {'WRONG: ' if finding.is_wrong else ''}{finding}")
    if not values.findings:
        print("- nothing: genes, scale and values are as they should be")
    return any(finding.is_wrong for finding in values.findings)


def _options(**values: str) -> str:
    """Return the options of `data check` that differ from its defaults."""
    defaults = {
        "pert_col": "gene",
        "cell_type_key": "cell_line",
        "batch_col": "gem_group",
        "control_pert": "non-targeting",
    }
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in values.items() if value != defaults[name]
    )


def _quote(path: Path) -> str:
    """Return a path as a shell word."""
    return shlex.quote(str(path))


def _print_next(command: str) -> None:
    """Print the command to run next."""
    print(f"next: {command}")
