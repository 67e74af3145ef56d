"""Stage 1, not differentiable: the K nearest entries of the base for each query, by cosine (PT-RAG, section 1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import nearness

LARGE = 50_000
"""Rows above which a base is large: it is gone through in blocks, and a table has the neighbours of those that ask."""

CHUNK_ELEMENTS = 2**24
"""Similarities held at a time by the exact search (float64: 128 MiB)."""

BLOCK_ELEMENTS = 2**25
"""Values of a large base that are brought to length 1 at a time (float64: 256 MiB)."""

STEP_BITS = 30
"""Cosines are compared in steps of 2**-30."""


def top_neighbours(
    queries: Tensor, base: Tensor, k: int, own: Tensor, beside: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the k nearest rows of `base` for each query, most similar first, by comparing all.

    The similarity is the cosine, 0 for a zero vector. Among equally similar rows the lower one comes first, so that
    the answer is a function of the input alone. Products are summed in float64 and compared in steps of 2**-30 (1e-9):
    with that, equal rows stay equal whatever order a matrix product sums in. A base of more than `LARGE` rows is
    gone through in blocks.

    Parameters
    ----------
    queries
        [Q, D].
    base
        [P, D].
    k
        Neighbours to return for each query.
    own
        Long [Q], best on the CPU: the row of `base` that is the query itself, to be left out; -1 leaves nothing out.
    beside
        Coordinates [Q, C] of the queries and [P, C] of the base, whose `knowledge.nearness` a cosine is multiplied by.

    Returns
    -------
    index, similarity
        Long [Q, k] and float32 [Q, k].

    Raises
    ------
    StateRagError
        When k is below 1 or larger than the rows available to some query.

    See Also
    --------
    state_rag.retrieval.large_base.LargeBase : the same for a large base, by an index.
    """
    check_k(k, len(base), bool((own >= 0).any()))
    with torch.no_grad():
        return _search_exact(unit(queries), base, k, own.cpu(), beside)


def distinct(index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows in `index` and where each entry lies among them.

    Parameters
    ----------
    index
        Long [B, K], rows of the knowledge. On an accelerator, the host waits to learn how many are distinct.

    Returns
    -------
    rows, local
        Long [N], ascending, and long [B, K] with `rows[local] == index`.

    Examples
    --------
    >>> distinct(torch.tensor([[7, 3], [3, 9]]))
    (tensor([3, 7, 9]), tensor([[1, 0],
            [0, 2]]))
    """
    rows, local = torch.unique(index, return_inverse=True)
    return rows, local


def check_k(k: int, n_base: int, leaves_out: bool) -> None:
    """Refuse a k below 1 or above the rows of a base that some query may retrieve."""
    available = max(n_base - int(leaves_out), 0)
    if not 1 <= k <= available:
        reason = ", the query itself left out" if leaves_out else ""
        raise StateRagError(
            f"training.topk_rag is {k}, but {available} candidates can be retrieved ({n_base} in the base{reason}); "
            + (f"set training.topk_rag to 1 up to {available}." if available else "give embeddings for more names.")
        )


def unit(vectors: Tensor) -> Tensor:
    """Return rows [N, D] of length 1, float64; those of zeros stay."""
    wide = vectors.detach().to(torch.float64)
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / torch.where(norm > 0, norm, torch.ones_like(norm))


def best_of(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return places and values of the k largest cosines in each row [Q, P] of some, lower places first among equals."""
    return _parted(_keys(products, 0).topk(k, dim=1).values)


def _search_exact(
    queries: Tensor, base: Tensor, k: int, own: Tensor, beside: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the k nearest of rows of length 1 [Q, D] in a base of any lengths [P, D]."""
    n_base, device = len(base), base.device
    size = n_base if n_base <= LARGE else max(1, BLOCK_ELEMENTS // base.shape[1])
    best: list[Tensor] | None = None
    step = max(1, CHUNK_ELEMENTS // size)
    for first in range(0, n_base, size):
        block = unit(base[first : first + size])
        found = []
        for start in range(0, len(queries), step):
            products = queries[start : start + step] @ block.T
            if beside is not None:
                products *= nearness(beside[0][start : start + step], beside[1][first : first + size])
            keys = _keys(products, first)
            itself = own[start : start + step] - first
            asking = torch.nonzero((itself >= 0) & (itself < len(block))).flatten()
            asking, itself = (part.to(device, non_blocking=True) for part in (asking, itself[asking]))
            keys.index_put_((asking, itself), keys.new_full((), torch.iinfo(torch.int64).min))
            found.append(keys.topk(min(k, len(block)), dim=1).values)
        if best is not None:
            both = [torch.cat(pair, dim=1) for pair in zip(best, found, strict=True)]
            found = [keys.topk(min(k, keys.shape[1]), dim=1).values for keys in both]
        best = found
    if not best:
        return torch.zeros(0, k, dtype=torch.long, device=device), torch.zeros(0, k, device=device)
    return _parted(torch.cat(best))


def _keys(products: Tensor, first: int) -> Tensor:
    """Return one unique integer for each (cosine, row), so that ties fall to the lower row on every device.

    The rows are those from `first` on; more than 2**31 are not told apart.
    """
    steps = products.mul_(2**STEP_BITS).round_().to(torch.int64)
    return (steps << 32) - torch.arange(first, first + products.shape[1], device=products.device)


def _parted(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and cosines that keys stand for."""
    index = -keys & 0xFFFFFFFF
    return index, ((keys + index) >> 32).to(torch.float64).div_(2**STEP_BITS).to(torch.float32)
