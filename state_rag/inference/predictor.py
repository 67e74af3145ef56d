"""A trained run as a Python object: cells in, predicted cells out, through STATE's own `tx infer`.

One code path: `Predictor.predict` calls the function that the command calls, on cells in memory. So every run that
`state tx infer` accepts works, with the same numbers.
"""

import contextlib
import io
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from state_rag.cells.question import Names, Wanted
from state_rag.engine.ask import ask
from state_rag.engine.evidence_of import evidence_of
from state_rag.engine.folder import EvidenceRun, is_evidence_run
from state_rag.errors import StateRagError
from state_rag.names import listing, suggest
from state_rag.run_folders import usual_checkpoint
from state_rag.upstream import infer
from state_rag.upstream.inferred_cells import Request
from state_rag.upstream.inferred_sets import MeanRetrieval, candidates_table
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint

if TYPE_CHECKING:
    import anndata

    from state_rag.evidence.explanation import Explanation


def load(
    run: str | os.PathLike[str], checkpoint: str | None = None, *, genept_path: str | os.PathLike[str] | None = None
) -> "Predictor":
    """Open a trained run for prediction.

    Parameters
    ----------
    run
        Run folder of `state tx train` (or a folder that holds exactly one), with retrieval or without.
    checkpoint
        Name of a file in its `checkpoints/`, or a path; `final.ckpt` by default, or `last.ckpt` where there is none.
    genept_path
        Embeddings of perturbations that the run does not know; those that it was trained with travel in the run.

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
    return Predictor(found, path, None if genept_path is None else str(genept_path))


@dataclass
class Predictor:
    """A trained run.

    Attributes
    ----------
    run
        Its folder and configuration.
    checkpoint
        The file that predicts.
    genept_path
        Embeddings of perturbations that the run does not know.
    """

    run: Run
    checkpoint: Path
    genept_path: str | None = None
    _retrieved: dict[tuple[str, str], "MeanRetrieval"] = field(default_factory=dict, repr=False)

    @cached_property
    def _evidence(self) -> EvidenceRun:
        return evidence_of(self.run.folder, self.run.config)

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
        perturbations: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
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
            What to predict, in every context. By default what the cells are labelled with, as many cells of each as
            there are: exactly what `state tx infer` does with such a file.
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
            `adata.obs_names`) and the same labels under the run's own column names; `uns["state_rag"]` with the run,
            checkpoint, seed, space and what was retrieved. A predicted embedding lies in `obsm`.

        Raises
        ------
        StateRagError
            If a column, the run's space, genes of it or the controls are missing, the values have another scale, or a
            perturbation has no embedding.
        """
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
            `n_cells`.

        Raises
        ------
        StateRagError
            If the run does not retrieve, or the condition was not predicted.
        """
        if not (self.run.settings.retrieves or is_evidence_run(self.run.config)):
            raise StateRagError(f"{self.run.folder}: this run does not retrieve (mode {self.run.settings.mode})")
        if (mean := self._retrieved.get((context, perturbation))) is not None:
            return candidates_table(mean.neighbours, mean.similarity, mean.weights / mean.cells, mean.cells)
        known = set(self._retrieved)
        for path in sorted(self.run.folder.glob("eval_*/retrieval_info.csv")):
            from state_rag.analysis.records import read_retrieval

            for record in read_retrieval(path, progress=False):
                known.add((record.cell_line, record.perturbation))
                if (record.cell_line, record.perturbation) == (context, perturbation):
                    unknown = np.full(len(record.neighbours), np.nan)
                    return candidates_table(record.neighbours, unknown, record.inclusion, record.cells)
        here = sorted(name for line, name in known if line == context)
        hint = f" Predicted in {context}: {listing(here)}." if here else ""
        raise StateRagError(
            f"nothing is known of what was retrieved for {perturbation!r} in {context!r}; call `predict` for it "
            f"first.{hint}{suggest([perturbation], here)}"
        )

    def explain(
        self, perturbation: str, context: str, *, genes: Sequence[str] | str | None = None, new_context: bool = False
    ) -> pd.DataFrame:
        """Return what a predicted effect is made of.

        Only for runs of `state-rag evidence fit` and of `state tx train rag=evidence`. What is explained is the effect
        itself: the mean that predicted cells are brought to, minus that of the context's controls.

        Parameters
        ----------
        perturbation, context
            What was predicted; a condition that was measured is explained without its own response.
        genes
            Genes to add a column for, with what each part adds to them; `all` for all of them. Such a column adds up to
            the predicted effect on the gene.
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.

        Returns
        -------
        pandas.DataFrame
            A row a part: the mean effect of the context, each contributing condition (heaviest first), the correction.

            - `part`: `context mean`, `condition` or `correction`;
            - `context`, `perturbation`: of a condition;
            - `weight`: what its effect, minus the mean effect of its context, is multiplied by;
            - `why`: what makes it like the query most: `text`, `response similarity`, `same perturbation elsewhere`, or
              `offsets others` for one that is like it by nothing;
            - `cells`: behind it, NaN where unknown;
            - `share`: of the predicted effect, by projection; shares add up to 1;
            - `genes`: those that the part moves most, with how far;
            - `by_text`, `by_responses`, `by_same`: shares of the likeness;
            - a column for each of `genes`.

        Raises
        ------
        StateRagError
            If the run predicts without evidence, it does not know the context or a gene, or nothing is known of the
            perturbation.
        """
        from state_rag.engine.explained_parts import parts_table

        found = self.explanation(perturbation, context, new_context=new_context)
        return parts_table(found, found.genes if isinstance(genes, str) and genes == "all" else _listed(genes))

    def explanation(self, perturbation: str, context: str, *, new_context: bool = False) -> "Explanation":
        """Return the same as `explain` as an object, with arrays over genes: what `sr.plot.evidence` draws.

        Parameters
        ----------
        perturbation, context, new_context
            As for `explain`.

        Raises
        ------
        StateRagError
            As `explain` does.
        """
        from state_rag.engine.explain import explain

        return explain(self._evidence, perturbation, context, new_context=new_context)

    def genes(
        self, perturbations: Sequence[str] | str, context: str, *, fdr: float = 0.1, new_context: bool = False
    ) -> pd.DataFrame:
        """Return the genes that perturbations change.

        Only for runs of `state-rag evidence fit` and of `state tx train rag=evidence` that were fitted on cells, since
        effects alone do not say what changed. A condition that was itself measured is called without its own cells.

        Parameters
        ----------
        perturbations
            One or several.
        context
            Cell line.
        fdr
            False discovery rate: the share of the listed genes, over all conditions, that do not change.
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.

        Returns
        -------
        pandas.DataFrame
            A row for each called gene, by perturbation, most probable first: `context`, `perturbation`, `gene`;
            `direction`, `up` or `down`; `effect`, the predicted one; `probability` of a change; `fdr`, that of the
            shortest list that has the gene; `calibration_holds`, whether the calibration was made for such questions.

        Raises
        ------
        StateRagError
            If the run predicts without evidence or does not know which genes change, it does not know the context, or
            `fdr` is not between 0 and 1.
        """
        from state_rag.engine.called_genes import called_genes

        names = [perturbations] if isinstance(perturbations, str) else list(perturbations)
        return called_genes(self._evidence, names, context, fdr=fdr, new_context=new_context)

    def design(
        self,
        context: Sequence[str] | str,
        budget: int,
        *,
        candidates: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        costs: Mapping[str, float] | None = None,
        replicates: bool = False,
        aim: str = "accuracy",
        threshold: float | None = None,
        signature: Mapping[str, float] | None = None,
        new_context: bool = False,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return which perturbations to measure next.

        Only for runs of `state-rag evidence fit` and of `state tx train rag=evidence`; what `state-rag design` does.

        Parameters
        ----------
        context
            Cell line to measure in, or several.
        budget
            How many to choose.
        candidates, targets
            To choose from, and to predict; by default all that the run knows and that were not measured there.
        exclude
            Not to choose.
        costs
            Perturbation -> cost, 1 where it has none; the gain for each unit of cost decides.
        replicates
            Also offer what was measured already.
        aim
            `accuracy`: predict the targets better; `hits`: find effects above a threshold.
        threshold, signature
            Of hits: what a hit exceeds, and gene -> weight (by default the size of the effect counts).
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.
        seed
            Of the sample of targets, where there are very many, and of random choices beside the design.

        Returns
        -------
        pandas.DataFrame
            A row a chosen condition, best first: `rank`, `perturbation`, `context`, and

            - for accuracy `gain`, `variance_explained` (of the targets, by it and those before it),
              `variance_explained_random` (by as many random ones), `cost`, `replicate`, `helps` (targets, with their
              share of the gain);
            - for hits `probability`, `expected_hits`, `effect`, `deviation`.

        Raises
        ------
        StateRagError
            If the run predicts without evidence, it does not know the context, or there is nothing to choose from.
        """
        from state_rag.planning.design import AIMS, design_run, design_table, hits_run

        contexts = [context] if isinstance(context, str) else list(context)
        if aim not in AIMS:
            raise StateRagError(f"design: unknown aim {aim!r}; choose of {', '.join(AIMS)}.")
        if aim == "hits":
            found = hits_run(
                self._evidence,
                contexts,
                budget,
                candidates=candidates,
                exclude=exclude,
                threshold=threshold,
                signature=signature,
                new_context=new_context,
            )
            return design_table(found)
        return design_table(
            design_run(
                self._evidence,
                contexts,
                budget,
                candidates=candidates,
                targets=targets,
                exclude=exclude,
                costs=costs,
                replicates=replicates,
                new_context=new_context,
                seed=seed,
            )
        )

    def effects(
        self,
        contexts: Sequence[str] | str | None = None,
        perturbations: Sequence[str] | str | None = None,
        *,
        new_context: bool = False,
    ) -> "anndata.AnnData":
        """Return predicted effects, a row a condition; no cells are needed.

        Only for runs of `state-rag evidence fit` and of `state tx train rag=evidence`; what `state-rag evidence
        predict` writes.

        Parameters
        ----------
        contexts
            Cell lines; all that were measured by default.
        perturbations
            Names; by default, in each context, those that something is known of and that were not measured there.
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.

        Returns
        -------
        anndata.AnnData
            `X` [conditions, genes] the effect, in the unit of the measured ones; `layers["std"]` the standard deviation
            of each gene's error; `obs` with `perturbation`, `context`, `measured`, `use`, `expected_pearson` (with
            `_low` and `_high`), `trust_grade`, `trust_reason`, `neighbours`.

        Raises
        ------
        StateRagError
            If the run predicts without evidence, or knows nothing of a context or perturbation.
        """
        from state_rag.engine.effects import predicted_effects

        return predicted_effects(self._evidence, _listed(contexts), _listed(perturbations), new_context=new_context)

    def add(self, source: str | os.PathLike[str], *, progress: bool = False) -> "Predictor":
        """Return a predictor that also knows new measurements; nothing is trained again, and nothing is written.

        Only for runs of `state-rag evidence fit`; what `state-rag evidence add` does, which writes the run too.

        Parameters
        ----------
        source
            h5ad file: cells with their controls and the columns that the run was fitted by, or a table of effects with
            a row a condition (`obs` with `perturbation` and `context`).
        progress
            Whether to show progress bars.

        Raises
        ------
        StateRagError
            If the run is a network's, or the file is of another scale, lacks genes, controls or columns, or holds what
            the run's split tests.
        """
        from state_rag.engine.adding import add

        if not is_evidence_run(self.run.config):
            raise StateRagError(f"{self.run.folder}: a network keeps what it was trained with; fit an evidence run.")
        found = replace(self)
        found.__dict__["_evidence"] = add(self._evidence, source, progress=progress).run
        return found

    def search(
        self,
        context: str,
        target: "Mapping[str, float] | pd.Series | str | os.PathLike[str]",
        *,
        candidates: Sequence[str] | None = None,
        top: int = 20,
        reverse: bool = False,
        row: str | None = None,
        unlisted: str | None = None,
        new_context: bool = False,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return which perturbations, measured there or not, most likely bring cells to a wanted state.

        Only for runs of `state-rag evidence fit` and of `state tx train rag=evidence`; what `state-rag search` does.

        Parameters
        ----------
        context
            Cell line in which the state is wanted.
        target
            Gene -> wanted effect (or weight, or sign); or what the command takes: a path of a table or an h5ad file,
            or `GENE1:+,GENE2:-`. Genes that the run lacks are left out, and named in the log.
        candidates
            To choose from; all that the run knows by default.
        top
            How many to return.
        reverse
            Look for the opposite, as for the signature of a disease.
        row
            Of an h5ad file with several signatures, the one that is meant.
        unlisted
            What genes that the target does not name do: `unchanged`, or `unknown`. By default unknown where it names
            half of the run's genes or more.
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.
        seed
            Of the random targets that `p` and `q` are counted with.

        Returns
        -------
        pandas.DataFrame
            A row a candidate, best first: `rank`, `perturbation`, `context`, `known_by` (`measured` or `predicted`),
            `score` (1 at most), `p` (of so high a best score by luck, all candidates together; above .05 for the first
            nothing fits), `q`, `pearson` of its effect with the target (`mean_effect` for a list of less than 100
            genes), `expected_pearson` with `_low` and `_high`, `trust_grade`, `trust_reason`, `evidence`.

        Raises
        ------
        StateRagError
            If the run predicts without evidence, it does not know the context or any of the genes, the target cannot
            be read, or no candidate is left.
        """
        from state_rag.planning.search import search_run, search_table
        from state_rag.planning.signatures import read_signature

        if isinstance(target, str | os.PathLike):
            signature = read_signature(target, "target", row)
        else:
            signature = {str(gene): float(value) for gene, value in target.items()}
        found = search_run(
            self._evidence,
            context,
            signature,
            candidates=candidates,
            top=top,
            reverse=reverse,
            unlisted=unlisted,
            new_context=new_context,
            seed=seed,
        )
        return search_table(found)

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
        return args

    def _finished(self, cells: "anndata.AnnData", names: Names) -> "anndata.AnnData":
        """Return the answer with labels under their usual names and under the run's."""
        obs = pd.DataFrame(index=cells.obs_names)
        for kind, column in (("perturbation", names.perturbation), ("context", names.context)):
            labels = pd.Series("all", cells.obs_names) if column is None else cells.obs[column]
            obs[kind] = labels.astype(str).astype("category")
        obs["source_cell"] = cells.obs["source_cell"].astype(str)
        for kind in ("perturbation", "context"):
            if (own := self.columns[kind]) is not None:
                obs[own] = obs[kind]
        cells.obs = obs
        return cells


def _listed(names: Sequence[str] | str | None) -> Sequence[str] | None:
    return [names] if isinstance(names, str) else names


@contextlib.contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield
