"""What a trained run answers about what to do next: what to measure, and what brings a wanted state."""

import os
from collections.abc import Mapping, Sequence

import pandas as pd

from state_rag.errors import StateRagError
from state_rag.inference.evidence_answers import EvidenceAnswers, listed


class PlanningAnswers(EvidenceAnswers):
    """A run that answers from measured responses, and is asked what to do next."""

    def design(
        self,
        context: Sequence[str] | str,
        budget: int,
        *,
        candidates: Sequence[str] | str | None = None,
        pairs: bool = False,
        targets: Sequence[str] | str | None = None,
        exclude: Sequence[str] | str = (),
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
            If the run predicts without evidence, it does not know the context, something is given that is for the
            other aim, or there is nothing to choose from.
        """
        from state_rag.planning.design import AIMS, design_run, design_table, hits_run
        from state_rag.planning.signatures import given_signature

        contexts = [context] if isinstance(context, str) else list(context)
        if aim not in AIMS:
            raise StateRagError(f"design: unknown aim {aim!r}; choose of {', '.join(AIMS)}.")
        if aim == "accuracy" and (threshold is not None or signature is not None):
            raise StateRagError("design: threshold and signature say what a hit is; add aim='hits'.")
        if aim == "hits" and (targets is not None or costs or replicates):
            raise StateRagError("design: targets, costs and replicates are not for aim='hits'; leave them out.")
        if aim == "hits":
            found = hits_run(
                self._evidence,
                contexts,
                budget,
                candidates=listed(candidates),
                pairs=pairs,
                exclude=listed(exclude) or (),
                threshold=threshold,
                signature=None if signature is None else given_signature(signature, "signature"),
                new_context=new_context,
            )
            return design_table(found)
        return design_table(
            design_run(
                self._evidence,
                contexts,
                budget,
                candidates=listed(candidates),
                pairs=pairs,
                targets=listed(targets),
                exclude=listed(exclude) or (),
                costs=costs,
                replicates=replicates,
                new_context=new_context,
                seed=seed,
            )
        )

    def search(
        self,
        context: str,
        target: "Mapping[str, float] | pd.Series | str | os.PathLike[str]",
        *,
        candidates: Sequence[str] | str | None = None,
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
        from state_rag.planning.signatures import given_signature, read_signature

        if isinstance(target, str | os.PathLike):
            signature = read_signature(target, "target", row)
        else:
            signature = given_signature(target, "target")
        found = search_run(
            self._evidence,
            context,
            signature,
            candidates=listed(candidates),
            pairs=pairs,
            top=top,
            reverse=reverse,
            unlisted=unlisted,
            new_context=new_context,
            seed=seed,
        )
        return search_table(found)
