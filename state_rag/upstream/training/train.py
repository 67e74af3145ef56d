"""`state tx train`: check the run, provide its knowledge, and let STATE train our model."""

import errno
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from state_rag.contract.feature_names import is_expression
from state_rag.contract.identity import Identity, spaces_used
from state_rag.datasets.splitting.splits import SplitSummary, check_split
from state_rag.embeddings.find import find_sources
from state_rag.errors import StateRagError
from state_rag.files import close_to_missing
from state_rag.flag import said
from state_rag.names import listing, suggest
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import TEXT, RagSettings
from state_rag.upstream.knowledge_source import (
    about_sources,
    coordinates_of,
    knowledge_of,
    load_sources,
    refuse_or_report,
    save_missing,
)
from state_rag.upstream.run_contract import look_at_data, record, recorded, refuse_other_genes
from state_rag.upstream.run_contract import write as write_contract
from state_rag.upstream.run_folder import read_checkpoint
from state_rag.upstream.swap import any_head_count, replaced
from state_rag.upstream.training import processes
from state_rag.upstream.training.wandb_run import described_run

if TYPE_CHECKING:
    from state_rag.anchor import Anchor

logger = logging.getLogger(__name__)

SET_MODELS = ("state", "neuralot", "pertsets")
"""Names under which STATE builds its set model."""

DISK_FULL_SIGNS = (
    "failed writing file",
    "unexpected pos",
    "iostream error",
    " requested and ",
    "File too large",
    "No space left",
)
"""What torch and the system say, among other things, when nothing more can be written."""


