"""Give a fitted run new measurements: cells or effects, checked against what the run was fitted on."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from state_rag.contract.feature_names import HVG, FileMatrices
from state_rag.contract.space import fit, read_space
from state_rag.datasets.effects_tables import LABELS
from state_rag.datasets.treated_labels import KEYS, TreatmentColumns, dose_unit
from state_rag.effects.sources import read as read_effects
from state_rag.engine.bank import read_table, responses_in
from state_rag.engine.explaining.explain import contexts_of
from state_rag.engine.folder import EvidenceRun, is_evidence_run, write_run
from state_rag.engine.further import knowing
from state_rag.errors import StateRagError
from state_rag.evidence.adding import Merged, as_called, with_responses
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.files import existing_file
from state_rag.h5ad import label_of_each, obs_columns, open_h5ad, read_column
from state_rag.names import listing, suggest
from state_rag.names.combinations import in_order
from state_rag.names.treatments import name_in

logger = logging.getLogger(__name__)

ASKED = 300
"""Unmeasured perturbations of a context whose expected accuracy is compared, at most."""

UNLIKE = 3.0
"""Effects that are by so much larger or smaller than the run's are probably of another unit."""


@dataclass(frozen=True)
class Added:
    """A run with new measurements.

    Attributes
    ----------
    run
        The run.
    merged
        What is new in it.
    expected
        Context -> unmeasured perturbations asked about, and the mean of their expected accuracy before and after; of
        contexts with new measurements, where that is calibrated.
    """

    run: EvidenceRun
    merged: Merged
    expected: Mapping[str, tuple[int, float, float]]


