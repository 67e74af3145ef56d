"""Fit the evidence engine on what a split trains on, or on a table of effects, into a run folder."""

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from state_rag.contract.findings import findings
from state_rag.contract.identity import Identity, read_identity, spaces_used
from state_rag.datasets.splitting.split_check import SplitSummary, check_split, find_names
from state_rag.datasets.splitting.split_copy import split_tables
from state_rag.datasets.splitting.split_questions import DOSE_QUESTIONS, QUESTIONS, questions
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.treated_labels import TreatmentColumns, dose_unit
from state_rag.datasets.untold_genes import genes_named_otherwise
from state_rag.datasets.untold_treatments import untold_columns, untold_labels
from state_rag.effects.conditions import Columns
from state_rag.effects.training_effects import training_effects
from state_rag.effects.workers import Workers
from state_rag.engine.bank import read_table, responses_of
from state_rag.engine.cells_given import kind_of, write_split_of
from state_rag.engine.folder import MODEL, EvidenceRun, refuse_existing, write_run
from state_rag.engine.knowledge import knowledge_of
from state_rag.errors import StateRagError
from state_rag.evidence.episodes import USES
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names import listing
from state_rag.names.combinations import with_members
from state_rag.names.tables import AS_WRITTEN, AUTO, read_symbols, where
from state_rag.names.treatments import name_in, told_in
from state_rag.run_folders import SPLIT

logger = logging.getLogger(__name__)


