"""`state-rag data fetch`."""

import argparse
import shlex
from typing import Any


def add_fetch(commands: Any) -> None:
    """Add `data fetch`."""
    parser = commands.add_parser(
        "fetch",
        help="download a data set or embeddings",
        description="Download a file, with its licence shown, its size and digest checked and the space on the disk "
        "looked at first. A download that was cut goes on where it ended. Without NAME, say what there is.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="what to download: replogle-nadig, genept, ...")
    parser.add_argument("--list", action="store_true", help="say what there is, with sizes and licences")
    parser.add_argument(
        "--to", metavar="FOLDER", help="default: the folder that STATE_RAG_CACHE names, or ~/.cache/state-rag"
    )
    parser.add_argument("--from", dest="mirror", metavar="URL", help="mirror that has the files by their names")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> None:
    """Download a file and say where it lies and what takes it."""
    from state_rag.datasets.fetching.downloads import asked_for, known_downloads, size_in_words
    from state_rag.datasets.fetching.fetch import fetch

    known = known_downloads()
    if args.list or args.name is None:
        for download in known.values():
            print(download.name)
            print(f"    {download.about}")
            print(f"    {_amount(download)}; {download.licence or 'licence not known here, see the page'}")
            print(f"    {download.page}")
        return
    wanted = asked_for(args.name, known)
    print(f"about    {wanted.about}")
    print(f"source   {wanted.page}")
    print(f"licence  {_licence(wanted)}")
    print(f"size     {_amount(wanted).removeprefix('size ')}", flush=True)
    done = fetch(args.name, args.to, mirror=args.mirror, progress=not args.quiet)
    size = size_in_words(done.path.stat().st_size)
    print(f"{'fetched' if done.is_new else 'is here'}  {done.path} ({size})")
    archive = done.path.parents[len(wanted.file.split("/")) - 1] / wanted.transfer.file
    if wanted.member is not None and archive.is_file():
        print(f"archive  {archive}; what else is in it comes from there, and it may be removed")
    if args.name == "genept" and args.to is None:
        print("         found from now on where no embeddings are named")
    print(f"use it   {wanted.use.format(path=shlex.quote(str(done.path.absolute())))}")


def _amount(download: Any) -> str:
    """Return how much comes, and how much it is unpacked."""
    from state_rag.datasets.fetching.downloads import size_in_words

    size = size_in_words(download.transfer.size)
    if download.member is None:
        return size if download.transfer.size else "size not measured by us"
    unpacked = f", {size_in_words(download.size)} unpacked" if download.size else ""
    return f"{size}{unpacked} (the archive {download.transfer.file})"


def _licence(download: Any) -> str:
    return download.licence or f"not known here: see {download.page}"
