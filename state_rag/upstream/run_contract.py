"""What a run was trained on: recorded by `tx train`, and read again by `tx predict` and `tx infer`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from state_rag.checkpoint import CHECKPOINT_KEY
from state_rag.contract.feature_names import is_expression
from state_rag.contract.findings import findings
from state_rag.contract.identity import FileFit, Identity, fingerprint, read_identity, spaces_used
from state_rag.contract.scale import ScaleTally
from state_rag.contract.space import Space, fit
from state_rag.datasets.splitting.split_check import check_split
from state_rag.datasets.splitting.split_copy import split_tables, write_split_tables
from state_rag.errors import StateRagError
from state_rag.names.gene_ids import unversioned
from state_rag.run_folders import SPLIT
from state_rag.upstream.run_folder import Run, read_checkpoint

logger = logging.getLogger(__name__)

_SHOWN = 5


def record(data: Mapping[str, Any], files: list[Path], *, refuse: bool) -> Identity:
    """Read what a run is about to be trained on.

    Parameters
    ----------
    data
        The section `data.kwargs` of the configuration.
    files
        The data files of its split.
    refuse
        Whether what would give wrong results is an error; else it is a warning.

    Raises
    ------
    StateRagError
        If files have other genes, another order of them or another scale, or hold other than numbers.
    """
    identity, fits = read_identity(
        files,
        spaces_used(data.get("embed_key"), data.get("output_space")),
        pert_col=data["pert_col"],
        control=data["control_pert"],
        context=data.get("cell_type_key"),
        split=split_tables(data["toml_config_path"]),
    )
    _tell(fits, "train", files[0], refuse)
    for space in identity.spaces.values():
        logger.info("%s", space.words)
    return identity


def look_at_data(values: Mapping[str, Any]) -> Identity | None:
    """Read what plain STATE is about to be trained on, and warn of what would give wrong results.

    STATE runs whatever is found, so nothing here may stop it: what cannot be read is left to it to refuse.
    """
    data = values["data"]["kwargs"]
    try:
        split = check_split(
            data["toml_config_path"],
            pert_col=data["pert_col"],
            cell_type_key=data["cell_type_key"],
            batch_col=data["batch_col"],
            control_pert=data["control_pert"],
            embed_key=data["embed_key"],
        )
        return record(data, split.files, refuse=False)
    except (StateRagError, KeyError, TypeError) as error:
        logger.warning("The data could not be checked: %s", error)
        return None


def refuse_other_genes(identity: Identity, checkpoint: Path | None) -> None:
    """Refuse to train a checkpoint on with other genes, another order of them, or another scale.

    Raises
    ------
    StateRagError
        If the checkpoint's data do not fit those of `identity`.
    """
    if checkpoint is None or (saved := read_checkpoint(checkpoint).get(CHECKPOINT_KEY, {}).get("data")) is None:
        return
    before = Identity.from_dict(saved)
    for key, space in identity.spaces.items():
        if key in before.spaces:
            found = FileFit(Path(identity.files[0].path), space, fit(before.spaces[key], space))
            _tell([found], "train", checkpoint.parents[1], refuse=True)


def check_files(found: Run, identity: Identity, files: list[Path], *, refuse: bool) -> None:
    """Check files that STATE is about to predict for against what the run was trained on.

    Raises
    ------
    StateRagError
        If `refuse`, and predictions would be wrong.
    """
    known = {Path(file.path): file.fingerprint for file in identity.files}
    other = [path for path in files if fingerprint(path, identity.spaces) != known.get(path.resolve())]
    if not other:
        return
    _, fits = read_identity(
        other,
        identity.spaces,
        pert_col=found.data["pert_col"],
        control=found.control,
        context=found.data.get("cell_type_key"),
        expected=identity.spaces,
    )
    _tell(fits, "predict", found.folder, refuse)


def _tell(fits: list[FileFit], verb: str, like: Path, refuse: bool) -> None:
    errors = []
    for finding in findings(fits, like):
        if finding.is_wrong and refuse:
            errors.append(str(finding))
        else:
            also = f" Plain STATE will {verb} all the same." if finding.is_wrong else ""
            logger.warning("%s%s", finding, also)
    if errors:
        more = f" And {len(errors) - _SHOWN} more of this kind." if len(errors) > _SHOWN else ""
        raise StateRagError(" ".join(errors[:_SHOWN]) + more)


@contextmanager
def recorded(folder: Path, identity: Identity | None) -> Iterator[None]:
    """Write the identity and the split into the run folder when a block ends that made it, however it ends."""
    try:
        yield
    finally:
        if identity is not None and folder.is_dir():
            write(folder, identity)


def write(folder: Path, identity: Identity) -> None:
    """Write the identity and the split, with absolute locations, into a run folder."""
    identity.write(folder)
    if identity.split is not None:
        write_split_tables(folder / SPLIT, identity.split)


def of_run(found: Run, checkpoint: Mapping[str, Any] | None = None) -> Identity | None:
    """Return what a run was trained on: from the checkpoint, else its folder, else as far as STATE itself wrote it.

    STATE keeps the names of the predicted genes in a checkpoint; they are all that is known of runs of before.
    """
    if checkpoint is not None and (saved := checkpoint.get(CHECKPOINT_KEY, {}).get("data")) is not None:
        return Identity.from_dict(saved)
    identity = Identity.read(found.folder)
    if identity is not None or checkpoint is None:
        return identity
    names = [unversioned(str(name)) for name in checkpoint.get("hyper_parameters", {}).get("gene_names") or ()]
    keys = spaces_used(found.data.get("embed_key"), found.data.get("output_space"))
    space = keys[-1]
    if not names or not is_expression(space):
        return None
    unknown = ScaleTally(len(names)).finish()
    return Identity({space: Space(space, len(names), tuple(names), "the checkpoint's gene_names", unknown)})
