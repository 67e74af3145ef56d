"""A trained run as a Python object: cells in, predicted cells out, through STATE's own `tx infer`.

One code path: `Predictor.predict` calls the function that the command calls, on cells in memory. So every run that
`state tx infer` accepts works, with the same numbers.
"""

import contextlib
import io
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from state_rag.cells.question import Names, Wanted
from state_rag.engine.ask import ask
from state_rag.engine.folder import is_evidence_run
from state_rag.engine.trust_table import OF_CELLS
from state_rag.errors import StateRagError
from state_rag.inference.evidence_answers import listed
from state_rag.inference.planning_answers import PlanningAnswers
from state_rag.names import listing, suggest
from state_rag.run_folders import usual_checkpoint
from state_rag.upstream import infer
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint
from state_rag.upstream.sets.inferred_cells import Request
from state_rag.upstream.sets.inferred_sets import MeanRetrieval, candidates_table

if TYPE_CHECKING:
    import anndata


def load(
    run: str | os.PathLike[str],
    checkpoint: str | None = None,
    *,
    genept_path: str | os.PathLike[str] | None = None,
    sources: Mapping[str, str | os.PathLike[str]] | None = None,
) -> "Predictor":
    """Open a trained run for prediction.

    Parameters
    ----------
    run
        Run folder of `state tx train` (or a folder that holds exactly one), with retrieval or without.
    checkpoint
        Name of a file in its `checkpoints/`, or a path; `final.ckpt` by default, or `last.ckpt` where there is none.
    genept_path
        Embeddings of perturbations that the run does not know; those that it was trained with travel in the run. By
        default the file that the run was trained with, where it is still there.
    sources
        Name -> file, the same for a run with `training.rag_sources`.

    Returns
    -------
    Predictor
        With `predict`, `retrieved` and, for evidence runs, `explain`.

    Raises
    ------
    StateRagError
        If there is no run, more than one, or no such checkpoint.

    Examples
    --------
    >>> import state_rag as sr
    >>> predictor = sr.load("runs/ptrag")  # doctest: +SKIP
    >>> predicted = predictor.predict(cells, perturbations=["AARS"])  # doctest: +SKIP
    >>> predictor.retrieved("AARS", "hepg2")  # doctest: +SKIP
    """
    found = find_run(Path(run), "run")
    folder = found.folder / "checkpoints"
    if checkpoint is None:
        path = usual_checkpoint(found.folder)
    else:
        path = Path(checkpoint) if Path(checkpoint).is_file() else folder / checkpoint
    read_checkpoint(path)  # so that what is wrong with it is said now
    given = {name: str(file) for name, file in (sources or {}).items()}
    return Predictor(found, path, None if genept_path is None else str(genept_path), given)


