"""What we rely on in arc-state and cell-load, checked by name before a wrapped command starts."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from state_rag.errors import StateRagError

SUPPORTED = "arc-state>=0.11.1,<0.12 with cell-load>=0.10.4,<0.11"

RELIED_ON = (
    "state._cli._tx.run_tx_train",
    "state._cli._tx.run_tx_predict",
    "state._cli._tx.run_tx_infer",
    "state._cli._tx.add_arguments_predict",
    "state._cli._tx.add_arguments_infer",
    "state.tx.models.state_transition.StateTransitionPerturbationModel",
    "state.tx.models.state_transition.StateTransitionPerturbationModel.encode_perturbation",
    "state.tx.models.state_transition.StateTransitionPerturbationModel.encode_basal_expression",
    "state.tx.models.state_transition.StateTransitionPerturbationModel.training_step",
    "state.tx.models.state_transition.StateTransitionPerturbationModel.predict_step",
    "state.tx.models.state_transition.StateTransitionPerturbationModel.on_load_checkpoint",
    "state.tx.models.utils.LlamaConfig",
    "state.tx.utils.get_lightning_module",
    "cell_load.data_modules.PerturbationDataModule",
    "cell_load.data_modules.PerturbationDataModule.load_state",
    "cell_load.data_modules.PerturbationDataModule._process_celltype",
    "cell_load.data_modules.PerturbationDataModule._create_dataloader",
    "cell_load.data_modules.PerturbationDataModule._setup_global_maps",
    "cell_load.data_modules.perturbation_dataloader.PerturbationBatchSampler",
    "cell_load.data_modules.samplers.PerturbationBatchSampler._get_rank_sentences",
    "cell_load.data_modules.samplers.PerturbationBatchSampler.set_epoch",
    "cell_load.utils.modules.DATA_MODULE_DICT",
    "cell_load.dataset.PerturbationDataset._fetch_gene_expression_batch",
    "cell_load.dataset.PerturbationDataset._fetch_obsm_expression_batch",
    "cell_load.dataset.PerturbationDataset._find_split_for_idx",
)


def missing(names: tuple[str, ...] = RELIED_ON) -> list[str]:
    """Return those of the dotted `names` that cannot be reached."""
    return [name for name in names if not _reachable(name)]


def check() -> None:
    """Raise `StateRagError`, with the supported versions, unless everything we rely on is there."""
    if gone := missing():
        raise StateRagError(explain(gone))


def explain(gone: list[str]) -> str:
    """Say which names are missing from which versions, and what to do."""
    found = " and ".join(f"{package} {_version(package)}" for package in ("arc-state", "cell-load"))
    return (
        f"{found} lack {', '.join(gone)}, which this version of state-rag builds on. Supported: {SUPPORTED}. "
        "Install a supported version, or set STATE_RAG_DISABLE=1 to run STATE without retrieval."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _reachable(name: str) -> bool:
    """Import the longest module prefix of `name`, then walk its attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False
