"""Predict what a split tests: cells like those of `state tx predict`, predicted and real, from an evidence run."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from state_rag.cells.anchored import LARGEST, brought_to_mean
from state_rag.contract.feature_names import is_expression
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.aligned_rows import AlignedRows
from state_rag.effects.conditions import Columns
from state_rag.engine.called import FREQUENCY, LAYER, calls_table, changed_frequency, remove_calls, write_calls
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing, tell_unknown
from state_rag.engine.held_out import HeldOutCells, held_out_cells
from state_rag.engine.retrieved import Moments, note_moments, write_retrieved
from state_rag.engine.trust_table import columns_of_cells, trust_table, write_trust
from state_rag.errors import StateRagError
from state_rag.files import atomic_path
from state_rag.h5ad import open_cells
from state_rag.progress import track
from state_rag.run_folders import PREDICTED, REAL, TRUST

logger = logging.getLogger(__name__)

RETRIEVED = "retrieval_info.csv"


@dataclass
class _Written:
    """Labels of the rows written so far, moments of the real cells, and what predictions say of themselves."""

    perturbations: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    moments: Moments = field(default_factory=dict)
    neighbours: dict[tuple[str, str], Sequence[tuple[str, float]]] = field(default_factory=dict)
    trust: list[pd.DataFrame] = field(default_factory=list)
    calls: list[pd.DataFrame] = field(default_factory=list)
    frequencies: dict[str, np.ndarray] = field(default_factory=dict)


def predict(
    run: EvidenceRun,
    split: Path,
    folder: Path,
    *,
    keep: Collection[str] | None = None,
    train: bool = False,
    seed: int = 42,
    progress: bool = True,
) -> Path:
    """Write predicted and real cells of what a split tests.

    Each tested cell is predicted from a control of its own line, and batch where that has controls; a condition's
    controls are scaled gene by gene to the predicted mean (shifted, in spaces that are not expression). Controls are
    predicted to be themselves. Predicted cells carry in `obs` how far their condition can be trusted, and in the layer
    `std` the deviation of each gene's mean (0 for controls); `trust.csv` has a row a condition. Where the engine knows
    which genes change, the layer `probability_changed` has the probability of each (0 for controls), `gene_calls.csv` a
    row for each gene that is called, and `varm` how often genes change in the measured conditions of each context.

    Parameters
    ----------
    run
        An evidence run that was fitted on cells.
    split
        The split file.
    folder
        Where to write; an existing prediction is replaced.
    keep
        Perturbations to predict; None for all.
    train
        Predict the training cells instead.
    seed
        Of the draw of controls.
    progress
        Whether to show a progress bar.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    StateRagError
        If the run knows no cells, the split's data cannot be read, or nothing is tested.
    """
    data = run.data
    if run.identity is None or not data:
        raise StateRagError("this run was fitted on a table of effects, without cells, so no cells can be predicted.")
    columns = Columns.of(data)
    key = run.key
    groups = list(held_out_cells(read_split(split), columns, data["batch_col"], keep, train))
    total = sum(len(group.controls) + sum(map(len, group.conditions.values())) for group in groups)
    if not total:
        raise StateRagError(f"{split}: no cells to predict. Check what it tests with `state-rag data check`.")
    tested = list(dict.fromkeys(name for group in groups for name in group.conditions))
    run = knowing(run, tested)
    assert run.identity is not None  # as checked above
    tell_unknown(run, tested)
    folder.mkdir(parents=True, exist_ok=True)
    names = run.identity.spaces[key].names
    width = len(run.engine.responses.genes)
    labels = [str(number) for number in range(width)] if names is None else list(names)
    written = _Written()
    with ExitStack() as stack:
        places = [stack.enter_context(atomic_path(folder / name)) for name in (PREDICTED, REAL)]
        with h5py.File(places[0], "w") as predicted, h5py.File(places[1], "w") as real:
            matrices = [file.create_dataset("X", (total, width), np.float32) for file in (predicted, real)]
            kinds = {"std": bool(run.engine.calibrated), LAYER: bool(run.engine.callers)}
            layers = _layers(predicted, [name for name, there in kinds.items() if there], total, width)
            place = 0
            for group in groups:
                for cells, truth, of_genes in _predicted(run, group, key, names, seed, written, progress):
                    rows = slice(place, place + len(cells))
                    matrices[0][rows] = cells
                    matrices[1][rows] = truth
                    for name, values in of_genes.items():
                        layers[name][rows] = np.broadcast_to(values, cells.shape)
                    place += len(cells)
            obs = pd.DataFrame(
                {
                    columns.perturbation: pd.Categorical(written.perturbations),
                    columns.cell_line: pd.Categorical(written.lines),
                    data["batch_col"]: pd.Categorical(written.batches),
                },
                index=[str(number) for number in range(total)],
            )
            _finish(real, obs, labels)
            if written.trust:
                found = columns_of_cells(pd.concat(written.trust), written.lines, written.perturbations)
                obs = obs.join(found.set_axis(obs.index))
            if written.frequencies:
                frequencies = pd.DataFrame(written.frequencies, index=pd.Index(labels, dtype=str))
                write_elem(predicted, "varm", {FREQUENCY: frequencies})
            _finish(predicted, obs, labels)
    if run.engine.callers:
        write_calls(written.calls, folder)
    else:
        remove_calls(folder)
    if written.trust:
        write_trust(pd.concat(written.trust), folder)
    else:
        (folder / TRUST).unlink(missing_ok=True)
    write_retrieved(groups, written.neighbours, folder / RETRIEVED, written.moments, labels, columns.control)
    return folder


def _predicted(
    run: EvidenceRun,
    group: HeldOutCells,
    key: str,
    names: tuple[str, ...] | None,
    seed: int,
    written: _Written,
    progress: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Yield predicted and real cells and rows of layers, condition after condition, the controls last."""
    expression = is_expression(key)
    perturbations = list(group.conditions)
    found = run.engine.predict(group.line, perturbations)
    written.neighbours |= {
        (group.line, name): drawn for name, drawn in zip(perturbations, found.neighbours, strict=True)
    }
    table = trust_table(found)
    if table is not None:
        written.trust.append(table)
    if found.calls is not None:
        written.calls.append(calls_table(found))
        frequency = changed_frequency(run.engine, group.line)
        assert frequency is not None  # calls are learned from them
        written.frequencies[group.line] = frequency
    with open_cells(group.path) as file:
        rows = AlignedRows(names).open(file, key)
        own = run.engine.responses.controls.get(group.line)
        base = rows.read(group.controls).mean(axis=0, dtype=np.float64) if own is None else own
        for number in track(range(len(perturbations)), f"predicting {group.line}", disable=not progress):
            name = perturbations[number]
            controls = rows.read(group.control_rows(name, seed))
            mean = base + found.mean[number]
            cells = brought_to_mean(controls, mean, group.rng(name, seed, "cells"), expression=expression)
            both = _both(cells, rows.read(group.conditions[name]), expression)
            of_genes = {} if found.trust is None else {"std": found.trust.std[number]}
            if found.calls is not None:
                of_genes[LAYER] = found.calls.probability[number]
            yield *both, of_genes
            _note(written, group, name, group.conditions[name], both[1])
        for start in range(0, len(group.controls), 1000):
            part = group.controls[start : start + 1000]
            cells = rows.read(part)
            both = _both(cells, cells, expression)
            yield *both, {}
            _note(written, group, run.data["control_pert"], part, both[1])


