"""What a trained run answers from measured responses, beside predicted cells: effects, why, which genes."""

import copy
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

    from state_rag.engine.adding import Files
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
        from state_rag.engine.explaining.parts import parts_table

        found = self.explanation(perturbation, context, new_context=new_context)
        return parts_table(found, found.genes if isinstance(genes, str) and genes == "all" else listed(genes))

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
        from state_rag.engine.explaining.explain import explain

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
            If the run predicts without evidence or does not know which genes change, it does not know the context or
            anything of a perturbation, or `fdr` is not between 0 and 1.
        """
        from state_rag.engine.called_genes import called_genes

        names = [perturbations] if isinstance(perturbations, str) else list(perturbations)
        return called_genes(self._evidence, names, context, fdr=fdr, new_context=new_context)

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

        return predicted_effects(self._evidence, listed(contexts), listed(perturbations), new_context=new_context)

    def add(self, source: "Files", *, progress: bool = False) -> Self:
        """Return a predictor that also knows new measurements; nothing is trained again, and nothing is written.

        Only for runs of `state-rag evidence fit`; what `state-rag evidence add` does, which writes the run too.

        Parameters
        ----------
        source
            h5ad file: cells with their controls and the columns that the run was fitted by, or a table of effects with
            a row a condition (`obs` with `perturbation` and `context`); or several such files.
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


def listed(names: Sequence[str] | str | None) -> Sequence[str] | None:
    """Return names as a list, a single one too: text is a sequence of letters, which nobody means."""
    return [names] if isinstance(names, str) else names
