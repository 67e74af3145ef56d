"""Predict a run's test conditions again with single neighbours switched off, everything else as it was."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.analysis.ablation import Ablated
from state_rag.analysis.ablation_files import CHECKPOINT, SPLIT
from state_rag.datasets.splitting.split_check import SplitSummary
from state_rag.engine.folder import is_evidence_run
from state_rag.errors import StateRagError
from state_rag.evaluation.devices import choose_device
from state_rag.files import sample_digest
from state_rag.names import listing, suggest
from state_rag.progress import track
from state_rag.upstream.ablation.switching_off import LastTrace, Space, Variants, switch_off_each
from state_rag.upstream.further_sources import given_files, with_further
from state_rag.upstream.knowledge_source import refuse_unknown
from state_rag.upstream.predict import check_run_split, toml_path
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint
from state_rag.upstream.sets.condition_sets import CellSet, condition_sets
from state_rag.upstream.swap import any_head_count

logger = logging.getLogger(__name__)
MAX_CELLS = 256
"""Cells of a condition that are predicted, in whole sets."""


def ablate_run(
    folder: Path,
    perturbations: Sequence[str] | None = None,
    *,
    at_most: int = 20,
    max_cells: int = MAX_CELLS,
    checkpoint: str = "last.ckpt",
    toml: str | None = None,
    embeddings: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> list[Ablated]:
    """Switch off the neighbours of some test perturbations of a run, one by one.

    Parameters
    ----------
    folder
        The run's folder.
    perturbations
        Which; by default `at_most` of the test perturbations, evenly spaced in alphabetical order.
    at_most
        See there.
    max_cells
        Whole cell sets of a condition are taken until it has so many cells. Real means are over all cells.
    checkpoint, toml, embeddings
        As in `state tx predict`.
    device
        `cpu`, `cuda`, or `auto`: the GPU where there is one.
    progress
        Whether to show a progress bar.

    Returns
    -------
    list of Ablated
        One for each condition (perturbation in a cell line), sorted by cell line and perturbation. What is found for
        a condition does not depend on which others are chosen.

    Raises
    ------
    StateRagError
        If the run does not retrieve, or a perturbation is not among its test perturbations or has no embedding.
    """
    from state_rag.upstream import contract

    contract.check()
    found = find_run(folder)
    refuse_evidence_run(found.folder, found.config)
    if not found.settings.retrieves:
        raise StateRagError(
            f"--ablate: the run {found.folder} does not retrieve (training.rag=false), so it has no neighbours to "
            "switch off. Name a run trained with rag=ptrag, vanilla or hidden"
        )
    split = check_run_split(found, toml)
    chosen = _choose(split, perturbations, at_most)
    model, last = _load(found, checkpoint, chosen, embeddings, device)
    gathered: dict[tuple[str, str], _Gathered] = {}
    controls: dict[str, _Mean] = {}
    space = Space.of(found.data)
    loader, sets = _test_sets(found, [*chosen, found.control], toml)
    for cells in track(sets, "switching neighbours off, cell sets", disable=not progress):
        batch, name, line = cells.read(loader), cells.perturbation, cells.cell_line
        real = space.clipped(batch[space.real]).reshape(len(batch["pert_name"]), -1).cpu().numpy()
        if name == found.control:
            controls.setdefault(line, _Mean()).add(real)
            continue
        own = gathered.setdefault((line, name), _Gathered())
        own.real.add(real)
        if own.cells < max_cells:
            own.add(switch_off_each(model, batch, last, space), len(real))
    if bare := sorted({line for line, _ in gathered} - set(controls)):
        raise StateRagError(f"--ablate: no control cells ({found.control}) in the test set for {', '.join(bare)}")
    return [own.finish(line, name, controls[line].mean) for (line, name), own in sorted(gathered.items())]


@dataclass
class _Mean:
    """A mean over cells that come in sets."""

    total: Any = 0.0
    count: int = 0

    def add(self, cells: np.ndarray) -> None:
        self.total = self.total + cells.sum(axis=0, dtype=np.float64)
        self.count += len(cells)

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count


@dataclass
class _Gathered:
    """What the sets of one condition add up to."""

    real: _Mean = field(default_factory=_Mean)
    sets: list[Variants] = field(default_factory=list)
    cells: int = 0

    def add(self, variants: Variants, cells: int) -> None:
        self.sets.append(variants)
        self.cells += cells

    def finish(self, line: str, name: str, control: np.ndarray) -> Ablated:
        def mean(attribute: str) -> np.ndarray:
            return sum(getattr(one, attribute) for one in self.sets) / self.cells

        return Ablated(
            cell_line=line,
            perturbation=name,
            neighbours=self.sets[0].candidates,
            similarity=self.sets[0].similarity,
            inclusion=mean("inclusion"),
            cells=self.cells,
            whole=mean("whole"),
            without_one=mean("without_one"),
            without_any=mean("without_any"),
            real=self.real.mean,
            control=control,
        )


def refuse_evidence_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a run of the evidence engine, whose sum is taken apart instead.

    Raises
    ------
    StateRagError
        With the command for that.
    """
    if is_evidence_run(config):
        raise StateRagError(
            f"--ablate: {folder} is an evidence run, whose predictions are sums: what each measured condition adds is "
            f"shown by `state-rag explain {folder} --perturbation NAME --context LINE`"
        )


