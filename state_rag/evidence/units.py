"""What an engine's numbers are relative to: sizes found when it was fitted, which stay when it takes in more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from state_rag.evidence.responses import Responses


@dataclass(frozen=True)
class Units:
    """Sizes by which measured responses are divided before the mathematics sees them.

    What was learned (fusion, calibration, which genes are called) is right in those of the fit alone: one strong
    condition that is added later must not widen the deviations that all others are said to have.

    Attributes
    ----------
    effect
        Root mean square of all effects; 1 where they are all zero.
    cells
        Median cell count of a condition; None where counts are unknown.
    combined_cells
        That of combinations; None where counts are unknown or there are none.
    control
        Mean and deviation of the control means, over contexts and genes; None where no control mean is known.
    """

    effect: float
    cells: float | None = None
    combined_cells: float | None = None
    control: tuple[float, float] | None = None

    @classmethod
    def of(cls, responses: Responses, combined: Responses | None = None) -> Units:
        """Return the units of responses of single perturbations, and of combinations.

        Examples
        --------
        >>> Units.of(Responses([[3.0, 4.0], [0.0, 5.0]], ["a", "a"], ["P", "Q"], cells=[10, 30]))
        Units(effect=3.5355339059327378, cells=20.0, combined_cells=None, control=None)
        """
        size = float(np.sqrt(np.mean(np.square(responses.effects, dtype=np.float64))))
        known = [responses.controls[name] for name in responses.context_names if name in responses.controls]
        control = None
        if known:
            values = np.stack(known)
            spread = float(values.std())
            control = float(values.mean()), spread if spread > 0 else 1.0
        return cls(size if size > 0 else 1.0, _median(responses), _median(combined), control)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Units:
        """Return the units of such a dictionary, as `dataclasses.asdict` makes it."""
        control = values["control"]
        return cls(**{**values, "control": None if control is None else tuple(control)})


def _median(responses: Responses | None) -> float | None:
    return None if responses is None or responses.cells is None else float(np.median(responses.cells))
