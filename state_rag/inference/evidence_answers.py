"""What a trained run answers from measured responses, beside predicted cells: effects, why, what next, what fits."""

import copy
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import pandas as pd

from state_rag.engine.evidence_of import evidence_of
from state_rag.engine.folder import EvidenceRun, is_evidence_run
from state_rag.engine.further import with_files
from state_rag.errors import StateRagError
from state_rag.upstream.further_sources import engine_files
from state_rag.upstream.run_folder import Run

if TYPE_CHECKING:
    import anndata

    from state_rag.evidence.explanation import Explanation


class EvidenceAnswers:
    """A run of `state-rag evidence fit`, or of `state tx train rag=evidence`; others are refused by each method.

    Attributes
    ----------
    run
        Its folder and configuration.
    genept_path, sources
        Files of what is known of perturbations that the run does not know, where they are not those of its training.
    """

    run: Run
    genept_path: str | None
    sources: Mapping[str, str]

    @cached_property
    def _evidence(self) -> EvidenceRun:
        found = evidence_of(self.run.folder, self.run.config)
        given = engine_files(self.genept_path, (f"{name}={file}" for name, file in self.sources.items()))
        return with_files(found, given)

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

    def size_curve(
        self,
        perturbation: str,
        context: str,
        values: Sequence[float],
        axis: str = "dose",
        *,
        new_context: bool = False,
    ) -> pd.DataFrame:
        """Return how large a predicted effect is over doses, or over times.

        Only for runs that tell these: fitted with `--dose-col`, or `--time-col`.

        Parameters
        ----------
        perturbation, context
            A label such as `Afatinib` or `Afatinib:time=24`, without what the curve runs over; and the cell line.
        values
            Doses in the unit of the run, or hours; two or more.
        axis
            `dose` or `time`.
        new_context
            Take a context that the run does not know for a new one, of which nothing was measured.

        Returns
        -------
        pandas.DataFrame
            A row a value: `dose` (`time`), `size` (root mean square over genes), `similarity` (cosine with the effect
            at the largest value), `expected_pearson` where it is known, `measured` (size of the measured effect).
            `attrs["words"]` says whether the effect grows throughout.

        Raises
        ------
        StateRagError
            If the run tells no doses (times), does not know the context, or nothing is known of the perturbation.
        """
        from state_rag.engine.size_curve import size_curve

        found = size_curve(self._evidence, perturbation, context, values, axis, new_context=new_context)
        found.table.attrs["words"] = found.words
        return found.table

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
        pairs: bool = False,
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
            To choose from, and to predict, combinations `A+B` too; by default all single ones that the run knows and
            that were not measured there. Combinations among the candidates are targets too by default, and the only
            ones where all candidates are combinations.
        pairs
            Choose from all pairs of the candidates.
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
                pairs=pairs,
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
                pairs=pairs,
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

    def add(self, source: str | os.PathLike[str], *, progress: bool = False) -> Self:
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
        found = copy.copy(self)
        found.__dict__["_evidence"] = add(self._evidence, source, progress=progress).run
        return found

    def search(
        self,
        context: str,
        target: "Mapping[str, float] | pd.Series | str | os.PathLike[str]",
        *,
        candidates: Sequence[str] | None = None,
        pairs: bool = False,
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
            To choose from, combinations `A+B` too; by default all single perturbations that the run knows.
        pairs
            Choose from all pairs of the candidates.
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
            pairs=pairs,
            top=top,
            reverse=reverse,
            unlisted=unlisted,
            new_context=new_context,
            seed=seed,
        )
        return search_table(found)


def _listed(names: Sequence[str] | str | None) -> Sequence[str] | None:
    return [names] if isinstance(names, str) else names
