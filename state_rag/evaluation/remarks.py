"""What a reader of an evaluation should know: training data without use, tests that ask several questions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from state_rag.datasets.splitting.split_questions import questions
from state_rag.effects.conditions import Columns, Condition
from state_rag.effects.mean_effects import MeanEffects
from state_rag.evaluation.baselines.naive import OTHER_LINES
from state_rag.evaluation.up_to_date import BASELINES_LEFT_OUT, TRAINED
from state_rag.names import listing

logger = logging.getLogger(__name__)
NOT_APPLICABLE = "not_applicable"
"""Note on a baseline whose question the split does not pose."""
MIXED = "conditions_ask_different_questions"
"""Note on a test whose conditions differ in what training has seen of them."""
NO_OTHER_LINE = f"{OTHER_LINES} (no test perturbation has training cells in another cell line)"


def training_remarks(training: MeanEffects, path: Path, columns: Columns) -> dict[str, Any]:
    """Return, and warn of, what in the training data could not be used."""
    remarks: dict[str, Any] = {"training_conditions": training.n_conditions}
    if training.not_finite:
        remarks["training_conditions_with_nan"] = len(training.not_finite)
        remarks["training_conditions_with_nan_are"] = listing(training.not_finite, 20)
        logger.warning(
            "%s: baselines leave out %d training conditions, since NaN or infinity is among their cells: %s",
            path,
            len(training.not_finite),
            listing(training.not_finite, 20),
        )
    why = "; ".join(f"{line}: {reason}" for line, reason in training.lines_left_out.items())
    if training.labels:
        found = ", ".join(training.labels)
        why += f" (nothing in column '{columns.perturbation}' equals '{columns.control}'; found {found}, ...)"
    if not training.n_conditions:
        why = f"no training condition can be used; {why or f'{path} names none'}"
        remarks[BASELINES_LEFT_OUT] = f"{TRAINED}: {why}"
        logger.warning("Only the no-effect baseline is shown: %s", why)
    elif why:
        remarks["training_lines_left_out"] = why
        logger.warning("%s: baselines leave out training cells of %s", path, why)
    return remarks


def mixed_questions(training: MeanEffects, asked: Sequence[Condition], control: str) -> dict[str, str]:
    """Return a note where some conditions ask something else than others, so that a mean over all says little."""
    conditions = {("train", line, name): 1 for line, effects in training.effects.items() for name in effects}
    conditions |= {("test", one.cell_line, one.perturbation): 1 for one in asked}
    found = questions(conditions, control)
    if len(found) < 2:
        return {}
    parts = [f"{len(question.conditions)} {question.name} ({listing(question.lines)})" for question in found]
    return {MIXED: f"{'; '.join(parts)}; read them apart in results.csv"}
