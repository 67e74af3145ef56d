"""Models small enough to train in a moment, and batches for them."""

import contextlib
import copy
import io
from collections.abc import Sequence

import torch
from state.tx.models.state_transition import StateTransitionPerturbationModel

from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge

CONTROL = "non-targeting"
CELLS, GENES, HIDDEN, WIDTH, BATCHES = 6, 24, 16, 10, 3

FLAGS = {
    "genept": {"use_genept": True},
    "vanilla": {"rag": True, "use_genept": True, "retrieve_than_predict": True, "topk_rag": 3},
    "hidden": {"rag": True, "use_genept": True, "topk_rag": 3},
    "differentiable": {
        "rag": True,
        "use_genept": True,
        "retrieve_than_predict": True,
        "differentiable_rag": True,
        "topk_rag": 3,
        "gumbel_sparsity_loss": True,
    },
}
"""The flags of each method."""

MODES = list(FLAGS)
RETRIEVING = [mode for mode in MODES if FLAGS[mode].get("rag")]

LLAMA = {
    "bidirectional_attention": True,
    "max_position_embeddings": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "use_cache": False,
    "attention_dropout": 0.0,
}
GPT2 = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 2, "n_inner": 32, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


def names(count: int = 8, prefix: str = "GENE") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def knowledge(count: int = 8, width: int = WIDTH, seed: int = 0, prefix: str = "GENE") -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    return Knowledge(names(count, prefix), {"text": torch.randn(count, width, generator=generator)})


def arguments(**changes) -> dict:
    """What STATE's constructor is given, with changes."""
    given = {
        "input_dim": GENES,
        "hidden_dim": HIDDEN,
        "output_dim": GENES,
        "pert_dim": WIDTH,
        "gene_dim": GENES,
        "output_space": "gene",
        "embed_key": "X_hvg",
        "transformer_backbone_key": "llama",
        "transformer_backbone_kwargs": LLAMA,
        "cell_set_len": CELLS,
        "n_encoder_layers": 1,
        "n_decoder_layers": 1,
        "dropout": 0.0,
        "control_pert": CONTROL,
        "gene_decoder_bool": False,
        **changes,
    }
    return copy.deepcopy(given)


def build(mode: str = "differentiable", base: Knowledge | None = None, seed: int = 0, **changes) -> RagStateTransition:
    """A model of ours, the same at every call."""
    torch.manual_seed(seed)
    bound = RagStateTransition.bound_to(knowledge() if base is None else base)
    with contextlib.redirect_stdout(io.StringIO()):  # STATE prints every model
        model = bound(**{**FLAGS[mode], **arguments(**changes)})
    if mode == "differentiable":
        torch.nn.init.normal_(model.selector.norm.weight)
    return model


def upstream(**changes) -> StateTransitionPerturbationModel:
    torch.manual_seed(0)
    return StateTransitionPerturbationModel(**arguments(**changes))


def batch(
    perturbations: Sequence[str] = ("GENE0", "GENE3", CONTROL),
    cells: int = CELLS,
    seed: int = 0,
    input_dim: int = GENES,
    output_dim: int = GENES,
    counts: int = 0,
) -> dict:
    """Sets of cells, each with one perturbation; `counts` adds gene counts of that width."""
    generator = torch.Generator().manual_seed(seed)
    total = len(perturbations) * cells
    made = {
        "pert_name": [name for name in perturbations for _ in range(cells)],
        "cell_type": ["k562"] * total,
        "pert_emb": torch.zeros(total, len(perturbations)),
        "ctrl_cell_emb": torch.rand(total, input_dim, generator=generator),
        "pert_cell_emb": torch.rand(total, output_dim, generator=generator),
        "batch": torch.arange(len(perturbations)).repeat_interleave(cells) % BATCHES,
    }
    if counts:
        made["pert_cell_counts"] = torch.rand(total, counts, generator=generator)
    return made


def part(whole: dict, chosen: Sequence[int], cells: int = CELLS) -> dict:
    """Some sets of a batch."""
    keep = [number * cells + cell for number in chosen for cell in range(cells)]
    return {
        key: value[keep] if isinstance(value, torch.Tensor) else [value[i] for i in keep]
        for key, value in whole.items()
    }


def logged(model: RagStateTransition) -> dict[str, torch.Tensor]:
    """The values that the model logs from now on, latest under each name."""
    seen: dict[str, torch.Tensor] = {}
    model.log = lambda name, value, *args, **kwargs: seen.__setitem__(name, value)
    return seen


def watch_transformer_input(model: RagStateTransition, seen: dict) -> None:
    """Keep what reaches the transformer under ``seen["input"]``."""
    model.transformer_backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(input=kwargs["inputs_embeds"]), with_kwargs=True
    )
