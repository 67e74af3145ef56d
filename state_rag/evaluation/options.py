"""Options that several commands of this room share."""

import argparse

from state_rag.datasets.command_words import CELL_TYPE_KEY, CONTROL
from state_rag.effects.workers import add_worker_options

DEVICES = ("auto", "cpu", "cuda")
FROM_RUN = "(default: from the run's configuration)"


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add which runs to read, and what to read beside them."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or its eval_<checkpoint> folder")
    parser.add_argument("--checkpoint", help="which predictions, where a run has several, such as last.ckpt")
    parser.add_argument("--toml", help=f"split file that names the training data {FROM_RUN}")
    parser.add_argument(
        "--embeddings",
        help="perturbation embeddings (default: those a run was trained with, those of a run beside it, "
        "STATE_RAG_GENEPT, or GenePT's file at the usual places)",
    )
    parser.add_argument("--pert-col", help=f"perturbation column {FROM_RUN}")
    parser.add_argument(*CELL_TYPE_KEY, dest="cell_type_key", help=f"cell-line column {FROM_RUN}")
    parser.add_argument(*CONTROL, dest="control", help=f"label of control cells {FROM_RUN}")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add what to compute, and how; a finished evaluation that has it all is taken as it is."""
    parser.add_argument("--no-baselines", action="store_true", help="do not read the training data")
    parser.add_argument(
        "--evidence",
        action=argparse.BooleanOptionalAction,
        help="fit the evidence engine on the training data, once for all runs with the same, for a row of its own "
        "(default: unless the screen is very large)",
    )
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="only these metrics (default: all); `state-rag metrics` lists them"
    )
    parser.add_argument("--gge-metrics", nargs="+", default=[], help="metrics of GGE to add, such as pearson mmd:pca")
    parser.add_argument("--deg-p", type=float, default=0.1, help="DEGs: Welch p below this (default: %(default)s)")
    parser.add_argument("--deg-log2fc", type=float, default=0.05, help="and |log2FC| at least this (%(default)s)")
    parser.add_argument("--fold-change", choices=("log1p", "gge"), default="log1p", help="definition of log2FC")
    parser.add_argument("--components", type=int, default=50, help="dimensions of the PCA space (%(default)s)")
    parser.add_argument("--per-gene", nargs="*", default=["mse"], help="per-gene tables: mse mae delta_real ...")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where distances are computed; auto: the GPU if there is one"
    )
    add_worker_options(parser)
    parser.add_argument("--force", action="store_true", help="evaluate again even where results are up to date")


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """Add how runs stand beside each other."""
    parser.add_argument("--reference", metavar="RUN", help="folder or name of the run to test against (default: last)")
    parser.add_argument("--names", nargs="+", help="names to show, one per run (default: the runs' own)")