def refuse_none(wanted: Sequence[str] | None, at_most: int) -> None:
    """Refuse a choice of no perturbation at all; it needs no run, so it can be asked before any work."""
    if not wanted and at_most < 1:
        raise StateRagError(f"--ablate-at-most {at_most} leaves nothing to do; give at least 1, or name a --gene")


def _choose(split: SplitSummary, wanted: Sequence[str] | None, at_most: int) -> list[str]:
    known = list(split.test_perturbations)
    if wanted:
        if unknown := [name for name in wanted if name not in known]:
            raise StateRagError(
                f"--gene {unknown[0]}: not among the {len(known)} test perturbations of the run"
                f"{suggest(unknown, known) or '; among them are ' + listing(known)}"
            )
        return list(wanted)
    refuse_none(wanted, at_most)
    places = np.linspace(0, len(known) - 1, min(at_most, len(known))).round().astype(int)
    return [known[place] for place in dict.fromkeys(places.tolist())]


def _load(
    found: Run, checkpoint: str, names: Sequence[str], embeddings: str | None, device: str
) -> tuple[Any, LastTrace]:
    """Return the run's model, ready to predict without chance, and the sink of its traces."""
    from state_rag.checkpoint import CHECKPOINT_KEY, read_knowledge
    from state_rag.model import RagStateTransition

    path = found.folder / "checkpoints" / checkpoint
    saved = read_checkpoint(path)
    knowledge = read_knowledge(saved)
    if unknown := set(names) - set(knowledge.names):
        given = given_files(embeddings, (), found.settings)
        knowledge = with_further(knowledge, unknown, found.settings, saved[CHECKPOINT_KEY].get("sources"), given)
        refuse_unknown(sorted(unknown - set(knowledge.names)), knowledge.names, "those to switch neighbours off for")
    last = LastTrace()
    with any_head_count(), _quiet():
        bound = RagStateTransition.bound_to(knowledge, trace_sink=last)
        model = bound.load_from_checkpoint(path, map_location=choose_device(device), weights_only=True).eval()
    if model.retriever.without_chance():
        logger.info("rag_inference=sample: draws would hide the effect of one neighbour; `expected` is used instead.")
    return model, last


def _test_sets(found: Run, names: Sequence[str], toml: str | None) -> tuple[Any, list[CellSet]]:
    """Return the test loader, and the sets of some perturbations.

    The data module knows all perturbations, so that control cells are drawn from the same pool whichever are chosen.
    """
    from state_rag.upstream.data_module import LimitedDataModule

    limited = LimitedDataModule.limited_to(toml=toml_path(found, toml))
    with _quiet():
        data = limited.load_state(str(found.folder / "data_module.torch"))
        data.setup(stage="test")
        loader = data.test_dataloader()
    return loader, condition_sets(loader, names, int(found.config["training"]["train_seed"]))


def made_with(
    folder: Path, *, checkpoint: str = "last.ckpt", toml: str | None = None, embeddings: str | None = None
) -> dict[str, str | int]:
    """Return what the result of `ablate_run` for a condition depends on besides the condition.

    Files are told by their content, so that a run may move.
    """
    from state_rag.embeddings.find import find_embeddings

    found = find_run(folder)
    return {
        CHECKPOINT: sample_digest(found.folder / "checkpoints" / checkpoint),
        SPLIT: sample_digest(toml_path(found, toml)),
        "embeddings": sample_digest(find_embeddings(embeddings)) if embeddings else "the run's own",
        "number of cells": MAX_CELLS,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what STATE and cell-load print about models and data; their warnings and errors pass."""
    noisy = [logging.getLogger(name) for name in ("state", "cell_load")]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for one, level in zip(noisy, levels, strict=True):
            one.setLevel(level)
