"""`state-rag data split`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.counts import seed
from state_rag.datasets.command_words import add_names, given_options, print_next, quote
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.text_lines import number_in

if TYPE_CHECKING:
    from state_rag.datasets.splitting.splits import WrittenSplit


def add_split(commands: Any) -> None:
    """Add `data split`."""
    from state_rag.datasets.splitting.dose_draws import DOSES
    from state_rag.datasets.splitting.perturbation_draws import PAIR_CLASSES

    parser = commands.add_parser(
        "split",
        help="hold a cell line out, perturbations, or both",
        description="Write which conditions train, validate and are tested: a cell line held out, all but a fraction "
        "of its perturbations (--held-out); perturbations held out in every line (--held-out-perturbations, --folds, "
        "--held-out-pairs, --held-out-doses), for which one line is enough; or both together.",
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
        "--held-out-doses",
        choices=DOSES,
        help="hold one dose of each drug out, between two others or the highest; the others train (otherwise all doses "
        "of a name are held out together)",
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
    add_names(parser)
    parser.add_argument("--name", help="name of the data set in the TOML (default: the file's)")
    parser.add_argument("--seed", type=seed, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("-o", "--output", metavar="TOML", help="default: split_LINE.toml, or the like, beside the data")
    parser.set_defaults(run=run_split)


def run_split(args: argparse.Namespace) -> None:
    """Write a split file, or one a fold."""
    by_perturbation = (
        args.held_out_perturbations or args.held_out_pairs or args.held_out_doses or args.folds is not None
    )
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
    first = splits[0]
    options = given_options(pert_col=first.pert_col, cell_type_key=first.cell_type_col, control_pert=first.control)
    print_next(f"state-rag data check {quote(first.path)}{options}")


def _default_split(args: argparse.Namespace) -> Path:
    """Return where a split goes: beside the data, named after what is held out."""
    data = Path(args.file)
    doses = f"{args.held_out_doses}_doses" if args.held_out_doses else None
    kind = doses or ("pairs" if args.held_out_pairs else "perturbations" if args.held_out_perturbations else None)
    parts = [args.held_out, kind]
    return (data.parent if data.is_file() else Path()) / f"{'_'.join(['split', *filter(None, parts)])}.toml"


def _split_line(args: argparse.Namespace, given: dict[str, Any]) -> "WrittenSplit":
    """Hold a line out."""
    from state_rag.datasets.splitting.splits import write_split

    few_shot = 0.3 if args.few_shot is None else args.few_shot
    split = write_split(args.file, args.held_out, few_shot=few_shot, test_list=args.test_list, **given)
    print(
        f"{args.held_out} held out: {len(split.train)} of its perturbations for training, {len(split.val)} for "
        f"validation, {len(split.test)} for test; all other cell lines for training"
    )
    return split


def _split_perturbations(args: argparse.Namespace, given: dict[str, Any]) -> "tuple[WrittenSplit, ...]":
    """Hold perturbations out, as a fraction, a list, in folds or as pairs."""
    from state_rag.datasets.splitting.perturbation_splits import write_perturbation_splits

    given_as: str | None = args.held_out_perturbations
    share = None if given_as is None else number_in(given_as)
    splits = write_perturbation_splits(
        args.file,
        share=share,
        test_list=given_as if share is None else None,
        pairs=args.held_out_pairs,
        doses=args.held_out_doses,
        folds=args.folds,
        held_out=args.held_out,
        few_shot=args.few_shot or 0.0,
        **given,
    )
    lines = listing(splits[0].lines)
    what = "pairs" if args.held_out_pairs else "doses" if args.held_out_doses else "perturbations"
    print(
        f"{what} held out in {lines}"
        + (f"; {args.few_shot or 0:.0%} of the others of {args.held_out} train" if args.held_out else "")
    )
    for number, split in enumerate(splits):
        aside = f" and {len(split.aside)} that contain a held-out one" if split.aside else ""
        print(
            f"{f'fold {number}: ' if args.folds else ''}{len(split.train)} for training, {len(split.val)}{aside} for "
            f"validation, {len(split.test)} for test"
        )
    return splits
