"""Find a run's predictions and what its configuration says about them."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from state_rag.contract.feature_names import names_in_file
from state_rag.contract.identity import spaces_used
from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.treated_labels import TreatmentColumns
from state_rag.effects.conditions import Columns
from state_rag.errors import StateRagError
from state_rag.files import read_text
from state_rag.h5ad import open_cells, open_h5ad
from state_rag.names import suggest
from state_rag.run_folders import CONFIG, PREDICTED, find_run_folder, split_file

logger = logging.getLogger(__name__)
RESULTS = "gge"


@dataclass(frozen=True)
class Run:
    """A run folder and one of its prediction folders.

    Attributes
    ----------
    folder
        Holds `config.yaml`.
    predictions
        Holds `adata_pred.h5ad` and `adata_real.h5ad`.
    config
        The run's configuration.
    """

    folder: Path
    predictions: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the run's name for tables."""
        return str(self.config.get("name") or self.folder.name)

    @property
    def data(self) -> dict[str, Any]:
        """Return the data module's keyword arguments."""
        return self.config.get("data", {}).get("kwargs", {}) or {}

    @property
    def columns(self) -> Columns:
        """Return the names in `obs`."""
        default = Columns()
        return Columns(
            self.data.get("pert_col") or default.perturbation,
            self.data.get("cell_type_key") or default.cell_line,
            self.data.get("control_pert") or default.control,
            TreatmentColumns.of(self.data),
        )

    @property
    def source_matrix(self) -> str:
        """Return where, in the data files, the values lie that `X` of the predictions is compared with."""
        return spaces_used(self.data.get("embed_key"), self.data.get("output_space", "all"))[-1]

    @property
    def results(self) -> Path:
        """Return the folder that the evaluation is written to."""
        return self.predictions / RESULTS

    def split_path(self, given: str | Path | None = None) -> Path | None:
        """Return the split file: the given one, else the run's."""
        return Path(given) if given else split_file(self.folder, self.data.get("toml_config_path"))


def find_run(place: str | os.PathLike[str], checkpoint: str | None = None) -> Run:
    """Find the run and the predictions that a path means.

    Parameters
    ----------
    place
        A run folder, a folder that holds exactly one run, or a prediction folder `RUN/eval_<checkpoint>`.
    checkpoint
        Which predictions, where a run has several (`last.ckpt`, ...).

    Raises
    ------
    StateRagError
        If there is no run, no prediction, or more than one without `checkpoint`.
    """
    place = Path(place)
    if (place / PREDICTED).is_file():
        folder = place.parent if (place.parent / CONFIG).is_file() else place
        return Run(folder, place, _read_config(folder) if folder != place else {})
    place = find_run_folder(place)
    found = sorted(path.parent for path in place.glob(f"eval_*/{PREDICTED}"))
    close = ""
    if checkpoint is not None:
        close = suggest([checkpoint], [path.name.removeprefix("eval_") for path in found])
        found = [path for path in found if path.name in (f"eval_{checkpoint}", f"eval_{checkpoint}.ckpt", checkpoint)]
    if not found:
        wanted = f" for {checkpoint}" if checkpoint else ""
        raise StateRagError(
            f"{place}: no predictions{wanted} (expected eval_<checkpoint>/{PREDICTED}){close}; "
            f"make them with `state tx predict --output-dir {place}`, without --skip-adatas"
        )
    if len(found) > 1:
        names = ", ".join(path.name.removeprefix("eval_") for path in found)
        raise StateRagError(f"{place}: predictions of several checkpoints ({names}); choose one with --checkpoint")
    return Run(place, found[0], _read_config(place))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = yaml.safe_load(read_text(path, "the configuration of a `state tx train` run"))
    except yaml.YAMLError as error:
        raise StateRagError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(config, dict):
        raise StateRagError(f"{path}: expected the configuration that `state tx train` writes")
    return config


def predicted_matrix(run: Run) -> str:
    """Return where predicted and real values lie: `X`, or `obsm/NAME` where an unclipped embedding is at hand."""
    if run.data.get("output_space") != "embedding":
        return "X"
    key = f"obsm/{run.data.get('embed_key')}"
    with open_h5ad(run.predictions / PREDICTED) as file:
        if key in file:
            return key
    logger.warning(
        "output_space=embedding: upstream clips X to [0, 14] before it writes it, so negative coordinates are lost, "
        "and gene-wise metrics (DEGs, directions) speak of embedding coordinates. `state tx predict "
        "--eval-genept-pert` also writes the embedding unclipped."
    )
    return "X"


def feature_names(run: Run, width: int, toml: str | Path | None = None) -> list[str] | None:
    """Return the names of the predicted columns from the run's data files, or None where they cannot be told.

    `state tx predict` writes none, so they come from the first data file of the split.
    """
    path = run.split_path(toml)
    if path is None or not path.is_file():
        return None
    for place in read_split(path).datasets.values():
        for file in find_data_files(place, str(path)):
            with open_cells(file) as opened:
                names = names_in_file(opened, run.source_matrix)
            if names is not None and len(names) == width:
                return names
    return None