def fit(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    embeddings: str | os.PathLike[str] | None = None,
    sources: Mapping[str, str | os.PathLike[str]] | None = None,
    names: str | os.PathLike[str] | None = AUTO,
    pert_col: str | None = None,
    cell_type_key: str | None = None,
    batch_col: str | None = None,
    control_pert: str | None = None,
    mode_col: str | None = None,
    dose_col: str | None = None,
    time_col: str | None = None,
    embed_key: str | None = "X_hvg",
    output_space: str = "gene",
    settings: Settings | None = None,
    every_use: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
    workers: int | None = None,
) -> EvidenceRun:
    """Fit the engine and write a run folder that every command takes.

    Parameters
    ----------
    source
        A split (`.toml`): its training cells are read, in blocks; or a table of effects (`.h5ad`), as
        `sr.effects.write` makes it; or cells without a split, all of which train: h5ad files, zarr stores, folders or
        patterns of them, one or several.
    output
        The run folder.
    embeddings
        Of perturbations, any file that `training.genept_path` takes; by default one at a usual place, and none where
        there is none.
    sources
        Name -> file of further knowledge of perturbations, any that `embeddings.sources` takes. How much each counts
        is learned; those that help nothing are dropped.
    names
        What tells other names of genes, as `names.tables.read_symbols` takes it: a file, `package`, `auto` or `off`.
    pert_col, cell_type_key, batch_col, control_pert
        As under `data.kwargs`; found by their usual names where left out.
    mode_col, dose_col, time_col
        Columns of `obs`, of cells or of the table, that tell mode (CRISPRi, CRISPRa, KO, drug), dose and time. Then
        conditions that differ in these are different ones, related by what is learned of modes, doses and times.
    embed_key, output_space
        Which matrix is predicted, as for `state tx train`.
    settings
        How long it is trained, and from which seed.
    every_use
        Train for every kind of question that the responses allow, as long for each; by default for those that the
        split's test asks. A table of effects asks none, so all are trained for.
    overwrite
        Replace an evidence run at that place.
    progress
        Whether to show progress bars.
    scheduler, workers
        Who reads the cells: workers of the Dask scheduler with this address, or so many of its own; by default threads
        of this process.

    Raises
    ------
    StateRagError
        If the split or its data cannot be used, or there is something at `output`.
    """
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    output, readers = Path(output), Workers(scheduler, workers)
    refuse_existing(output, overwrite)
    kind = kind_of(given)
    start = time.perf_counter()
    treatment = TreatmentColumns(mode_col, dose_col, time_col)
    if kind != "table":
        named = {"pert_col": pert_col, "cell_type_key": cell_type_key}
        named |= {"batch_col": batch_col, "control_pert": control_pert}
        read = {"embed_key": embed_key, "output_space": output_space, **treatment.to_data()}
        with tempfile.TemporaryDirectory(prefix="state-rag-fit-") as folder:
            split = Path(given[0])
            if kind == "cells":
                logger.info("No split is given: all cells train, and none are held out to test.")
                split = write_split_of(given, Path(folder, SPLIT))
            try:
                data: dict[str, Any] = {"toml_config_path": str(split.resolve()), **find_names(split, **named), **read}
                summary, identity = _checked(split, data, listing(list(map(str, given))))
                columns = data["pert_col"], data["cell_type_key"], data["control_pert"]
                for one in untold_columns(summary.files[0], *columns, treatment):
                    logger.warning("%s: %s", summary.files[0], one)
                for text in untold_labels(summary.files[0], data["pert_col"], treatment):
                    logger.warning("%s: %s", summary.files[0], text)
                unit = dose_unit(summary.files, data["pert_col"], data["control_pert"], treatment)
                responses = _responses(identity, data, progress, readers)
            except StateRagError as error:
                if kind == "split":
                    raise
                raise StateRagError(str(error).replace(str(split), listing(list(map(str, given))))) from error
        if kind == "cells":
            data["toml_config_path"] = str(output.resolve() / SPLIT)  # which the run is written with
        asked, uses = summary.perturbations, uses_of(summary.conditions, str(data["control_pert"]))
        file: Path | None = summary.files[0]
        if data["pert_col"] in treatment.to_data().values():  # labels tell the treatment, and sources know names
            asked = tuple(dict.fromkeys(told_in(label)[0] for label in asked))
    else:
        data, identity, uses, file = treatment.to_data(), None, None, None
        responses = read_table(Path(given[0]), treatment)
        unit = dose_unit([Path(given[0])], "perturbation", "", treatment)
        asked = responses.perturbation_names
        if responses.treated:
            asked = tuple(dict.fromkeys(map(name_in, asked)))
    symbols = read_symbols(names)
    knowledge = knowledge_of(embeddings, sources, with_members(asked), symbols)
    if names == AUTO and symbols is None and any(about["known"] < about["asked"] for about in knowledge.about.values()):
        logger.info(AS_WRITTEN)
    engine = Evidence(settings)
    with FitBar(progress) as bar:
        engine.fit(responses, knowledge.tables, uses=None if every_use else uses, progress=bar.tell)
    known_by_gene = bool((engine.bank.own_gene >= 0).any())
    if file is not None and not known_by_gene and (text := genes_named_otherwise(file, asked)):
        logger.warning("%s: %s", file, text)
    config = {
        "name": output.name,
        "output_dir": str(output.resolve().parent),
        "model": {"name": MODEL},
        "data": {"name": "PerturbationDataModule", "kwargs": data},
        "training": {"train_seed": engine.settings.seed, "genept_path": knowledge.embeddings},
        "sources": knowledge.about,
        "names": where(names),
    }
    if unit is not None:
        config["dose_unit"] = unit
    run = EvidenceRun(engine, config, identity, knowledge.names)
    write_run(output, run, overwrite=overwrite)
    logger.info(
        "Fitted on %d conditions of %d perturbations in %d contexts, %d genes, in %.0f s.",
        len(responses),
        len(responses.perturbation_names),
        len(responses.context_names),
        len(responses.genes),
        time.perf_counter() - start,
    )
    return run


