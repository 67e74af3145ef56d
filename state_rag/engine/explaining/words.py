"""An explanation for readers: rows that fit a page, and sentences."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from state_rag.engine.explaining.parts import driven, label, largest, reasons
from state_rag.evidence.explanation import SAME, Explanation
from state_rag.evidence.trust.expected import FEWEST, NO_EFFECT, Calibrated, Trust
from state_rag.names.treatments import name_in

HEAD = ("made of", "weight", "why", "cells", "share", "genes it moves most")
GENES_SHOWN = 3
LEGEND = (
    "What a condition adds is its weight times how far its effect is from the mean of its own context; with a weight "
    "below 0 it takes away what others say already. Shares are of the predicted effect and add up to 100 %; a part "
    "that pulls the other way has one below 0."
)


@dataclass(frozen=True)
class Row:
    """A line of the table, as texts.

    Attributes
    ----------
    what, weight, why, cells, share, genes
        As `HEAD` calls them; genes with how far each is moved.
    moved
        The same genes with arrows.
    kind
        `part` for the context's mean, conditions and the correction; `sum` for the predicted effect.
    """

    what: str
    weight: str
    why: str
    cells: str
    share: str
    genes: str
    moved: str
    kind: str = "part"

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the cells of the line."""
        return self.what, self.weight, self.why, self.cells, self.share, self.genes


def rows(found: Explanation, top: int = 15) -> list[Row]:
    """Return the lines of an explanation: the context's mean, the heaviest conditions, the others, the correction.

    Parameters
    ----------
    found
        From `explain`.
    top
        How many conditions have lines of their own; the others share one.
    """
    prior, shares, correction = found.shares()
    shown, why = min(top, len(found.conditions)), reasons(found)
    lines = [_row(f"mean of {found.context}", "", "the start", "", prior, found, found.prior)]
    for place in range(shown):
        lines.append(
            _row(
                label(found.conditions[place]),
                f"{found.weights[place]:+.3f}",
                why[place],
                _cells(found.cells[place : place + 1]),
                shares[place],
                found,
                found.contributions[place],
            )
        )
    if left := len(found.conditions) - shown:
        added = found.contributions[shown:].sum(0)
        total = f"{found.weights[shown:].sum():+.3f}"
        what = f"{left} other condition{'s' * (left > 1)}"
        lines.append(_row(what, total, "together", _cells(found.cells[shown:]), shares[shown:].sum(), found, added))
    lines.append(_row("correction", "", "fusion, own gene", "", correction, found, found.correction))
    whole = prior + shares.sum() + correction
    lines.append(_row("predicted effect", "", "", "", whole, found, found.prediction, kind="sum"))
    return lines


def facts(found: Explanation, measured: np.ndarray | None = None) -> list[str]:
    """Return what a reader should know first.

    Parameters
    ----------
    found
        From `explain`.
    measured
        The measured effect [G], where it is known.
    """
    prediction, count = found.prediction, len(found.conditions)
    here = sum(context == found.context for context, _ in found.conditions)
    exact = sum(name == found.perturbation for _, name in found.conditions)
    # labels that tell modes, doses and times may share a name
    reasons_of = zip(found.why, found.conditions, strict=True)
    named = sum(why == SAME or name == found.perturbation for why, (_, name) in reasons_of)
    same = f"{exact} of {found.perturbation} elsewhere"
    if named > exact:
        same = f"{named} of {name_in(found.perturbation)}, whatever the mode, dose and time ({exact} of them as asked)"
    lines = [
        f"{found.perturbation} in {found.context}: predicted from {count} measured conditions, {here} of them in "
        f"{found.context}, {same}."
    ]
    if measured is not None and prediction.std() > 0 and measured.std() > 0:
        r = float(np.corrcoef(prediction, measured)[0, 1])
        lines.append(f"It was measured too: correlation of predicted and measured effect over genes {r:.2f}.")
    return lines


def trust_words(trust: Trust, query: int = 0) -> str:
    """Return a sentence on how far a prediction can be trusted."""
    reason = trust.reason[query]
    if reason.startswith(NO_EFFECT):
        return f"There is nothing to be right about: {reason}."
    if np.isnan(trust.expected[query]):
        return f"How far to trust it is not known: {reason}."
    low, high = trust.low[query], trust.high[query]
    return (
        f"Expected correlation with the truth over genes: {trust.expected[query]:.2f} (90 % interval {low:.2f} to "
        f"{high:.2f}), trust {trust.grade[query]}: {reason}."
    )


def calibration_words(found: Calibrated) -> str:
    """Return what was found about how far predictions of one use can be trusted."""
    if found.model is None:
        return f"trust: ranks only, since {found.conditions} measured conditions are too few ({FEWEST} needed)"
    contexts = int(found.model.counts[1])
    return (
        f"trust: calibrated on {found.conditions} measured conditions of {contexts} context{'s' * (contexts > 1)}; the "
        f"size of an error is {found.model.widths.mean():.2f} in correlation"
    )


def terminal_table(found: Explanation, top: int = 15) -> Any:
    """Return the lines as a `rich` table."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in HEAD:
        right = name in ("weight", "cells", "share")
        table.add_column(name, justify="right" if right else "left", no_wrap=name in ("weight", "cells", "share"))
    for line in rows(found, top):
        if line.kind == "sum":
            table.add_section()
        style = "bold" if line.kind == "sum" else ""
        table.add_row(*(Text(text, style=style) for text in (*line.texts[:-1], line.moved)))
    return table


def _row(
    what: str,
    weight: str,
    why: str,
    cells: str,
    share: float,
    found: Explanation,
    added: np.ndarray,
    kind: str = "part",
) -> Row:
    genes = driven(found.genes, added, GENES_SHOWN)
    moved = " ".join(
        f"{found.genes[place]} {'↑' if added[place] > 0 else '↓'}"
        for place in largest(added, GENES_SHOWN)
        if added[place]
    )
    return Row(what, weight, why, cells, f"{100 * share:.1f} %", genes, moved, kind)


def _cells(counts: np.ndarray) -> str:
    return f"{int(counts.sum()):,}" if np.isfinite(counts).all() else "?"