def _both(cells: np.ndarray, truth: np.ndarray, expression: bool) -> tuple[np.ndarray, np.ndarray]:
    if not expression:
        return cells, truth
    return np.clip(cells, 0, LARGEST), np.clip(truth, 0, LARGEST)


def _note(written: _Written, group: HeldOutCells, name: str, rows: np.ndarray, real: np.ndarray) -> None:
    note_moments(written.moments, group.line, name, real)
    written.perturbations += [name] * len(rows)
    written.lines += [group.line] * len(rows)
    written.batches += group.batch_names[group.batches[rows]].tolist()


def _finish(file: h5py.File, obs: pd.DataFrame, genes: list[str]) -> None:
    """Write everything of an h5ad file but X, which is there."""
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    write_elem(file, "obs", obs)
    write_elem(file, "var", pd.DataFrame(index=pd.Index(genes, dtype=str)))
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        if name not in file:
            write_elem(file, name, {})


def _layers(file: h5py.File, names: list[str], cells: int, genes: int) -> dict[str, h5py.Dataset]:
    """Return layers of zeros; compressed, since all cells of a condition have the same row."""
    if names:
        write_elem(file, "layers", {})
    found = {}
    for name in names:
        shape = min(cells, 64), genes
        found[name] = file["layers"].create_dataset(name, (cells, genes), np.float32, chunks=shape, compression="gzip")
        found[name].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return found
