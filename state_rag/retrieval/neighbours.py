"""Stage 1, not differentiable: the K nearest entries of the base for each query, by cosine (PT-RAG, section 1.2)."""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge

FAISS_FROM = 50_000
"""Rows of the base above which `auto` prefers FAISS, where it is installed."""

CHUNK_ELEMENTS = 2**24
"""Similarities held at a time by the exact search (float64: 128 MiB)."""

STEP_BITS = 30
"""The exact search compares cosines in steps of 2**-30."""


def top_neighbours(queries: Tensor, base: Tensor, k: int, own: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Return the k nearest rows of `base` for each query, most similar first.

    The similarity is the cosine, 0 for a zero vector. Among equally similar rows the lower one comes first, so that
    the answer is a function of the input alone. Products are summed in float64 and compared in steps of 2**-30 (1e-9):
    with that, equal rows stay equal whatever order a matrix product sums in.

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
    backend
        `exact` (products in chunks), `faiss` (FAISS's flat index, exact too, made for large bases), or `auto`:
        FAISS when the base has more than 50,000 rows and FAISS is installed.

    Returns
    -------
    index, similarity
        Long [Q, k] and float32 [Q, k].

    Raises
    ------
    StateRagError
        When k is below 1 or larger than the rows available to some query, or FAISS was asked for but is missing.
    """
    _check_k(k, len(base), bool((own >= 0).any()))
    if backend not in ("auto", "exact", "faiss"):
        raise StateRagError(f"neighbours: unknown backend {backend!r}; choose auto, exact or faiss.")
    installed = importlib.util.find_spec("faiss") is not None
    if backend == "faiss" and not installed:
        raise StateRagError(
            "neighbours: backend is faiss, but FAISS is not installed; `pip install 'state-rag[faiss]'`, or use exact."
        )
    use_faiss = backend == "faiss" or (backend == "auto" and len(base) > FAISS_FROM and installed)
    search = _search_faiss if use_faiss else _search_exact
    with torch.no_grad():
        return search(_unit(queries), _unit(base), k, own.cpu())


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


class NeighbourTable:
    """The K neighbours of every row of the knowledge, computed once, where the knowledge lies, and kept on the CPU.

    Which perturbations a batch holds is known on the CPU, by name. Looked up there, neither a candidate nor the number
    of distinct ones has to be read back from an accelerator in a training step.

    Rows of the base leave themselves out; rows that may only ask (see `Knowledge.with_queries`) leave nothing out.

    Parameters
    ----------
    knowledge
        P rows, of which the first `n_candidates` may be retrieved.
    k
        Neighbours of each row; at most `n_candidates - 1`.
    block
        The block whose cosine decides; None for all side by side.

    Attributes
    ----------
    index, similarity
        Long and float32 [P, K], on the CPU.
    """

    def __init__(self, knowledge: Knowledge, k: int, block: str | None = None) -> None:
        values = knowledge.block(block)
        own = torch.arange(len(values))
        own[knowledge.n_candidates :] = -1
        index, similarity = top_neighbours(values, values[: knowledge.n_candidates], k, own)
        self.k = k
        self.index, self.similarity = index.cpu(), similarity.cpu()

    def lookup(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the neighbours of `rows` [B]: their rows, long [B, K], and similarities, float32 [B, K].

        All of them lie on the CPU.

        Raises
        ------
        IndexError
            For a negative row: an unknown name or a control has no neighbours, and must not be asked for.
        """
        if bool((rows < 0).any()):
            raise IndexError("a row below 0 (an unknown name or a control) has no neighbours")
        return self.index[rows], self.similarity[rows]


def _check_k(k: int, n_base: int, leaves_out: bool) -> None:
    available = max(n_base - int(leaves_out), 0)
    if not 1 <= k <= available:
        reason = ", the query itself left out" if leaves_out else ""
        raise StateRagError(
            f"training.topk_rag is {k}, but {available} candidates can be retrieved ({n_base} in the base{reason}); "
            + (f"set training.topk_rag to 1 up to {available}." if available else "give embeddings for more names.")
        )


def _unit(vectors: Tensor) -> Tensor:
    wide = vectors.detach().to(torch.float64)
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / torch.where(norm > 0, norm, torch.ones_like(norm))


def _search_exact(queries: Tensor, base: Tensor, k: int, own: Tensor) -> tuple[Tensor, Tensor]:
    n_base = len(base)
    backwards = torch.arange(n_base - 1, -1, -1, device=base.device)
    step = max(1, CHUNK_ELEMENTS // max(n_base, 1))
    indices, similarities = [], []
    for start in range(0, len(queries), step):
        leave_out = own[start : start + step]
        steps = (queries[start : start + step] @ base.T).mul_(2**STEP_BITS).round_().to(torch.int64)
        asking = torch.nonzero(leave_out >= 0).flatten()
        asking, itself = (part.to(base.device, non_blocking=True) for part in (asking, leave_out[asking]))
        steps.index_put_((asking, itself), steps.new_full((), -(2**31)))
        # one unique integer for each (similarity, row), so that ties fall to the lower row on every device
        best = ((steps << 32) + backwards).topk(k, dim=1).values
        indices.append(n_base - 1 - (best & 0xFFFFFFFF))
        similarities.append((best >> 32).to(torch.float64).div_(2**STEP_BITS).to(torch.float32))
    if not indices:
        return backwards.new_zeros(0, k), torch.zeros(0, k, device=base.device)
    return torch.cat(indices), torch.cat(similarities)


def _search_faiss(queries: Tensor, base: Tensor, k: int, own: Tensor) -> tuple[Tensor, Tensor]:
    faiss = importlib.import_module("faiss")
    if not len(queries):
        return torch.zeros(0, k, dtype=torch.long, device=base.device), torch.zeros(0, k, device=base.device)
    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base.to("cpu", torch.float32).numpy())
    spare = int(bool((own >= 0).any()))
    similarity, found = index.search(queries.to("cpu", torch.float32).numpy(), k + spare)
    found, similarity = torch.from_numpy(found), torch.from_numpy(similarity)
    similarity = similarity.masked_fill(found == own.unsqueeze(1), -torch.inf)
    by_row = found.argsort(dim=1)
    found, similarity = found.gather(1, by_row), similarity.gather(1, by_row)
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :k]
    return found.gather(1, order).to(base.device), similarity.gather(1, order).to(base.device)
