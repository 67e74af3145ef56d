"""Command-line flags that we add to STATE's `tx predict` and `tx infer`."""

from argparse import ArgumentParser

EMBEDDINGS_HELP = (
    "File of perturbation embeddings (GenePT pickle, safetensors, npz, csv, parquet, pt, or json). Used for "
    "perturbations that the checkpoint does not know; default: the STATE_RAG_GENEPT environment variable, then "
    "the usual places."
)


def add_predict_arguments(parser: ArgumentParser) -> None:
    """Add retrieval's flags to `tx predict`."""
    group = parser.add_argument_group("retrieval (state-rag)")
    group.add_argument(
        "--eval-genept-pert",
        action="store_true",
        help="Limit the test set to perturbations that have an embedding (for any run, so that all are compared alike).",
    )
    group.add_argument("--genept-path", default=None, metavar="FILE", help=EMBEDDINGS_HELP)
    group.add_argument(
        "--max-batches",
        type=int,
        default=None,
        metavar="N",
        help="Predict at most N cell sets, one control set of each cell line among them.",
    )


def add_infer_arguments(parser: ArgumentParser) -> None:
    """Add retrieval's flags to `tx infer`."""
    group = parser.add_argument_group("retrieval (state-rag)")
    group.add_argument("--genept-path", default=None, metavar="FILE", help=EMBEDDINGS_HELP)
