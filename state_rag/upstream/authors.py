"""The method authors' names for parameters, and ours: the one place where they meet."""

from collections.abc import Mapping

from torch import Tensor

AUTHORS_TO_OURS = {
    "context_input_norm": "selector.norm",
    "cell_pert_scorer.0": "selector.scorer_in",
    "cell_pert_scorer.3": "selector.scorer_out",
    "final_project_genept_emb.0": "selector.project",
    "project_genept_emb.0": "attention.project",
    "query_enc.0": "attention.query",
    "key_enc.0": "attention.key",
    "value_enc.0": "attention.value",
}
"""Modules of PT-RAG's released checkpoints (left) and the same ones here; all others are STATE's own."""


def our_name(name: str) -> str:
    """Return our name of a parameter that the authors call `name`.

    Examples
    --------
    >>> our_name("cell_pert_scorer.3.bias")
    'selector.scorer_out.bias'
    >>> our_name("project_out.0.weight")
    'project_out.0.weight'
    """
    module, _, leaf = name.rpartition(".")
    return f"{AUTHORS_TO_OURS[module]}.{leaf}" if module in AUTHORS_TO_OURS else name


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the authors' under our names."""
    return {our_name(name): tensor for name, tensor in state.items()}