def run(original: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Train; without embeddings and retrieval exactly as STATE would."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    if not processes.are_several(values):
        return _run(original, cfg)
    wait = RagSettings.from_mapping(values["training"]).rag_wait_minutes
    with processes.place_of(cfg) as own, processes.one_training(values, run_folder(values), wait):
        return _run(original, own)


def _run(original: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = RagSettings.from_mapping(values["training"])
    if settings.mode == "none":
        if "rag" in values:
            logger.info("training.rag=false and training.use_genept=false: plain STATE, not changed by state-rag.")
        seen = None if processes.follows(values) else look_at_data(values)
        with any_head_count(), described_run(values, settings), recorded(run_folder(values), seen):
            return original(without_flags(cfg))
    return _train(original, cfg, values, settings)


def _train(
    original: Callable[[DictConfig], Any], cfg: DictConfig, values: dict[str, Any], settings: RagSettings
) -> Any:
    resolved = ", ".join(f"{name}={value}" for name, value in settings.to_dict().items())
    logger.info("Method: %s. Resolved flags: %s", settings.mode, resolved)
    split = check_training(values, settings)
    resumed = knowledge_to_resume(values, settings)
    if resumed is not None:
        knowledge, step = resumed
        about: dict[str, dict[str, Any]] = {}  # as in the checkpoint
    else:
        tables = load_sources(settings, split.perturbations)
        coordinates = coordinates_of(tables, split.train_perturbations)
        knowledge = knowledge_of({source: read.table for source, read in tables.items()}, coordinates)
        about = about_sources(tables)
    missing = sorted(set(split.perturbations) - set(knowledge.names))
    refuse_or_report(missing, settings, len(split.perturbations))
    _check_remaining(split, set(knowledge.names) & set(split.perturbations), settings)
    check_watched(settings.rag_watch, knowledge.names)
    folder = run_folder(values)
    identity = anchor = None
    if not processes.follows(values):  # the first process looks at the data, and gives its evidence to the others
        identity = record(values["data"]["kwargs"], split.files, refuse=True)
        refuse_other_genes(identity, starting_checkpoint(values))
        anchor = evidence_for(values, settings, split, identity, treated=knowledge.scaling is not None)

    import state.tx.models.state_transition as state_transition
    from cell_load.utils.modules import DATA_MODULE_DICT

    from state_rag.engine.knowledge import write_sources
    from state_rag.model import RagStateTransition
    from state_rag.upstream.data_module import LimitedDataModule

    cfg = with_attention(cfg, settings)

    class Announcing(LimitedDataModule.limited_to(knowledge.names)):  # type: ignore[misc]
        """Writes what was trained on, and the names of what was left out, once STATE has made the run's folder."""

        def setup(self, stage: str | None = None) -> None:
            super().setup(stage)
            if stage == "fit" and identity is not None and folder.is_dir():
                write_contract(folder, identity)
                if anchor is not None and about:
                    write_sources(anchor.engine, about, folder)
                if not (folder / "checkpoints").exists():
                    save_missing(folder, missing)

    with ExitStack() as stack:
        stack.enter_context(any_head_count())
        stack.enter_context(
            replaced(
                state_transition,
                "StateTransitionPerturbationModel",
                RagStateTransition.bound_to(
                    knowledge,
                    data=None if identity is None else identity.to_dict(),
                    evidence=None if anchor is None else anchor.to_state(),
                    sources=about if settings.rag_sources and about else None,
                ),
            )
        )
        stack.enter_context(replaced(DATA_MODULE_DICT, values["data"]["name"], Announcing))
        stack.enter_context(nothing_half_written(folder))
        stack.enter_context(described_run(values, settings, None if anchor is None else anchor.engine))
        if resumed is not None:
            keep_metrics(folder, step)
        result = original(cfg)
    logger.info("Run folder: %s", folder)
    logger.info("Next: state tx predict --output-dir %s", folder)
    return result


def evidence_for(
    values: Mapping[str, Any], settings: RagSettings, split: SplitSummary, identity: Identity, *, treated: bool = False
) -> "Anchor | None":
    """Fit the evidence that predicted cells are anchored with; None where they are not.

    `treated` where labels that tell modes, doses or times are known by the names in them.

    Raises
    ------
    StateRagError
        If it cannot be fitted, or where the network predicts another space than the one that training anchors.
    """
    if not settings.anchors:
        return None
    from state_rag.anchor import Anchor
    from state_rag.engine.fitting import fit_to_split
    from state_rag.engine.knowledge import similarity_words

    data = values["data"]["kwargs"]
    spaces = spaces_used(data.get("embed_key"), data.get("output_space"))
    if settings.rag_evidence == "train" and len(spaces) > 1:
        raise StateRagError(
            f"training.rag_evidence=train anchors what the transformer predicts, which here is {spaces[0]}; genes "
            f"({spaces[1]}) are decoded from it. Set training.rag_evidence=predict."
        )
    seed = int(values["training"].get("train_seed") or 0)
    files: dict[str, Path] = find_sources(settings.sources) if settings.rag_sources else {}
    text, find = files.pop(TEXT, settings.genept_path), not settings.rag_sources
    engine = fit_to_split(split, identity, data, text, files, treated=treated, find=find, seed=seed)
    logger.info("Evidence: fitted on %d conditions; it travels in the checkpoint.", len(engine.responses))
    if told := similarity_words(engine):
        logger.info("%s", told)
    return Anchor(engine, str(data["control_pert"]), is_expression(spaces[-1]), len(spaces) > 1)


def run_folder(values: Mapping[str, Any]) -> Path:
    """Return the folder that STATE makes for a run."""
    return Path(values["output_dir"]) / values["name"]


def starting_checkpoint(values: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint that STATE would start from: the run's last one, or that of `model.kwargs.init_from`."""
    last = run_folder(values) / "checkpoints" / "last.ckpt"
    if last.is_file() and not values.get("overwrite"):
        return last
    start = values["model"]["kwargs"].get("init_from")
    return Path(start) if start else None


def knowledge_to_resume(values: dict[str, Any], settings: RagSettings) -> tuple[Knowledge, int] | None:
    """Return knowledge and step of the checkpoint that STATE would train on from; None for a new run.

    Raises
    ------
    StateRagError
        If that checkpoint, or the one of ``model.kwargs.init_from``, is missing or damaged, or is of another method.
    """
    path = run_folder(values) / "checkpoints" / "last.ckpt"
    if values.get("overwrite") or not path.is_file():
        start = values["model"]["kwargs"].get("init_from")
        if start and not zipfile.is_zipfile(start):
            missing = f"does not exist{close_to_missing(Path(start))}"
            found = "is damaged or no checkpoint" if Path(start).is_file() else missing
            raise StateRagError(f"model.kwargs.init_from={start} {found}. Name a checkpoint of a `state tx train` run.")
        return None
    saved = read_checkpoint(path)

    from state_rag.checkpoint import CHECKPOINT_KEY, read_knowledge

    flags = saved.get(CHECKPOINT_KEY, {}).get("settings", {})
    before = RagSettings.from_mapping(flags)
    if before.mode != settings.mode:
        raise StateRagError(
            f"{path} was trained by the method {before.mode!r}, and this command would train on by {settings.mode!r}. "
            "Choose another name=, or overwrite=true to start anew."
        )
    if before.rag_score_similarity != settings.rag_score_similarity:
        had = str(before.rag_score_similarity).lower()
        raise StateRagError(
            f"{path} was trained with training.rag_score_similarity={had}, which decides what parameters the selector "
            f"has. Set training.rag_score_similarity={had} to train on, or overwrite=true to start anew."
        )
    knowledge = read_knowledge(saved)
    own = knowledge.block_names
    if settings.rag_sources and own != tuple(settings.sources) or before.rag_sources and not settings.rag_sources:
        raise StateRagError(
            f"{path} was trained with the sources {', '.join(own)}, and this command names "
            f"{', '.join(settings.sources)}. Set training.rag_sources={said(before.rag_sources)} to train on, or "
            "overwrite=true to start anew."
        )
    done, wanted = int(saved.get("global_step", 0)), int(values["training"]["max_steps"])
    if done >= wanted and path.with_name("final.ckpt").is_file():
        raise StateRagError(
            f"{path.parents[1]} has been trained to step {done} already, and training.max_steps={wanted} asks for no "
            "more. Raise training.max_steps to train on, choose another name=, or overwrite=true to start anew."
        )
    logger.info("Training goes on from %s, with the embeddings in it.", path)
    return knowledge, done


def keep_metrics(folder: Path, step: int) -> None:
    """Set aside what was logged up to a step: Lightning deletes ``metrics.csv`` when training goes on.

    What was set aside for that step before is kept: a second start from it has logged later steps only.
    """
    for path in folder.glob("version_*/metrics.csv"):
        aside = path.with_name(f"metrics_to_step_{step}.csv")
        if not aside.exists():
            path.replace(aside)


def check_training(values: dict[str, Any], settings: RagSettings) -> SplitSummary:
    """Refuse what cannot work, before STATE deletes or writes anything; return what the split holds."""
    name = str(values["model"]["name"])
    if name.lower() not in SET_MODELS:
        raise StateRagError(
            f"Retrieval is built into STATE's set model, but model.name={name}. Use model=rag (or model=state), or "
            "rag=none for this model."
        )
    data = values["data"]["kwargs"]
    if data.get("perturbation_features_file"):
        raise StateRagError(
            "data.kwargs.perturbation_features_file and training.use_genept=true both replace the one-hot "
            "perturbation. Give that file as training.genept_path, or set rag=none."
        )
    if not data.get("toml_config_path"):
        raise StateRagError(
            "data.kwargs.toml_config_path is not set. Write a split with `state-rag data split FILE --held-out LINE` "
            "and pass data.kwargs.toml_config_path=FILE.toml."
        )
    return check_split(
        data["toml_config_path"],
        pert_col=data["pert_col"],
        cell_type_key=data["cell_type_key"],
        batch_col=data["batch_col"],
        control_pert=data["control_pert"],
        embed_key=data["embed_key"],
    )


def _check_remaining(split: SplitSummary, known: set[str], settings: RagSettings) -> None:
    if settings.retrieves and settings.topk_rag > len(known) - 1:
        raise StateRagError(
            f"training.topk_rag={settings.topk_rag} asks for more candidates than there are: the data hold "
            f"{len(known)} perturbations with an embedding, so at most {len(known) - 1} besides the one in question. "
            f"Set training.topk_rag={max(len(known) - 1, 1)} or less."
        )
    if split.test_perturbations and not known & set(split.test_perturbations):
        raise StateRagError(
            "No test perturbation of the split has an embedding. Provide embeddings for some of "
            f"{', '.join(sorted(split.test_perturbations)[:10])}, or choose other test perturbations."
        )


def check_watched(watched: Sequence[str], known: Sequence[str]) -> None:
    """Refuse perturbations to watch that the run has no embedding of, with close spellings."""
    for name in watched:
        if name not in known:
            raise StateRagError(
                f"training.rag_watch names {name!r}, which is no perturbation of the data with an embedding"
                f"{suggest([name], known) or '; known are ' + listing(sorted(known))}."
            )


def without_flags(cfg: DictConfig) -> DictConfig:
    """Return the configuration as STATE alone would have composed it."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    values.pop("rag", None)
    for field in fields(RagSettings):
        values["training"].pop(field.name, None)
    return OmegaConf.create(values)


def with_attention(cfg: DictConfig, settings: RagSettings) -> DictConfig:
    """Return the configuration with the transformer's attention as `rag_attention` asks, if it does."""
    if settings.rag_attention is None:
        return cfg
    changed = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(changed, DictConfig)
    changed.model.kwargs.transformer_backbone_kwargs.bidirectional_attention = settings.rag_attention == "bidirectional"
    return changed


@contextmanager
def nothing_half_written(folder: Path) -> Iterator[None]:
    """Turn a full disk into one error, and remove what a run wrote before its first checkpoint.

    STATE writes a run's side files in place. Once there is a checkpoint (written whole or not at all) they
    are complete; before, any of them may be cut short.
    """
    existed = folder.exists()
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        removed = ""
        if not list(folder.glob("checkpoints/*.ckpt")) and not existed:
            shutil.rmtree(folder, ignore_errors=True)
            removed = " The incomplete run folder was removed."
        raise StateRagError(
            f"The disk is full, or a limit on file sizes was reached, while writing to {folder}.{removed} Make room "
            "and run the command again."
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that nothing more could be written."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return True
        text = str(error)
        if any(sign in text for sign in DISK_FULL_SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
