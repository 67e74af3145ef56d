"""What we add to the command lines of STATE's `tx` commands."""

import re
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from typing import Any

from state_rag.names import suggest
from state_rag.settings_help import preset_names

SOURCES = ("training.rag_sources", "rag.rag_sources")
EMBEDDINGS_HELP = (
    "File of perturbation embeddings (GenePT pickle, safetensors, npz, csv, parquet, pt, or json). Used for "
    "perturbations that the checkpoint does not know; default: the file that the run was trained with, or one at a "
    "usual place, where it says the same of the run's own perturbations."
)


def add_train_arguments(parser: ArgumentParser) -> None:
    """Have `tx train` refuse an unknown preset with the list of presets, before Hydra reports its search path."""
    for action in parser._actions:
        if action.dest == "hydra_overrides":
            action.type = known_override


def known_override(override: str) -> str:
    """Return an override as Hydra reads it; see `known_preset` and `quoted_sources`."""
    return quoted_sources(known_preset(override))


def quoted_sources(override: str) -> str:
    """Return an override whose list of `NAME=FILE` is quoted, which Hydra wants and nobody remembers.

    Examples
    --------
    >>> quoted_sources("training.rag_sources=[genept,go=/data/go.gmt]")
    "training.rag_sources=['genept','go=/data/go.gmt']"
    """
    key, mark, value = override.partition("=")
    if key.lstrip("+") not in SOURCES or not re.fullmatch(r"\[[^'\"]*\]", value):
        return override
    parts = [part.strip() for part in value[1:-1].split(",")]
    return f"{key}{mark}[{','.join(repr(part) for part in parts if part)}]"


def known_preset(override: str) -> str:
    """Return an override as it is, unless it asks for a preset that does not exist.

    Raises
    ------
    argparse.ArgumentTypeError
        For ``rag=NAME`` where there is no such file.
    """
    key, _, value = override.partition("=")
    if key == "rag" and value not in preset_names():
        raise ArgumentTypeError(
            f"rag={value} is not a preset{suggest([value], preset_names())}. Use one of: "
            f"{', '.join(f'rag={name}' for name in preset_names())}."
        )
    return override


def _add_knowledge(group: Any) -> None:
    """Add the options that say what is known of perturbations which a run was not trained with."""
    group.add_argument("--genept-path", default=None, metavar="FILE", help=EMBEDDINGS_HELP)
    group.add_argument(
        "--source",
        dest="sources",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="The same for a run with training.rag_sources, once for each source whose file lies elsewhere now.",
    )


def add_predict_arguments(parser: ArgumentParser) -> None:
    """Add retrieval's flags to `tx predict`."""
    group = parser.add_argument_group("retrieval (state-rag)")
    group.add_argument(
        "--eval-genept-pert",
        action="store_true",
        help="Limit the test set to perturbations that have an embedding (for any run, so that runs compare).",
    )
    _add_knowledge(group)
    group.add_argument(
        "--max-batches",
        type=int,
        default=None,
        metavar="N",
        help="Predict at most N cell sets, one control set of each cell line among them.",
    )
    group.add_argument(
        "--count-flops",
        action="store_true",
        help="Count floating-point operations and write flops_stats.json beside the predictions.",
    )
    group.add_argument(
        "--no-gge",
        action="store_true",
        help="With --eval-genept-pert: leave out the evaluation in GGE's layout (metrics, naive baselines).",
    )
    group.add_argument(
        "--evidence",
        action=BooleanOptionalAction,
        help="In that evaluation: a row of the evidence engine alone, fitted once for all runs on a split (default: "
        "unless the screen is very large).",
    )


def add_infer_arguments(parser: ArgumentParser) -> None:
    """Add retrieval's flags to `tx infer`."""
    group = parser.add_argument_group("retrieval (state-rag)")
    _add_knowledge(group)
    group = parser.add_argument_group("cells (state-rag)")
    group.add_argument(
        "--perturbations",
        default=None,
        metavar="A,B,...|FILE",
        help="Predict these perturbations for every cell line's controls, instead of what the cells are labelled with: "
        "names with commas between, or a file with one on a line. --celltypes chooses lines, "
        "--virtual-cells-per-pert how many cells of each (default: one for each control).",
    )
    group.add_argument(
        "--fill-missing",
        action="store_true",
        help="Where the cells lack genes that the run was trained on, take the mean of its training controls.",
    )
