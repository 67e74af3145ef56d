"""`state-rag evidence fit --wandb`: what a fit found, in a W&B run that evaluations of it go to later."""

from pathlib import Path

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.engine.fit_facts import fit_numbers, fit_tables
from state_rag.engine.folder import EvidenceRun
from state_rag.files import read_text, sample_digest
from state_rag.run_folders import CONFIG
from state_rag.tracking.fit_run import track_fit
from state_rag.tracking.provenance import file_fingerprints, git_revision, package_versions


def track(run: EvidenceRun, folder: Path) -> bool:
    """Record a fitted run in W&B, labelled as trainings are: `method`, here `evidence`, and `held_out`.

    Parameters
    ----------
    run
        The run.
    folder
        Where it lies.

    Returns
    -------
    bool
        Whether it was recorded; W&B never stops a fit.
    """
    split = run.data.get("toml_config_path")
    facts = {
        "config_yaml": read_text(folder / CONFIG, "the configuration of a run"),
        "git": git_revision(),
        "packages": package_versions(),
        "data": None,
        "embeddings": None,
    }
    held_out = None
    if split:
        read = read_split(split)
        held_out = "+".join(read.tested_lines) or None
        files = [file for place in read.datasets.values() for file in find_data_files(place, str(split))]
        facts["data"] = {"split": sample_digest(split), "files": file_fingerprints(files)}
    embeddings = run.config.get("training", {}).get("genept_path")
    if embeddings:
        facts["embeddings"] = file_fingerprints([embeddings])
    labels = {"method": "evidence", "held_out": held_out}
    tags = [f"{name}={value}"[:64] for name, value in labels.items() if value is not None]
    config = {**labels, "topk": None, "state_rag": facts}
    tables = fit_tables(run.engine, run.config.get("sources", {}))
    return track_fit(folder, config, tags, fit_numbers(run.engine), tables)
