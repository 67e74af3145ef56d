"""`state-rag search`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.counts import count_of, seed

if TYPE_CHECKING:
    from rich.table import Table

    from state_rag.evidence.choices.search import Search

WIDE = 120
"""Columns of a terminal below which sentences have no room in the table."""


def add_commands(subparsers: Any) -> None:
    """Add `search`."""
    parser: ArgumentParser = subparsers.add_parser(
        "search",
        help="which perturbations most likely bring cells to a wanted state, measured or not",
        description="Predicts all candidates at once, and ranks them by agreement with a target: a response that was "
        "seen and cannot be named, the reversal of a disease signature, genes up and down. Says how far each is to be "
        "trusted and what it comes from, and when nothing fits. Prints the best, and writes tables and a picture.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="run folder of `state-rag evidence fit`, or of `state tx train rag=evidence`"
    )
    parser.add_argument("--context", required=True, metavar="NAME", help="cell line in which the state is wanted")
    parser.add_argument(
        "--target",
        required=True,
        metavar="TARGET",
        help="a .csv with columns gene,value; an .h5ad with a row a signature; or genes: GENE1:+,GENE2:-",
    )
    parser.add_argument("--row", metavar="NAME", help="of an .h5ad with several rows, the one that is meant")
    parser.add_argument("--reverse", action="store_true", help="look for the opposite, as for a disease signature")
    parser.add_argument(
        "--unlisted",
        choices=["unchanged", "unknown"],
        help="what genes do that the target does not name (default: unknown if it names half of the run's, else "
        "unchanged)",
    )
    parser.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="perturbations to choose from, one a line, combinations A+B too (default: all single ones that are known)",
    )
    parser.add_argument("--pairs", action="store_true", help="choose from all pairs of the candidates")
    parser.add_argument(
        "--top", type=count_of("perturbations"), default=20, metavar="N", help="how many to describe (%(default)s)"
    )
    parser.add_argument("--new-context", action="store_true", help="the context is new: nothing was measured in it")
    parser.add_argument("--seed", type=seed, default=0, help="of the random targets")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder to write to (default: RUN/search)")
    parser.set_defaults(run=run_search)


def run_search(args: Namespace) -> None:
    """Search, print and write."""
    from state_rag.console import make_console
    from state_rag.engine.evidence_of import evidence_of
    from state_rag.files import names_in, writable_folder
    from state_rag.planning.search import search_run, verdict
    from state_rag.planning.search_files import write_search
    from state_rag.planning.signatures import read_signature
    from state_rag.run_folders import find_run_folder

    folder = find_run_folder(args.run_folder)
    signature = read_signature(args.target, "--target", args.row)
    candidates = names_in(args.candidates, "--candidates") if args.candidates else None
    found = search_run(
        evidence_of(folder),
        args.context,
        signature,
        candidates=candidates,
        pairs=args.pairs,
        top=args.top,
        reverse=args.reverse,
        unlisted=args.unlisted,
        new_context=args.new_context,
        seed=args.seed,
    )
    output = writable_folder(args.output or folder / "search", "-o")
    console = make_console()
    wide = console.width >= WIDE
    console.print(_table(found, sentences=wide))
    if not wide:
        console.print(f"Why each is trusted so far, and the evidence behind it: {output / 'search.csv'}", markup=False)
    for line in (verdict(found), _asked(found, reverse=args.reverse)):
        console.print(line, markup=False)
    for path in write_search(found, output):
        console.print(f"Written: {path}", markup=False, soft_wrap=True)


def _asked(found: "Search", *, reverse: bool) -> str:
    """Return in words how the target was taken."""
    import numpy as np

    known, wanted = int(np.isfinite(found.target).sum()), int((np.nan_to_num(found.target) != 0).sum())
    total = len(found.genes)
    how = f"a list of {wanted} genes" if found.few else f"a response of {wanted} genes"
    rest = f"the other {total - wanted} are taken to be unchanged"
    if known < total:
        rest = f"nothing is assumed of the other {total - known}"
    around = ", turned round" if reverse else ""
    return f"Target: {how}{around}; {rest}." if wanted < total else f"Target: {how}{around}."


def _table(found: "Search", *, sentences: bool) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from state_rag.planning.search import search_table

    table = search_table(found)
    shown = Table(title=f"The best {len(table)} of {len(found.perturbations)} candidates in {escape(found.context)}")
    agreement = "mean effect" if found.few else "Pearson"
    headings = ["rank", "perturbation", "known by", "score", "p", agreement, "expected Pearson", "why", "evidence"]
    headings = headings if sentences else headings[:-2]
    for heading in headings:
        right = heading in ("rank", "score", "p", agreement)
        whole = right or heading == "perturbation"
        shown.add_column(heading, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for row in table.to_dict("records"):
        expected = row.get("expected_pearson", float("nan"))
        told = (
            ""
            if expected != expected
            else (f"{expected:.2f} ({row['expected_pearson_low']:.2f} to {row['expected_pearson_high']:.2f})")
        )
        why = row.get("trust_reason", "")
        cells = [row["rank"], row["perturbation"], row["known_by"], f"{row['score']:.3f}", f"{row['p']:.2g}"]
        cells += [f"{row['mean_effect' if found.few else 'pearson']:.3f}", told, why]
        cells.append(row["evidence"].split("|")[0])
        shown.add_row(*(escape(str(cell)) for cell in cells[: len(headings)]))
    return shown
