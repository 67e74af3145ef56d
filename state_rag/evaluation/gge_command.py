"""GGE's own command with our metrics added, and what those need of a whole pair of files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gge.cli
import gge.data.loader
from gge import MetricRegistry

from state_rag.effects.conditions import Columns, open_pair
from state_rag.evaluation.evaluate import evaluate_pair
from state_rag.evaluation.settings import Settings
from state_rag.files import existing_file, writable_folder
from state_rag.h5ad import open_h5ad
from state_rag.metrics.gge import METRIC_CLASSES, Prepared, forget, use
from state_rag.metrics.registry import BY_NAME


def prepare(real: Any, generated: Any, columns: Columns, settings: Settings | None = None) -> None:
    """Fit PCA spaces and gather profiles for the metrics that need more than one condition's cells.

    Parameters
    ----------
    real, generated
        h5ad paths or AnnData objects, as given to GGE.
    columns
        Names in `obs`.
    settings
        Thresholds and the like.

    Raises
    ------
    StateRagError
        For input that `open_pair` refuses.
    """
    pair = open_pair(generated, real, columns)
    evaluation = evaluate_pair(pair, metrics=(BY_NAME["mse_pca50"],), settings=settings, progress=False)
    use(Prepared(columns.control, evaluation.profiles, evaluation.spaces))


@contextmanager
def repaired_command() -> Iterator[None]:
    """Make GGE's command usable for a while: ours are added, and two of its own faults are bridged.

    GGE 1.0.1's `main` calls `load_data` with keywords that it does not have and imports a class from a module that
    does not define it, so that the command fails whatever it is given.
    """
    originals = gge.cli.create_parser, gge.cli.get_metric_classes, gge.data.loader.load_data

    def create_parser():
        parser = originals[0]()
        for action in parser._actions:
            if action.dest == "metrics":
                action.choices = [*MetricRegistry.list_all(), "all"]
                action.metavar = "METRIC"
                action.help = f"Metrics to compute: {', '.join(action.choices)}. Default: GGE's paper metrics."
        parser.prog = "state-rag gge"
        return parser

    def get_metric_classes(names: Sequence[str] | None = None):
        if names is None:
            names = ["pearson", "spearman", "r_squared", "wasserstein_1", "wasserstein_2", "mmd", "energy"]
        elif "all" in names:
            names = MetricRegistry.list_all()
        return [MetricRegistry.get(name) for name in names]

    def load_data(real_path=None, generated_path=None, *, real_data=None, generated_data=None, **rest):
        real, generated = (
            given if given is not None else path
            for given, path in ((real_data, real_path), (generated_data, generated_path))
        )
        return originals[2](real_data=real, generated_data=generated, **rest)

    gge.cli.create_parser, gge.cli.get_metric_classes = create_parser, get_metric_classes
    gge.data.loader.load_data = load_data
    try:
        yield
    finally:
        gge.cli.create_parser, gge.cli.get_metric_classes, gge.data.loader.load_data = originals


def run_command(arguments: list[str], columns: Columns) -> None:
    """Run GGE's command with our metrics registered and prepared.

    Parameters
    ----------
    arguments
        GGE's own arguments.
    columns
        Names in `obs`; where the files have them, PCA is fitted per cell line and controls are left out of means.

    Raises
    ------
    StateRagError
        If a file is missing or something else, or nothing can be written to the folder of the results.
    """
    with repaired_command():
        parsed = gge.cli.create_parser().parse_args(arguments)
        for option, path in (("--real", parsed.real), ("--generated", parsed.generated)):
            existing_file(path, "an h5ad file", (".h5ad", ".h5"), option)
            open_h5ad(path).close()
        writable_folder(parsed.output, "--output")
        ours = [name for name in parsed.metrics or [] if name in METRIC_CLASSES or name == "all"]
        if ours:
            prepare(parsed.real, parsed.generated, columns)
        try:
            gge.cli.main(arguments)
        finally:
            forget()
