"""The evidence engine as a row beside the naive baselines: fitted on a run's training cells, real controls scaled.

It is what `state-rag evidence fit` with its defaults, `state tx predict` and `state-rag evaluate` give on the same
split and embeddings, but for which controls are drawn. A fit takes up to some minutes and is shared by all runs whose
training data and embeddings are the same (`engine.kept`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from state_rag.cells.anchored import LARGEST, brought_to_mean
from state_rag.effects.conditions import Condition
from state_rag.effects.mean_effects import MeanEffects
from state_rag.effects.row_store import RowStore
from state_rag.engine.fitting import uses_of
from state_rag.engine.kept import kept_fit
from state_rag.engine.knowledge import TEXT
from state_rag.evaluation.baselines.naive import EVIDENCE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import parts_of, to_be_known, with_members
from state_rag.names.matching import OtherNames
from state_rag.names.tables import read_symbols
from state_rag.names.treatments import name_in

SETTINGS = replace(Settings(), calibrating=0)
"""Those of `state-rag evidence fit`; how far to trust predictions is not asked here, and changes none."""

MOST_VALUES = 2**25
"""Training conditions times genes, above which the row is made only when it is asked for."""

BYTES = 80
"""Of memory for each of these, at the peak: 4.4 GiB at 3,080 conditions of 20,000 genes."""

TOGETHER = 2**21
"""Conditions times genes that are predicted at once."""

FITTED, LEFT_OUT = "evidence_row", "evidence_row_left_out"
"""Notes: what the engine was fitted on, or why there is no such row."""
NOT_ASKED = "not asked for"
NOTHING = "no tested perturbation has an embedding, or training cells in another cell line"
OWN = "the run is the evidence engine itself"
TOO_LARGE = "a large screen"
"""How reasons to leave it out begin."""


class EvidenceRow:
    """A fitted engine's predictions of conditions, as a predictor that `evaluate_pair` takes.

    Parameters
    ----------
    engine
        Fitted on the training responses.
    conditions
        All that will be asked.
    expression
        Whether the columns are genes, which are scaled and stay between 0 and 14; others are shifted.
    """

    def __init__(self, engine: Evidence, conditions: Iterable[Condition], expression: bool) -> None:
        lines: dict[str, list[str]] = {}
        for one in conditions:
            lines.setdefault(one.cell_line, []).append(one.perturbation)
        genes = len(engine.responses.genes)
        self.expression = expression
        self._row: dict[tuple[str, str], int] = {}
        self._known: set[tuple[str, str]] = set()
        self._effects = RowStore(sum(map(len, lines.values())), genes, np.float64)
        several = max(1, TOGETHER // genes)
        for line, names in lines.items():
            for start in range(0, len(names), several):
                found = engine.predict(line, names[start : start + several], trust=False)
                for name, effect, nothing in zip(found.perturbations, found.mean, found.nothing_known, strict=True):
                    self._row[name, line] = row = len(self._row)
                    self._effects[row] = effect
                    if not nothing:
                        self._known.add((name, line))

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the predicted effect `[G]`."""
        return self._effects[self._row[perturbation, cell_line]]

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether anything is known of the perturbation; else the answer is the mean effect of the line."""
        return (perturbation, cell_line) in self._known

    def limited(self, mean: np.ndarray) -> np.ndarray:
        """Return a profile `[G]` as cells can have it."""
        return np.clip(mean, 0, LARGEST) if self.expression else mean

    def scaled(self, cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return cells `[n, G]` with a wanted mean `[G]`: changed gene by gene, or shifted where they are no genes."""
        found = brought_to_mean(cells, mean, np.random.default_rng(0), expression=self.expression)
        return np.clip(found, 0, LARGEST) if self.expression else found


def evidence_row(
    responses: Responses,
    conditions: Mapping[tuple[str, str, str], int],
    control: str,
    asked: Sequence[Condition],
    embeddings: tuple[Mapping[str, np.ndarray] | None, str],
    *,
    expression: bool,
    progress: bool = True,
) -> tuple[EvidenceRow | None, str]:
    """Fit the engine, or take the kept fit, and predict conditions.

    Parameters
    ----------
    responses
        What the training cells did; nothing else of the data is looked at.
    conditions
        (part, cell line, perturbation) of the data, as in `SplitSummary.conditions`: which kinds of question `test`
        asks, and which perturbations there are.
    control
        Label of control cells.
    asked
        Conditions to predict.
    embeddings
        Perturbation to vector, None for none; and what they are called.
    expression
        Whether the columns are genes.
    progress
        Whether to show a progress bar while it is fitted.

    Returns
    -------
    tuple
        The row, and what it was fitted on, in words; or None, and why it would say nothing of its own.

    Raises
    ------
    StateRagError
        If the engine cannot be fitted.
    """
    vectors, source = embeddings[0] or {}, embeddings[1]
    labels = sorted(with_members(name_in(name) if responses.treated else name for _, _, name in conditions))
    known = OtherNames(labels, read_symbols()).matched(vectors, TEXT)
    if _nothing_to_tell(responses, asked, known):
        return None, NOTHING
    tables = {TEXT: (tuple(known), np.stack([vectors[other] for other in known.values()]))} if known else {}
    engine = kept_fit(responses, tables, uses_of(conditions, control), SETTINGS, progress=progress)
    embedded = (
        f"embeddings of {len(known)} of {len(to_be_known(labels, known))} perturbations ({source})"
        if known
        else "no embeddings"
    )
    told = f"fitted on {len(responses)} training conditions and {embedded}"
    return EvidenceRow(engine, asked, expression), told


def _nothing_to_tell(responses: Responses, asked: Iterable[Condition], embedded: Collection[str]) -> bool:
    """Return whether the engine could only repeat the mean effect, for it knows none of the conditions."""
    if responses.treated:  # another dose of a name tells something, in whichever line
        known = {*embedded, *map(name_in, responses.perturbation_names)}
        return not any(part in known for one in asked for part in parts_of(name_in(one.perturbation)))
    lines: dict[str, set[str]] = {}
    for line, name in responses.conditions:
        lines.setdefault(name, set()).add(line)
    return not any(
        name in embedded or lines.get(name, set()) - ({one.cell_line} if name == one.perturbation else set())
        for one in asked
        for name in {one.perturbation, *parts_of(one.perturbation)}
    )


def why_too_large(training: MeanEffects, genes: int) -> str:
    """Return why the row is made only when it is asked for; empty where it is made anyway."""
    if training.n_conditions * genes <= MOST_VALUES:
        return ""
    size = BYTES * training.n_conditions * genes / 2**30
    return (
        f"{TOO_LARGE}: {training.n_conditions:,} training conditions x {genes:,} genes take about {size:.1f} GiB of "
        f"memory; --evidence makes the row ({EVIDENCE}) all the same"
    )