Files: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, or several."""


def add(run: EvidenceRun, source: Files, *, progress: bool = True) -> Added:
    """Return a run that also knows new measurements. Nothing is trained again, and nothing is written.

    Parameters
    ----------
    run
        A fitted run; it stays as it is.
    source
        h5ad file: cells, with controls of each context and the columns that the run was fitted by; or a table of
        effects with a row a condition (`obs` with `perturbation` and `context`), in the run's unit. Several are added
        in their order; a condition in two of them is averaged.
    progress
        Whether to show progress bars.

    Raises
    ------
    StateRagError
        If a file is of another scale or lacks genes, controls or columns, or holds what the run's split tests; if one
        is given twice.
    """
    paths = [existing_file(Path(one), "new measurements", (".h5ad",)) for one in _several(source)]
    times = Counter(path.resolve() for path in paths)
    if again := [path for path in times if times[path] > 1]:
        raise StateRagError(f"{again[0]} is given twice: its measurements would count twice. Give it once.")
    if not paths:
        raise StateRagError("No file with new measurements was given.")
    before, merges = run, []
    for path in paths:
        run, merged = _with_file(run, path, progress)
        merges.append(merged)
    added = [condition for merged in merges for condition in merged.added]
    averaged = dict.fromkeys(condition for merged in merges for condition in merged.averaged)
    known_before = [condition for condition in averaged if condition not in set(added)]
    whole = Merged(merges[-1].responses, tuple(added), tuple(known_before))
    contexts = dict.fromkeys(context for context, _ in [*added, *averaged])
    return Added(run, whole, _expected(before.engine, run.engine, contexts, before.data.get("control_pert")))


def _several(source: Files) -> list[str | os.PathLike[str]]:
    return [source] if isinstance(source, str | os.PathLike) else list(source)


def _with_file(run: EvidenceRun, path: Path, progress: bool) -> tuple[EvidenceRun, Merged]:
    new = _measured(run, path, progress)
    _refuse_other_unit(run, path)
    given, new = new, as_called(run.engine, new)
    pairs = dict.fromkeys(zip(given.perturbations, new.perturbations, strict=True))
    if other := [f"{name} is {own}" for name, own in pairs if name != own]:
        logger.info("%s: other names of the run's perturbations: %s.", path, listing(other))
    _refuse_held_out(run, new, path)
    _tell_known(run, new, path)
    run = knowing(run, new.perturbation_names)
    _tell_new(run, new, path)
    engine, merged = with_responses(run.engine, new)
    config = {**run.config, "added": [*run.config.get("added", []), str(path.resolve())]}
    return EvidenceRun(engine, config, run.identity, run.names), merged


def add_to_folder(
    run: EvidenceRun,
    source: Files,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Added:
    """Do what `add` does, and write the run folder.

    Raises
    ------
    StateRagError
        As `add`, and if the run is a network's, or there is something at `output`.
    """
    if not is_evidence_run(run.config):
        raise StateRagError(
            "new measurements can be written into runs of `state-rag evidence fit` only: a network keeps what it was "
            "trained with. `state-rag design RUN --add FILE` counts them in without writing."
        )
    found = add(run, source, progress=progress)
    output = Path(output)
    config = {**found.run.config, "name": output.name, "output_dir": str(output.resolve().parent)}
    write_run(output, EvidenceRun(found.run.engine, config, found.run.identity, found.run.names), overwrite=overwrite)
    return found


def _measured(run: EvidenceRun, path: Path, progress: bool) -> Responses:
    """Read the responses in a file of cells or of effects."""
    matrix = None if run.identity is None else _matrix_of_cells(run, path)
    if run.identity is None or matrix is None:
        return _effects(run, path)
    data = run.data
    found = read_effects(
        path,
        perturbation=data["pert_col"],
        context=data["cell_type_key"],
        control=data["control_pert"],
        matrix=matrix,
        **dict(zip(("mode", "dose", "time"), map(data.get, KEYS), strict=True)),
        progress=progress,
    )
    if left_out := [str(one) for one in found.uns["state_rag"].get("left_out", [])]:
        logger.warning("%s: left out: %s.", path, listing(left_out))
    if run.identity.spaces[run.key].names is None:  # columns are known by place alone, and are as many
        found.var_names = list(run.engine.responses.genes)
    return responses_in(found)


def _tell_new(run: EvidenceRun, new: Responses, path: Path) -> None:
    """Tell of cell lines and perturbations that the run knows nothing of: they may be other spellings of known ones."""
    lines = contexts_of(run)
    if other := [name for name in new.context_names if name not in lines]:
        logger.warning(
            "%s: %s taken for new cell lines; the run has %s%s.",
            *(path, listing(map(repr, other)), listing(lines), suggest(other, lines)),
        )
    if unknown := [name for name in new.perturbation_names if not run.engine.knows(name)]:
        close = suggest(unknown, run.engine.bank.offered)
        logger.log(
            logging.WARNING if close else logging.INFO,
            "%s: new to the run, and known by no source: %s%s.",
            *(path, listing(unknown), close),
        )


def _tell_known(run: EvidenceRun, new: Responses, path: Path) -> None:
    """Warn of conditions that the run knows with the very same effect: the same cells once more."""
    parts = [run.engine.responses, *([] if run.engine.combined is None else [run.engine.combined])]
    known = {(c, in_order(name)): one.effects[row] for one in parts for row, (c, name) in enumerate(one.conditions)}
    place = {gene: number for number, gene in enumerate(new.genes)}
    if not set(run.engine.responses.genes) <= set(place):
        return
    places = [place[gene] for gene in run.engine.responses.genes]
    same = [
        f"{name} in {context}"
        for row, (context, name) in enumerate(new.conditions)
        if (context, in_order(name)) in known
        and np.allclose(new.effects[row][places], known[context, in_order(name)], rtol=1e-4, atol=1e-6)
    ]
    if same:
        logger.warning(
            "%s: %d of %d conditions have the very same effect as in the run (%s). If these are the same cells, they "
            "count twice; leave them out.",
            *(path, len(same), len(new), listing(same, 3)),
        )


def _refuse_other_unit(run: EvidenceRun, path: Path) -> None:
    """Refuse doses in another unit than those that the run was fitted on."""
    known, columns = run.config.get("dose_unit"), TreatmentColumns.of(run.data)
    with open_h5ad(path) as file:
        there = set(obs_columns(file))
    names = run.data.get("pert_col", LABELS[0])
    if known is None or columns.dose not in there or names not in there:
        return
    unit = dose_unit([path], names, str(run.data.get("control_pert", "")), columns)
    if unit not in (None, known):
        raise StateRagError(
            f"{path}: the doses in {columns.dose!r} are in {unit or 'no unit'}, and those of the run's data in "
            f"{known or 'no unit'}. Bring them to the same."
        )


def _matrix_of_cells(run: EvidenceRun, path: Path) -> str | None:
    """Return which matrix of a file of cells to read, checked; None for a table of effects."""
    wanted = {str(run.data[key]) for key in ("pert_col", "cell_type_key", *KEYS) if run.data.get(key) is not None}
    with open_h5ad(path) as file:
        there = set(file["obs"]) - {"_index"}
        if "uns/state_rag/kind" in file or (set(LABELS) <= there and not wanted <= there):
            return None
        if missing := sorted(wanted - there):
            raise StateRagError(
                f"{path}: obs has no column {missing[0]!r}, by which the run was fitted (it has "
                f"{listing(sorted(there))}). Name the columns alike, or give a table of effects, with obs columns "
                "`perturbation` and `context`."
            )
        return _checked_matrix(run, file, path)


def _effects(run: EvidenceRun, path: Path) -> Responses:
    treatment = TreatmentColumns.of(run.data) if run.identity is None else TreatmentColumns()
    new = read_table(path, treatment)
    sizes = [float(np.sqrt(np.mean(np.square(one.effects)))) for one in (run.engine.responses, new)]
    if min(sizes) > 0 and max(sizes) > UNLIKE * min(sizes):
        logger.warning(
            "%s: its effects are %.2g times the size of those that the run was fitted on. Are they of the same unit?",
            path,
            sizes[1] / sizes[0],
        )
    return new


def _checked_matrix(run: EvidenceRun, file: Any, path: Path) -> str:
    """Return which matrix of a file of cells to read, its genes and scale being the run's."""
    assert run.identity is not None
    known, matrices, key = run.identity.spaces[run.key], FileMatrices(file), run.key
    if matrices.rows(key) is None and key == HVG and known.names is not None:
        key = "X"
    if matrices.rows(key) is None:
        raise StateRagError(f"{path}: there is no {known.title}, which the run was fitted on.")
    names = label_of_each(*read_column(file, run.data["pert_col"], "data.kwargs.pert_col"))
    lines = label_of_each(*read_column(file, run.data["cell_type_key"], "data.kwargs.cell_type_key"))
    labelled, is_control = (names != "") & (lines != ""), names == run.data["control_pert"]
    bare = sorted({*lines[labelled].tolist()} - {*lines[is_control].tolist()})
    if bare:
        raise StateRagError(
            f"{path}: no control cells ({run.data['control_pert']!r} in {run.data['pert_col']!r}) in {listing(bare)}. "
            "An effect is the difference to controls of the same experiment; add their cells."
        )
    found = fit(known, read_space(matrices, key, np.flatnonzero(is_control), lines=lines[is_control]))
    for text in found.warnings:
        logger.warning("%s: %s", path, text)
    if found.errors:
        raise StateRagError(f"{path}: {' '.join(found.errors)}")
    return key