def fit_to_split(
    summary: SplitSummary,
    identity: Identity,
    data: Mapping[str, Any],
    embeddings: str | os.PathLike[str] | None,
    sources: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    treated: bool = False,
    find: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Return the engine, fitted on what a run trains on.

    Embeddings are found under other names of the same gene too, where the package of names is installed, as by `fit`.

    Parameters
    ----------
    summary, identity
        What was found when the run's split and data were checked.
    data
        The section `data.kwargs` of its configuration.
    embeddings, sources, seed, progress
        As for `fit`.
    treated
        Whether perturbations are labels that tell modes, doses or times, which are known by the names in them.
    find
        Whether embeddings are looked for at the usual places where none are given.

    Raises
    ------
    StateRagError
        As `fit`.
    """
    responses = _responses(identity, data, progress, treated=treated)
    asked = tuple(dict.fromkeys(map(name_in, summary.perturbations))) if treated else summary.perturbations
    tables = knowledge_of(embeddings, sources, with_members(asked), read_symbols(), find=find).tables
    engine = Evidence(seed=seed)
    with FitBar(progress) as bar:
        uses = list(dict.fromkeys([*(uses_of(summary.conditions, data["control_pert"]) or ()), "few-shot"]))
        return engine.fit(responses, tables, uses=uses, progress=bar.tell)


def uses_of(conditions: Mapping[tuple[str, str, str], int], control: str) -> list[str] | None:
    """Return the uses (`evidence.episodes.USES`) that a split's test asks; None for all, where it asks nothing.

    Parameters
    ----------
    conditions
        (part, cell line, perturbation), as in `SplitSummary.conditions`.
    control
        Label of control cells.
    """
    names: dict[str, tuple[str, ...]] = {name: (use,) for name, use in zip(QUESTIONS, USES, strict=True)}
    # of a name that was measured in another dose: in other lines, or in this one alone
    names |= {DOSE_QUESTIONS[0]: USES[::2], DOSE_QUESTIONS[1]: USES[1::2]}
    asked = dict.fromkeys(use for question in questions(conditions, control) for use in names[question.name])
    return [use for use in USES if use in asked] or None


def _checked(source: Path, data: Mapping[str, Any], called: str | None = None) -> tuple[SplitSummary, Identity]:
    """Check a split and the values of its data; messages call it so, by default by its path."""
    summary = check_split(
        source,
        **{key: data[key] for key in ("pert_col", "cell_type_key", "batch_col", "control_pert", "embed_key")},
        require=("train",),
        upstream=False,
        called=called,
    )
    keys = spaces_used(data["embed_key"], data["output_space"])
    identity, fits = read_identity(
        summary.files,
        keys,
        pert_col=data["pert_col"],
        control=data["control_pert"],
        context=data["cell_type_key"],
        split=split_tables(source),
    )
    used = [one for one in fits if one.space.key == keys[-1]]
    found = findings(used, summary.files[0], by_position=False)
    for finding in found:
        if not finding.is_wrong:
            logger.warning("%s", finding)
    if wrong := [str(finding) for finding in found if finding.is_wrong]:
        raise StateRagError(" ".join(wrong[:5]))
    return summary, identity


def _responses(
    identity: Identity,
    data: Mapping[str, Any],
    progress: bool,
    workers: Workers | None = None,
    *,
    treated: bool = False,
) -> Responses:
    """Read the responses of a split's training cells; `treated` where their labels tell treatments as they are."""
    source = Path(data["toml_config_path"])
    space = identity.spaces[spaces_used(data["embed_key"], data["output_space"])[-1]]
    columns = Columns.of(data)
    effects = training_effects(
        read_split(source),
        columns,
        space.key,
        space.width,
        names=space.names,
        squares=True,
        progress=progress,
        workers=workers,
    )
    for line, why in effects.lines_left_out.items():
        logger.warning("%s is left out: %s.", line, why)
    if effects.not_finite:
        logger.warning("Left out, with NaN or infinity among their cells: %s.", listing(effects.not_finite))
    genes = space.names or tuple(f"{space.key.removeprefix('obsm/')}_{number}" for number in range(space.width))
    return responses_of(effects, genes, columns.control, treated=treated or bool(columns.treatment))


class FitBar:
    """One progress bar, over all that an engine does while it is fitted."""

    def __init__(self, shown: bool):
        self._bar = tqdm(desc="fitting", disable=not shown, unit="step", leave=False)
        self._what = ""

    def __enter__(self) -> "FitBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tell(self, what: str, done: int, total: int) -> None:
        """Show how far a part is."""
        if what != self._what:
            self._what = what
            self._bar.reset(total)
            self._bar.set_description(what)
        self._bar.update(done - self._bar.n)
