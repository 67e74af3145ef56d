"""Forward cost of PT-RAG against STATE with equally wide perturbation features, at the published configuration.

Prints the ratio of floating-point operations (as `torch.utils.flop_counter` sees them) and, beside it, the
ratio of times, both sides measured in this run. Upstream's side is its unmodified class; ours has the flags of
`rag=ptrag`, which cost a little more than the published ones.

    python benchmarks/forward_cost.py [--device cuda] [--repeats 5]
"""

import argparse
import contextlib
import io
import platform
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from state_rag.retrieval.knowledge import Knowledge
from state_rag.upstream.swap import any_head_count

N_PERTURBATIONS, WIDTH, GENES, SETS, SET_SIZE, BATCHES = 2009, 1536, 2000, 64, 64, 48

MODEL = {
    "input_dim": GENES,
    "hidden_dim": 128,
    "output_dim": GENES,
    "pert_dim": WIDTH,
    "batch_dim": BATCHES,
    "batch_encoder": True,
    "transformer_backbone_key": "llama",
    "output_space": "gene",
    "gene_dim": GENES,
    "embed_key": "X_hvg",
    "cell_set_len": SET_SIZE,
    "n_encoder_layers": 1,
    "n_decoder_layers": 1,
    "control_pert": "non-targeting",
    "gene_decoder_bool": False,
}
BACKBONE = {
    "bidirectional_attention": False,
    "max_position_embeddings": SET_SIZE,
    "hidden_size": 128,
    "intermediate_size": 2784,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 58,
    "use_cache": False,
}


def build(device: str, changed: dict | None = None) -> tuple[torch.nn.Module, torch.nn.Module, dict]:
    """Return upstream's model, ours with some flags `changed`, and a batch."""
    from state.tx.models.state_transition import StateTransitionPerturbationModel

    from state_rag.model import RagStateTransition

    generator = torch.Generator().manual_seed(0)
    names = [f"GENE{number}" for number in range(N_PERTURBATIONS)]
    embeddings = torch.randn(N_PERTURBATIONS, WIDTH, generator=generator)
    flags = {
        "rag": True,
        "use_genept": True,
        "differentiable_rag": True,
        "retrieve_than_predict": True,
        "topk_rag": 32,
        "gumbel_sparsity_loss": True,
        "rag_fusion": "residual",
        "rag_score_similarity": True,
        "rag_query_dropout": 0.1,
        **(changed or {}),
    }
    with any_head_count(), contextlib.redirect_stdout(io.StringIO()):
        theirs = StateTransitionPerturbationModel(**MODEL, transformer_backbone_kwargs=dict(BACKBONE))
        bound = RagStateTransition.bound_to(Knowledge(names, {"text": embeddings}))
        ours = bound(**MODEL, transformer_backbone_kwargs=dict(BACKBONE), **flags)
    rows = torch.randint(N_PERTURBATIONS, (SETS,), generator=generator)
    batch = {
        "pert_name": [names[row] for row in rows for _ in range(SET_SIZE)],
        "pert_emb": embeddings[rows].repeat_interleave(SET_SIZE, 0).to(device),
        "ctrl_cell_emb": torch.rand(SETS * SET_SIZE, GENES, generator=generator).to(device),
        "pert_cell_emb": torch.rand(SETS * SET_SIZE, GENES, generator=generator).to(device),
        "batch": torch.randint(BATCHES, (SETS * SET_SIZE,), generator=generator).to(device),
    }
    for model in (theirs, ours):
        model.to(device).train()
        model.log = lambda *args, **kwargs: None
    return theirs, ours, batch


def flops(model: torch.nn.Module, batch: dict) -> int:
    """Count a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    return counter.get_total_flops()


def seconds(model: torch.nn.Module, batch: dict, training: bool) -> float:
    """Time a forward pass, or a training step without the optimiser."""
    cuda = batch["ctrl_cell_emb"].is_cuda
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    if training:
        model.training_step(batch, 0).backward()
        model.zero_grad(set_to_none=True)
    else:
        with torch.no_grad():
            model(batch)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    theirs, ours, batch = build(args.device)
    counts = flops(theirs, batch), flops(ours, batch)
    machine = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {machine}; {SETS} sets of {SET_SIZE}, base {N_PERTURBATIONS} x {WIDTH}, K=32")
    sides = f"STATE {counts[0] / 1e9:8.2f} G   PT-RAG {counts[1] / 1e9:8.2f} G"
    print(f"forward FLOPs   {sides}   ratio {counts[1] / counts[0]:.4f}")
    for training, label in ((False, "forward time"), (True, "training step")):
        seconds(theirs, batch, training), seconds(ours, batch, training)
        pairs = [(seconds(theirs, batch, training), seconds(ours, batch, training)) for _ in range(args.repeats)]
        ratio = statistics.median(our / their for their, our in pairs)
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"{label:14}  STATE {medians[0]:8.3f} s   PT-RAG {medians[1]:8.3f} s   ratio {ratio:.3f} (median of pairs)"
        )


if __name__ == "__main__":
    main()
