"""`state-rag settings`, `import-checkpoint` and `wandb-config`; `retrieval` has a module of its own."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from state_rag.upstream.retrieval_command import add_retrieval


def add_commands(subparsers: Any) -> None:
    """Add the commands of this room."""
    parser = subparsers.add_parser(
        "settings",
        help="what each flag of `state tx train` that is ours does, its default and its allowed values",
        description="Prints the flags of retrieval, all or those named, with defaults, allowed values, what presets "
        "set and what a flag needs.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="flags, with or without training. (default: all)")
    parser.add_argument("--markdown", action="store_true", help="as a table in Markdown")
    parser.set_defaults(run=settings)

    parser = subparsers.add_parser(
        "import-checkpoint",
        help="turn a released PT-RAG model into a run folder for `state tx predict`",
        description="Reads a folder as the authors of PT-RAG released it and writes a run folder beside it.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="released folder (config.yaml, checkpoints, side files)"
    )
    parser.add_argument("-o", "--output", type=Path, default=None, help="run folder to write (default: DIR-state-rag)")
    parser.set_defaults(run=import_checkpoint)

    parser = subparsers.add_parser(
        "wandb-config",
        help="the config.yaml of a run, or its overrides, restored from its W&B run",
        description="Writes the configuration that a run was started with, from the W&B run alone.",
    )
    parser.add_argument(
        "source",
        metavar="RUN",
        help="ENTITY/PROJECT/RUN_ID, the folder of an offline run, or a config file that W&B wrote",
    )
    parser.add_argument(
        "--overrides", action="store_true", help="overrides for `state tx train`, one on a line, instead of the file"
    )
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: print)")
    parser.set_defaults(run=wandb_config)
    add_retrieval(subparsers)


def settings(args: Namespace) -> None:
    """Run `state-rag settings`."""
    from state_rag.settings_help import help_text, markdown_table

    print(markdown_table(args.names) if args.markdown else help_text(args.names), end="")


def import_checkpoint(args: Namespace) -> None:
    """Run `state-rag import-checkpoint`."""
    from state_rag.upstream.released import import_release

    target = args.output or args.folder.with_name(args.folder.resolve().name + "-state-rag")
    print(f"Run folder: {import_release(args.folder, target)}")
    print(f"Next: state tx predict --output-dir {target} --toml SPLIT.toml")


def wandb_config(args: Namespace) -> None:
    """Run `state-rag wandb-config`."""
    from state_rag.files import print_or_write
    from state_rag.tracking.restore import config_yaml, read_config

    text = config_yaml(read_config(args.source), args.source)
    if args.overrides:
        import yaml

        from state_rag.upstream.overrides import overrides_of

        text = "".join(f"{line}\n" for line in overrides_of(yaml.safe_load(text)))
    print_or_write(text, args.output)
