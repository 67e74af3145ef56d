"""`state-rag embeddings ...`: convert, build, look into and query tables of perturbation embeddings."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.errors import StateRagError
from state_rag.files import existing_file, read_text
from state_rag.names import suggest
from state_rag.names.combinations import is_made, with_members

if TYPE_CHECKING:
    from state_rag.embeddings.table import Embeddings

DEFAULT_PERT_COL = "gene"


def add_commands(subparsers: Any) -> None:
    """Add `embeddings` and its commands to the parser of `state-rag`."""
    room = subparsers.add_parser("embeddings", help="perturbation embeddings: convert, build, info, neighbours")
    commands = room.add_subparsers(dest="embeddings_command", required=True, metavar="COMMAND")

    convert = commands.add_parser("convert", help="write any supported table as safetensors, whole or in part")
    convert.add_argument("source", metavar="SRC", help="vectors, texts, gene sets, a graph, signatures, molecules")
    convert.add_argument("-o", "--out", required=True, metavar="OUT", help="file to write, ends in .safetensors")
    only = convert.add_mutually_exclusive_group()
    only.add_argument("--names", metavar="FILE", help="keep the perturbations of this file, one a line")
    only.add_argument("--h5ad", metavar="FILE", help="keep the perturbations of this data set (parts of A+B too)")
    convert.add_argument(
        "--pert-col", metavar="COL", help=f"column of obs with the perturbations (default: {DEFAULT_PERT_COL})"
    )
    convert.set_defaults(run=run_convert)

    build = commands.add_parser("build", help="embed summary texts (JSON: name -> text), offline")
    build.add_argument("source", metavar="SUMMARIES.json")
    build.add_argument("-o", "--out", required=True, metavar="OUT", help="file to write, ends in .safetensors")
    build.add_argument("--width", type=int, default=256, metavar="N", help="width of the vectors (default: 256)")
    build.set_defaults(run=run_build)

    info = commands.add_parser("info", help="what a table holds")
    info.add_argument("file", metavar="FILE")
    info.set_defaults(run=run_info)

    neighbours = commands.add_parser("neighbours", help="the perturbations nearest to one")
    neighbours.add_argument("gene", metavar="GENE")
    neighbours.add_argument("file", metavar="FILE", nargs="?", help="default: STATE_RAG_GENEPT or the usual places")
    neighbours.add_argument("-k", type=int, default=10, metavar="K", help="how many (default: 10)")
    neighbours.set_defaults(run=run_neighbours)


def run_convert(args: argparse.Namespace) -> None:
    """Read `args.source`, keep what is asked for, write `args.out`."""
    from state_rag.embeddings.readers import read_embeddings
    from state_rag.embeddings.sources import EMBEDDINGS, kind_of, read_source
    from state_rag.embeddings.writers import check_target, write_embeddings
    from state_rag.names import listing

    target = check_target(args.out)
    _refuse_same(args.source, target)
    if args.pert_col and not args.h5ad:
        raise StateRagError("--pert-col says which column of --h5ad holds the perturbations; give --h5ad too")
    asked = _asked_for(args)
    existing_file(args.source, "a table of embeddings, or another source of knowledge")
    kind = kind_of(Path(args.source))
    if kind != EMBEDDINGS:
        if asked is None:
            raise StateRagError(
                f"{args.source} ({kind}) has vectors only for the perturbations of a screen; name them with --h5ad or "
                "--names"
            )
        table = read_source(args.source, sorted(with_members(asked))).table
    else:
        table = read_embeddings(args.source, None if asked is None else with_members(asked), zeros="drop")
    lacking: list[str] = []
    if asked is not None:
        lacking = [name for name in asked if name not in table and not is_made(name, table)]
        if not len(table):
            raise StateRagError(
                f"{args.source}: holds none of the {len(asked)} perturbations asked for ({listing(asked)}). "
                "Both must use the same kind of names (gene symbols, as a rule)"
            )
    write_embeddings(target, table)
    _print_table(f"Converted {Path(args.source).name}", _facts(table))
    if lacking:
        _say(f"Without embedding: {len(lacking)} of {len(asked or ())}: {listing(lacking, 20)}")
    _say(f"Wrote {target}")


def run_build(args: argparse.Namespace) -> None:
    """Embed the texts of `args.source` and write `args.out`."""
    from state_rag.embeddings.readers import read_embeddings, read_summaries
    from state_rag.embeddings.writers import check_target, write_embeddings

    target = check_target(args.out)
    existing_file(args.source, "a file of name -> summary text", (".json",))
    if Path(args.source).suffix.lower() != ".json":
        raise StateRagError(
            f"{args.source}: expected a .json file of name -> summary text; other tables go through "
            "`state-rag embeddings convert`"
        )
    table = read_embeddings(args.source, text_width=args.width)
    if not any(isinstance(text, str) for text in read_summaries(args.source).values()):
        raise StateRagError(f"{args.source}: holds vectors, not texts; use `state-rag embeddings convert`")
    write_embeddings(target, table)
    _print_table(f"Embedded the texts of {Path(args.source).name}", _facts(table))
    _say(f"Wrote {target}")


def run_info(args: argparse.Namespace) -> None:
    """Print what `args.file` holds."""
    from state_rag.embeddings.readers import read_embeddings

    table = read_embeddings(args.file)
    _print_table(str(args.file), _facts(table))


def run_neighbours(args: argparse.Namespace) -> None:
    """Print the neighbours of `args.gene`."""
    from state_rag.embeddings.find import find_embeddings
    from state_rag.embeddings.readers import read_embeddings
    from state_rag.embeddings.similar import most_similar

    if args.k < 1:
        raise StateRagError(f"-k: expected at least 1 neighbour, found {args.k}")
    path = find_embeddings(args.file)
    aliases, near = most_similar(read_embeddings(path), args.gene, args.k)
    title = f"Nearest to {args.gene}" + (f" (same vector: {', '.join(aliases)})" if aliases else "")
    _print_table(title, [(", ".join(one.names), f"{one.cosine:.3f}") for one in near], ("perturbation", "cosine"))
    _say(f"Table: {path}")


def _asked_for(args: argparse.Namespace) -> list[str] | None:
    if args.names:
        return _names_of_list(Path(args.names))
    if args.h5ad:
        return _names_of_h5ad(Path(args.h5ad), args.pert_col or DEFAULT_PERT_COL)
    return None


def _names_of_list(path: Path) -> list[str]:
    lines = read_text(path, "a list with one perturbation a line", (".txt",), "--names").splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise StateRagError(f"--names {path}: expected one perturbation a line, found none")
    return names


def _names_of_h5ad(path: Path, column: str) -> list[str]:
    import h5py
    from anndata.io import read_elem

    existing_file(path, "an h5ad file", (".h5ad", ".h5"), "--h5ad")
    try:
        with h5py.File(path, "r") as file:
            if "obs" not in file:
                raise StateRagError(f"--h5ad {path}: expected an AnnData file, found no obs in it")
            columns = [str(name) for name in file["obs"].attrs.get("column-order", file["obs"].keys())]
            if column not in columns:
                raise StateRagError(
                    f"--h5ad {path}: obs has no column '{column}'; it has {', '.join(columns)}"
                    f"{suggest([column], columns)}. Say which holds the perturbations with --pert-col"
                )
            values = read_elem(file["obs"])[column]
    except OSError as error:
        raise StateRagError(f"--h5ad {path}: is no HDF5 file, or a truncated one; expected an h5ad file") from error
    return sorted({str(value) for value in values.dropna().unique()})


def _refuse_same(source: str, target: Path) -> None:
    if Path(source).exists() and target.exists() and Path(source).samefile(target):
        raise StateRagError(f"{target}: is the source itself; write to another name")


def _facts(table: "Embeddings") -> list[tuple[str, str]]:
    import numpy as np

    from state_rag.embeddings.table import lengths

    norms = lengths(table.vectors)
    # numbers of 64 bits stand for vectors, of which a large table would not fit beside itself
    distinct = len({hash(row.tobytes()) for row in table.vectors})
    facts = [
        ("perturbations", str(len(table))),
        ("names", ", ".join(table.names[:8]) + (", ..." if len(table) > 8 else "")),
        ("width", str(table.width)),
        ("length of vectors", f"{norms.min():.4g} to {norms.max():.4g}, median {np.median(norms):.4g}"),
    ]
    if distinct < len(table):
        facts.append(("distinct vectors", f"{distinct} (names that share one are aliases, or have the same text)"))
    return facts + [(key.replace("_", " "), value) for key, value in sorted(table.provenance.items())]


def _print_table(title: str, rows: list[tuple[str, str]], header: tuple[str, str] | None = None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from state_rag.console import make_console

    table = Table(title=escape(title), title_justify="left", show_header=header is not None)
    for column, heading in enumerate(header or ("", "")):
        table.add_column(heading, overflow="fold", justify="right" if header and column else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    make_console().print(table)


def _say(text: str) -> None:
    from state_rag.console import make_console

    make_console().print(text, markup=False, soft_wrap=True)