def _refuse_held_out(run: EvidenceRun, new: Responses, path: Path) -> None:
    """Refuse what the run's split tests or validates: the run could not be judged by it any more."""
    held_out = [condition for condition in new.conditions if _is_held_out(run, *condition)]
    if held_out:
        shown = listing([f"{name} in {line}" for line, name in held_out])
        raise StateRagError(
            f"{path}: {len(held_out)} of {len(new)} conditions are for validation or test in the run's split "
            f"({shown}). A run that knows them cannot be evaluated on them: leave them out, or fit on a split that "
            "does not hold them out."
        )


def _is_held_out(run: EvidenceRun, line: str, perturbation: str) -> bool:
    if run.identity is None or run.identity.split is None:
        return False
    split = run.identity.split
    for key, part in split.get("zeroshot", {}).items():
        if key.partition(".")[2] == line and part != "train":
            return True
    name = in_order(perturbation) if run.engine.bank.treatments is None else name_in(perturbation)
    return any(
        name in map(in_order, parts.get(part, ()))
        for key, parts in split.get("fewshot", {}).items()
        for part in ("val", "test")
        if key.partition(".")[2] == line
    )


def _expected(
    before: Evidence, after: Evidence, contexts: Iterable[str], control: str | None
) -> dict[str, tuple[int, float, float]]:
    found = {}
    bank = after.bank
    for context in contexts:
        number = bank.number_of_context(context)
        names = [n for n in bank.offered if n != control and not bank.measured(number, bank.number_of(n))]
        names = names[:: max(1, len(names) // ASKED)][:ASKED]
        trusts = [engine.predict(context, names).trust for engine in (before, after)] if names else []
        means = [float(trust.expected.mean()) for trust in trusts if trust is not None]
        if len(means) == 2 and np.isfinite(means).all():
            found[context] = (len(names), means[0], means[1])
    return found


def told(merged: Merged) -> str:
    """Return in words what is new."""
    count = Counter(line for line, _ in merged.added)
    added = ", ".join(f"{number} in {line}" for line, number in count.items()) or "none"
    return f"{added}; averaged with what was measured before: {len(merged.averaged)}"
