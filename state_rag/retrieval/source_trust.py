"""How much each source of knowledge is trusted: what a candidate's score gains from the sources that propose it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from state_rag.retrieval.source_neighbours import Proposals

GAIN = 10.0
"""What the parameters are multiplied by: steps of an optimiser that suit weights of a layer are small for a score."""


class SourceTrust(nn.Module):
    """A learned term of a score, 0 at first: t_s for each source that proposes a candidate, plus l_s times its cosine.

    Parameters
    ----------
    sources
        M, number of sources.
    """

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.proposed = nn.Parameter(torch.zeros(sources))
        self.alike = nn.Parameter(torch.zeros(sources))

    def forward(self, proposals: Proposals) -> Tensor:
        """Return the term for R sets with K candidates, [R, K]."""
        by = proposals.by.to(self.proposed.dtype)
        return GAIN * (by @ self.proposed + proposals.cosines.to(self.alike.dtype) @ self.alike)

    def facts(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return both numbers of each source by name: `source_trust/NAME` and `source_likeness/NAME`."""
        both = {"source_trust": self.proposed, "source_likeness": self.alike}
        return {
            f"{kind}/{name}": GAIN * value.detach()
            for kind, values in both.items()
            for name, value in zip(names, values, strict=True)
        }
