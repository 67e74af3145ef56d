"""`state-rag design`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.counts import count_of, seed

if TYPE_CHECKING:
    from rich.table import Table

    from state_rag.evidence.choices.design import Design
    from state_rag.evidence.choices.design_replay import Replay
    from state_rag.evidence.choices.hits import Hits


def add_commands(subparsers: Any) -> None:
    """Add `design`."""
    parser: ArgumentParser = subparsers.add_parser(
        "design",
        help="which perturbations to measure next, so that the predictions of the others improve most",
        description="Chooses perturbations one after another, each the one that takes most of the variance that is "
        "left from the predictions of an evidence run, all measured conditions counted in. Prints them, and writes a "
        "table, a picture and plates.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="run folder of `state-rag evidence fit`, or of `state tx train rag=evidence`"
    )
    parser.add_argument("--context", required=True, nargs="+", metavar="NAME", help="cell lines to measure in")
    parser.add_argument(
        "--budget", required=True, type=count_of("experiments"), metavar="N", help="experiments to choose"
    )
    parser.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="perturbations to choose from, one a line, combinations A+B too (default: all single ones that are known)",
    )
    parser.add_argument("--pairs", action="store_true", help="choose from all pairs of the candidates")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="perturbations not to choose, one a line")
    parser.add_argument(
        "--targets",
        type=Path,
        metavar="FILE",
        help="perturbations to predict, one a line, combinations too (default: all unmeasured single ones, and the "
        "combinations among the candidates; these alone where all candidates are combinations)",
    )
    parser.add_argument("--cost", type=Path, metavar="CSV", help="columns perturbation,cost (default: 1 each)")
    parser.add_argument(
        "--add",
        type=Path,
        action="append",
        metavar="NEW.h5ad",
        help="count in new measurements, as `state-rag evidence add` does; once for each file",
    )
    parser.add_argument("--replicates", action="store_true", help="also offer what was measured already")
    parser.add_argument("--new-context", action="store_true", help="a context is new: nothing was measured in it")
    parser.add_argument(
        "--aim",
        choices=["accuracy", "hits"],
        default="accuracy",
        help="predict the targets better, or find effects above a threshold (%(default)s)",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="of hits (default: what a tenth of the measured effects exceed)"
    )
    parser.add_argument("--signature", metavar="TARGET", help="of hits: what `state-rag search --target` takes")
    parser.add_argument(
        "--batch-size", type=count_of("experiments"), default=96, metavar="N", help="experiments a plate (%(default)s)"
    )
    parser.add_argument("--controls", type=int, default=0, metavar="N", help="control wells a plate (%(default)s)")
    parser.add_argument("--evaluate", action="store_true", help="replay the choice on a measured context of the run")
    parser.add_argument(
        "--splits", type=count_of("experiments"), default=12, metavar="N", help="of the replay (%(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of samples and of the replay")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder to write to (default: RUN/design)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_design)


def run_design(args: Namespace) -> None:
    """Choose, print and write."""
    from state_rag.console import make_console
    from state_rag.engine.adding import add
    from state_rag.engine.evidence_of import evidence_of
    from state_rag.errors import StateRagError
    from state_rag.evidence.choices.hits import Hits
    from state_rag.files import names_in, writable_folder
    from state_rag.planning.design import design_run, hits_run
    from state_rag.planning.design_files import plate_table, read_numbers, write_design, write_replay
    from state_rag.planning.signatures import read_signature
    from state_rag.run_folders import find_run_folder

    folder = find_run_folder(args.run_folder)
    plate_table([], args.batch_size, args.controls)
    if args.aim == "accuracy" and (args.signature or args.threshold is not None):
        raise StateRagError("--threshold and --signature say what a hit is; add --aim hits.")
    if args.aim == "hits" and (args.targets or args.cost or args.replicates):
        raise StateRagError("--targets, --cost and --replicates are not for --aim hits; leave them out.")
    candidates = names_in(args.candidates, "--candidates") if args.candidates else None
    exclude = names_in(args.exclude, "--exclude") if args.exclude else []
    targets = names_in(args.targets, "--targets") if args.targets else None
    costs = read_numbers(args.cost, "--cost", "perturbation", "cost") if args.cost else None
    signature = read_signature(args.signature, "--signature") if args.signature else None
    run = evidence_of(folder)
    if args.add:
        run = add(run, args.add, progress=not args.quiet).run
    found: Design | Hits
    if args.aim == "hits":
        found = hits_run(
            run,
            args.context,
            args.budget,
            candidates=candidates,
            pairs=args.pairs,
            exclude=exclude,
            threshold=args.threshold,
            signature=signature,
            new_context=args.new_context,
        )
    else:
        found = design_run(
            run,
            args.context,
            args.budget,
            candidates=candidates,
            pairs=args.pairs,
            targets=targets,
            exclude=exclude,
            costs=costs,
            replicates=args.replicates,
            new_context=args.new_context,
            seed=args.seed,
        )
    output = writable_folder(args.output or folder / "design", "-o")
    console = make_console()
    console.print(_table(found))
    for line in _facts(found):
        console.print(line, markup=False)
    replayed = _replayed(args, run) if args.evaluate else None
    written = write_design(found, output, args.batch_size, args.controls, replayed)
    if replayed is not None:
        console.print(_replay_table(replayed))
        console.print(verdict(replayed), markup=False)
        if not isinstance(found, Hits):
            console.print(_expected(found, replayed), markup=False)
        written += write_replay(replayed, output)
    for path in written:
        console.print(f"Written: {path}", markup=False, soft_wrap=True)


def verdict(found: "Replay") -> str:
    """Return in words whether the design paid where it was replayed."""
    gain, p = found.gain(), found.p_value()
    better = [str(b) for b, g, q in zip(found.budgets, gain, p, strict=True) if g > 0 and q < 0.05]
    if len(better) == len(found.budgets):
        return (
            f"In {found.context} designed experiments beat random ones at every budget (paired over splits, p < .05)."
        )
    if not better:
        return f"In {found.context} designed experiments were NOT clearly better than random ones at any budget."
    told = f"with {', '.join(better)} experiments, with other numbers NOT clearly"
    return f"In {found.context} designed experiments beat random ones {told} (paired over splits, p < .05)."


def _expected(found: "Design", replayed: "Replay") -> str:
    """Return in words what accuracy the variances went with in the replay."""
    if found.combinations:
        return "What accuracy to expect of combinations cannot be told: what was replayed are single perturbations."
    ours, theirs = (replayed.expected(sums[-1:] / found.prior)[0] for sums in (found.remaining, found.random))
    if not (ours == ours and theirs == theirs):
        return "What accuracy to expect of this design cannot be told: the replay saw no such variances."
    return (
        f"Expected accuracy (Pearson, by what the replay saw in {replayed.context}): {ours:.2f} after "
        f"{len(found.conditions)} experiments, {theirs:.2f} after as many random ones."
    )


def _replayed(args: Namespace, run: Any) -> "Replay":
    from tqdm import tqdm

    from state_rag.planning.design import replay_run

    with tqdm(total=args.splits, desc="replaying", disable=args.quiet, leave=False) as bar:
        return replay_run(
            run, args.context, splits=args.splits, seed=args.seed, progress=lambda *_: bar.update() and None
        )


def _table(found: "Design | Hits") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from state_rag.planning.design import design_table

    table = design_table(found)
    table = table.drop(columns=[name for name in ("cost", "replicate") if name in table and table[name].nunique() == 1])
    if "helps" in table:  # lines break at spaces, not within names
        table = table.assign(helps=table["helps"].str.replace("|", " ", regex=False))
    shown = Table(title=f"{len(table)} experiments, in this order")
    for column in table.columns:
        words = table[column].dtype == object
        whole = column == "perturbation"
        shown.add_column(column.replace("_", " "), justify="left" if words else "right", no_wrap=whole, overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else escape(str(value)) for value in row))
    return shown


def _replay_table(found: "Replay") -> "Table":
    from rich.table import Table

    splits = len(found.explained)
    shown = Table(title=f"Replayed on {found.context}, {splits} splits: Pearson (p of designed against it)")
    shown.add_column("chosen")
    for budget in found.budgets:
        shown.add_column(str(budget), justify="right")
    for method, values in found.scores.items():
        told = zip(values.mean(0), found.p_value(method), strict=True)
        shown.add_row(method, *(f"{v:.3f}" + ("" if method == "designed" else f" ({p:.1g})") for v, p in told))
    return shown


def _facts(found: "Design | Hits") -> list[str]:
    from state_rag.evidence.choices.hits import Hits

    count = len(found.conditions)
    if isinstance(found, Hits):
        lines = [f"Expected hits (effect above {found.threshold:.4g}): {found.expected[-1]:.1f} of {count}."]
    else:
        ours, theirs = found.explained[-1], found.explained_by_random[-1]
        lines = [
            f"{count} experiments take away {ours:.1%} of the variance of {found.targets} targets"
            f"{_of_them(found)}, random ones "
            f"{theirs:.1%}. That is variance, not accuracy: --evaluate tells what it is worth where it was measured."
        ]
    if found.exhausted:
        lines.append("There were no more candidates: all are taken.")
    return lines


def _of_them(found: "Design") -> str:
    if found.combinations in (0, found.targets):
        return " (combinations)" if found.combinations else ""
    return f" ({found.combinations} of them combinations)"