@dataclass
class Predictor(PlanningAnswers):
    """A trained run.

    Attributes
    ----------
    run
        Its folder and configuration.
    checkpoint
        The file that predicts.
    genept_path
        Embeddings of perturbations that the run does not know.
    sources
        The same by source, for a run that has several.
    """

    run: Run
    checkpoint: Path
    genept_path: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    _retrieved: dict[tuple[str, str], "MeanRetrieval"] = field(default_factory=dict, repr=False)

    @property
    def columns(self) -> dict[str, str | None]:
        """The run's own names in `obs` (`perturbation`, `context`, `batch`), and the control's label."""
        data = self.run.data
        return {
            "perturbation": str(data.get("pert_col", "gene")),
            "context": str(data.get("cell_type_key", "cell_line")),
            "batch": None if data.get("batch_col") is None else str(data["batch_col"]),
            "control": self.run.control,
        }

    def predict(
        self,
        adata: "anndata.AnnData",
        perturbations: Sequence[str] | str | None = None,
        contexts: Sequence[str] | str | None = None,
        *,
        n_cells: int | None = None,
        perturbation: str | None = None,
        context: str | None = None,
        control: str | None = None,
        batch: str | None = None,
        fill_missing: bool = False,
        seed: int = 42,
        progress: bool = False,
    ) -> "anndata.AnnData":
        """Predict what perturbations do to control cells.

        Parameters
        ----------
        adata
            Cells with the genes that the run was trained on, in any order and among others, log-normalised alike; in
            memory or backed. Only control cells matter, of others the labels.
        perturbations
            What to predict, in every context; one or several. By default what the cells are labelled with, as many
            cells of each as there are: exactly what `state tx infer` does with such a file.
        contexts
            Cell lines to predict in; all that `adata` has by default.
        n_cells
            Cells of each perturbation and context; as many as the context has controls by default. Only with
            `perturbations`.
        perturbation, context, control, batch
            Columns of `obs`, and the control's label, where `adata` has others than the run.
        fill_missing
            Where the cells lack genes of the run, take the mean of its training controls; else that is an error.
        seed
            Of the draw of control cells that predictions start from.
        progress
            Whether to show STATE's progress bars.

        Returns
        -------
        anndata.AnnData
            Predicted cells, controls (as the model sees them) included: `X` `[n, G]` with gene names; `obs` with
            `perturbation`, `context`, `source_cell` (the control cell that each was predicted from, a name in
            `adata.obs_names`) and the same labels under the run's own column names; of an evidence run also how far to
            trust each (`expected_pearson` with `_low` and `_high`, `trust_grade`, `trust_reason`; NaN and empty for
            controls) and, where known, the layers `std` and `probability_changed`; `uns["state_rag"]` with the run,
            checkpoint, seed, space and what was retrieved. A predicted embedding lies in `obsm`.

        Raises
        ------
        StateRagError
            If a column, the run's space, genes of it or the controls are missing, the values have another scale, or a
            perturbation has no embedding.
        """
        perturbations, contexts = listed(perturbations), listed(contexts)
        given = {"perturbation": perturbation, "context": context, "control": control, "batch": batch}
        names = Names(**{**self.columns, **{key: value for key, value in given.items() if value is not None}})  # type: ignore[arg-type]
        if is_evidence_run(self.run.config):
            cells = ask(
                self._evidence,
                adata,
                names,
                Wanted(perturbations, contexts, n_cells),
                fill_missing=fill_missing,
                seed=seed,
                progress=progress,
                record={"run": str(self.run.folder.resolve())},
            )
            return self._finished(cells, names)
        request = Request(adata, names, Wanted(perturbations, contexts, n_cells), fill_missing, in_memory=True)
        with _silence(not progress):
            from state._cli._tx._infer import run_tx_infer

            infer.predict_cells(run_tx_infer, self.run, self._arguments(names, seed, not progress), request)
        assert request.answer is not None
        self._retrieved.update(request.retrieved)
        return self._finished(request.answer, names)

    def retrieved(self, perturbation: str, context: str) -> pd.DataFrame:
        """Return which perturbations a prediction drew on.

        Parameters
        ----------
        perturbation, context
            A condition that `predict` has predicted, or that is in the run's own `retrieval_info.csv`.

        Returns
        -------
        pandas.DataFrame
            One row a candidate, most similar first: `rank`, `neighbour`, `similarity` (cosine of the embeddings; NaN
            where it comes from a file), `inclusion` (mean weight over cells), `selected` (inclusion above one half),
            `n_cells`. Of a run with several sources of knowledge best rank in any source first, and with `source`,
            those that proposed it.

        Raises
        ------
        StateRagError
            If the run does not retrieve, or the condition was not predicted.
        """
        if not (self.run.settings.retrieves or is_evidence_run(self.run.config)):
            raise StateRagError(f"{self.run.folder}: this run does not retrieve (mode {self.run.settings.mode})")
        if (mean := self._retrieved.get((context, perturbation))) is not None:
            return mean.table()
        known = set(self._retrieved)
        for path in sorted(self.run.folder.glob("eval_*/retrieval_info.csv")):
            from state_rag.analysis.records import read_retrieval

            for record in read_retrieval(path, progress=False):
                known.add((record.cell_line, record.perturbation))
                if (record.cell_line, record.perturbation) == (context, perturbation):
                    unknown = np.full(len(record.neighbours), np.nan)
                    return candidates_table(record.neighbours, unknown, record.inclusion, record.cells, record.sources)
        here = sorted(name for line, name in known if line == context)
        hint = f" Predicted in {context}: {listing(here)}." if here else suggest([context], {line for line, _ in known})
        raise StateRagError(
            f"nothing is known of what was retrieved for {perturbation!r} in {context!r}; call `predict` for it "
            f"first.{hint}{suggest([perturbation], here)}"
        )

    def _arguments(self, names: Names, seed: int, quiet: bool) -> Namespace:
        """Return the arguments of `state tx infer`, with its own defaults where nothing was asked."""
        from state._cli._tx._infer import add_arguments_infer

        parser = ArgumentParser()
        add_arguments_infer(parser)
        words = ["--model-dir", str(self.run.folder), "--checkpoint", str(self.checkpoint), "--adata", "cells.h5ad"]
        words += ["--pert-col", names.perturbation, "--control-pert", names.control, "--seed", str(seed)]
        if names.context:
            words += ["--celltype-col", names.context]
        if self.run.data.get("embed_key"):
            words += ["--embed-key", str(self.run.data["embed_key"])]
        if names.batch:
            words += ["--batch-col", names.batch]
        args = parser.parse_args([*words, *(["--quiet"] if quiet else [])])
        args.genept_path = self.genept_path
        args.sources = [f"{name}={file}" for name, file in self.sources.items()]
        return args

    def _finished(self, cells: "anndata.AnnData", names: Names) -> "anndata.AnnData":
        """Return the answer with labels under their usual names and under the run's."""
        obs = pd.DataFrame(index=cells.obs_names)
        for kind, column in (("perturbation", names.perturbation), ("context", names.context)):
            labels = pd.Series("all", cells.obs_names) if column is None else cells.obs[column]
            obs[kind] = labels.astype(str).astype("category")
        obs["source_cell"] = cells.obs["source_cell"].astype(str)
        for column in OF_CELLS:
            if column in cells.obs:
                obs[column] = cells.obs[column]
        for kind in ("perturbation", "context"):
            if (own := self.columns[kind]) is not None:
                obs[own] = obs[kind]
        cells.obs = obs
        return cells


@contextlib.contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield
