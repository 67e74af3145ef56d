"""What is known of each perturbation: names, and for every name one row in each of several blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from state_rag.errors import StateRagError


class Knowledge(nn.Module):
    """Names with their rows in one or more named blocks of numbers.

    An entry is a row of named blocks, one for each source of knowledge: a single block `text` holds the text embeddings
    (PT-RAG, section 1 of the method: the knowledge base). A row of zeros is a name that a source does not know. What a
    model reads of a name is its rows side by side, as wide as all blocks together.
    The blocks are a non-persistent buffer: they move with the module but stay out of its state dict, so that neither
    strict loading nor a weight transfer from another run touches them. `to_state` is how they travel.

    Parameters
    ----------
    names
        P names, each once.
    blocks
        Block name -> matrix [P, D_block]. Kept as float32.
    n_candidates
        Rows [0, n_candidates) form the base that may be retrieved; later rows may only ask. Default: all.
    coordinates
        [P, C]: where each entry lies among treatments (modes, doses, times), read beside the blocks; None for none. The
        nearer two entries are there, the more alike they are: see `nearness`.
    scaling
        What made them, in plain types, kept for entries to come.

    Raises
    ------
    StateRagError
        For no names, duplicate names, blocks whose rows do not match the names, or values that are not finite.

    Examples
    --------
    >>> knowledge = Knowledge(["A", "B"], {"text": torch.eye(2)})
    >>> knowledge.index_of(["B", "unheard of"])
    tensor([ 1, -1])
    >>> knowledge.rows(torch.tensor([1, -1]))
    tensor([[0., 1.],
            [0., 0.]])
    """

    values: Tensor

    def __init__(
        self,
        names: Sequence[str],
        blocks: Mapping[str, Tensor],
        n_candidates: int | None = None,
        coordinates: Tensor | None = None,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.names: tuple[str, ...] = tuple(names)
        self._row = {name: row for row, name in enumerate(self.names)}
        _check_names(self.names)
        n_names = len(self.names)
        self.n_candidates = n_names if n_candidates is None else int(n_candidates)
        if not 0 <= self.n_candidates <= n_names:
            raise StateRagError(
                f"knowledge: n_candidates is {n_candidates}, but there are {n_names} names; give 0 to {n_names}."
            )
        if not blocks:
            raise StateRagError("knowledge: no blocks were given; give at least one matrix, such as `text`.")
        self.block_names: tuple[str, ...] = tuple(blocks)
        matrices = {name: torch.as_tensor(values).detach().to(torch.float32) for name, values in blocks.items()}
        for name, matrix in matrices.items():
            _check_block(name, matrix, self.names)
        self._widths = [matrix.shape[1] for matrix in matrices.values()]
        parts = list(matrices.values())
        self.scaling = None if coordinates is None else dict(scaling or {})
        if coordinates is not None:
            parts.append(torch.as_tensor(coordinates).detach().to(torch.float32))
            _check_block("coordinates", parts[-1], self.names)
        self.register_buffer("values", torch.cat(parts, dim=1), persistent=False)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def extra_repr(self) -> str:
        """Return the sizes, for `print(model)`."""
        widths = ", ".join(f"{name}={self.width(name)}" for name in self.block_names)
        return f"{len(self)} names, {self.n_candidates} candidates, {widths}"

    @property
    def embeddings(self) -> Tensor:
        """All blocks side by side, without coordinates."""
        return self.values[:, : sum(self._widths)]

    @property
    def coordinates(self) -> Tensor | None:
        """Where each entry lies among treatments, [P, C]; None where entries are names and nothing else."""
        return None if self.scaling is None else self.values[:, sum(self._widths) :]

    def block(self, name: str | None = None) -> Tensor:
        """Return the block `name`, [P, D_block], or all blocks and coordinates side by side, [P, D]."""
        if name is None:
            return self.values
        if name not in self.block_names:
            raise StateRagError(f"knowledge: no block {name!r}; there are {', '.join(self.block_names)}.")
        place = self.block_names.index(name)
        start = sum(self._widths[:place])
        return self.values[:, start : start + self._widths[place]]

    def width(self, block: str | None = None) -> int:
        """Return the number of columns of a block, or of all together."""
        return self.block(block).shape[1]

    def known(self, block: str) -> Tensor:
        """Return which names a block knows, bool [P]: those whose row is not zero."""
        return self.block(block).any(dim=1)

    def index_of(self, names: Sequence[str]) -> Tensor:
        """Return each name's row, long [B] on the CPU, as names are; -1 for a name that is not known."""
        return torch.tensor([self._row.get(name, -1) for name in names], dtype=torch.long)

    def rows(self, index: Tensor, block: str | None = None) -> Tensor:
        """Return the rows `index` [B] of a block, or of all side by side, [B, D]; zeros where the index is negative.

        An index on the CPU is sent to the knowledge's device without waiting for it.
        """
        values = self.block(block)
        if index.device.type == "cpu" and all_known(index):
            return values[index.to(values.device, non_blocking=True)]
        index = index.to(values.device, non_blocking=True)
        found = values[index.clamp(min=0)] if len(self) else values.new_zeros(len(index), values.shape[1])
        return found.masked_fill((index < 0).unsqueeze(-1), 0.0)

    def with_queries(
        self, names: Sequence[str], blocks: Mapping[str, Tensor], coordinates: Tensor | None = None
    ) -> Knowledge:
        """Return new knowledge with further rows that may ask but are never retrieved.

        Parameters
        ----------
        names
            Q new names, none of them known already.
        blocks
            A matrix [Q, D_block] for every block of this knowledge.
        coordinates
            [Q, C] where this knowledge has such.

        Raises
        ------
        StateRagError
            When a block is missing, unknown or of another width, and for what `Knowledge` itself refuses.
        """
        if set(blocks) != set(self.block_names):
            raise StateRagError(
                f"knowledge: further rows bring the blocks {', '.join(sorted(blocks)) or 'none'}, expected "
                f"{', '.join(sorted(self.block_names))}; give one matrix for each."
            )
        joined = {}
        for name in self.block_names:
            old, new = self.block(name), torch.as_tensor(blocks[name])
            if new.dim() != 2 or new.shape[1] != old.shape[1]:
                raise StateRagError(
                    f"knowledge: further rows of block {name!r} have shape {tuple(new.shape)}, expected "
                    f"{len(names)} x {old.shape[1]}; use the embeddings this run was trained with."
                )
            joined[name] = torch.cat([old, new.to(old)])
        both = None
        also = {name: self.names[row] for name, row in self._row.items() if name != self.names[row]}
        if (own := self.coordinates) is not None:
            new = own.new_zeros(len(names), own.shape[1]) if coordinates is None else torch.as_tensor(coordinates)
            both = torch.cat([own, new.to(own)])
        return Knowledge((*self.names, *names), joined, self.n_candidates, both, self.scaling).also_called(also)

    def also_called(self, others: Mapping[str, str]) -> Knowledge:
        """Return the same knowledge, asked by other names too; they are not among `names`, and are not kept.

        Parameters
        ----------
        others
            Other name -> name that is known.

        Examples
        --------
        >>> knowledge = Knowledge(["A", "A+B"], {"text": torch.eye(2)}).also_called({"B+A": "A+B"})
        >>> knowledge.index_of(["B+A"]), "B+A" in knowledge, knowledge.names
        (tensor([1]), True, ('A', 'A+B'))
        """
        if not others:
            return self
        beside = self.coordinates, self.scaling
        blocks = {name: self.block(name) for name in self.block_names}
        known = Knowledge(self.names, blocks, self.n_candidates, *beside)
        known._row = {**{other: self._row[name] for other, name in others.items()}, **self._row}
        return known

    def to_state(self) -> dict[str, Any]:
        """Return names, blocks and base size as plain types and tensors on the CPU, fit for a checkpoint."""
        state = {
            "names": list(self.names),
            "blocks": {name: self.block(name).detach().to("cpu", copy=True) for name in self.block_names},
            "n_candidates": self.n_candidates,
        }
        if (coordinates := self.coordinates) is not None:
            state |= {"coordinates": coordinates.detach().to("cpu", copy=True), "scaling": self.scaling}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Knowledge:
        """Build knowledge from what `to_state` returned.

        Raises
        ------
        StateRagError
            When a part is missing, and for what `Knowledge` itself refuses.
        """
        missing = [key for key in ("names", "blocks", "n_candidates") if key not in state]
        if missing:
            raise StateRagError(
                f"knowledge: the stored state lacks {', '.join(missing)}; the checkpoint is incomplete or of "
                "another version. Train again, or import it anew."
            )
        beside = state.get("coordinates"), state.get("scaling")
        return cls(state["names"], state["blocks"], state["n_candidates"], *beside)


def nearness(queries: Tensor, base: Tensor) -> Tensor:
    """Return what coordinates [Q, C] and [P, C] make of a cosine: a factor [Q, P] from 0 to 1, float64.

    It is a Gaussian kernel of their distance: 1 for the same treatment, .37 for two modes, .61 for doses that are a
    standard deviation of training apart.
    """
    return (-0.5 * torch.cdist(queries.double(), base.double()).square()).exp()


def all_known(index: Tensor) -> bool:
    """Whether rows that lie on the CPU are all of names that are known."""
    return bool(len(index)) and not bool((index < 0).any())


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise StateRagError("knowledge: no names were given; at least one perturbation needs an embedding.")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise StateRagError(f"knowledge: {wrong[0]!r} is a {type(wrong[0]).__name__}, expected a name (str).")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        raise StateRagError(
            f"knowledge: {len(twice)} names occur more than once ({', '.join(twice[:5])}); keep one row for each name."
        )


def _check_block(name: str, matrix: Tensor, names: tuple[str, ...]) -> None:
    if matrix.dim() != 2 or matrix.shape[0] != len(names):
        raise StateRagError(
            f"knowledge: block {name!r} has shape {tuple(matrix.shape)}, expected {len(names)} rows, one for each name."
        )
    finite = torch.isfinite(matrix).all(dim=1)
    if not bool(finite.all()):
        bad = [names[row] for row in torch.nonzero(~finite).flatten()[:5].tolist()]
        raise StateRagError(
            f"knowledge: block {name!r} holds NaN or infinite values for {', '.join(bad)}; correct or drop these rows."
        )
