"""Memory of a training step at STATE's default size: STATE, STATE+GenePT and PT-RAG, each in a process of its own.

Width 768, 8 layers, 16 sets of 512 cells, 2,000 genes, a base of 2,009 x 1,536, K = 32; forward, backward and Adam's
update, float32. Prints the most that was allocated on the GPU where there is one, else the peak of the process's
resident memory (which includes some 0.6 GiB of Python and torch), and the ratio to STATE.

    python benchmarks/memory_cost.py [--device cuda] [--set-size 512] [--sets 16]
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys

import torch

from state_rag.retrieval.knowledge import Knowledge

N_PERTURBATIONS, WIDTH, GENES, HIDDEN = 2009, 1536, 2000, 768

METHODS = {
    "STATE": {},
    "STATE+GenePT": {"use_genept": True},
    "PT-RAG": {
        "rag": True,
        "use_genept": True,
        "retrieve_than_predict": True,
        "differentiable_rag": True,
        "gumbel_sparsity_loss": True,
        "rag_fusion": "residual",
        "rag_score_similarity": True,
        "rag_query_dropout": 0.1,
    },
}


def step(method: str, sets: int, set_size: int, device: str) -> float:
    """Run two training steps and return the peak in GiB."""
    from state.tx.models.state_transition import StateTransitionPerturbationModel

    from state_rag.model import RagStateTransition

    torch.manual_seed(0)
    names = [f"GENE{number}" for number in range(N_PERTURBATIONS)]
    embeddings = torch.randn(N_PERTURBATIONS, WIDTH)
    flags = METHODS[method]
    base = RagStateTransition.bound_to(Knowledge(names, {"text": embeddings}))
    backbone = {
        "bidirectional_attention": True,
        "max_position_embeddings": set_size,
        "hidden_size": HIDDEN,
        "intermediate_size": 3072,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "head_dim": 64,
        "use_cache": False,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        model = (base if flags else StateTransitionPerturbationModel)(
            input_dim=GENES, hidden_dim=HIDDEN, output_dim=GENES, pert_dim=WIDTH, gene_dim=GENES, output_space="gene",
            embed_key="X_hvg", cell_set_len=set_size, n_encoder_layers=1, n_decoder_layers=1,
            control_pert="non-targeting", gene_decoder_bool=False, transformer_backbone_key="llama",
            transformer_backbone_kwargs=backbone, **flags,
        )  # fmt: skip
    model.to(device).train()
    model.log = lambda *args, **kwargs: None
    optimizer = torch.optim.Adam(model.parameters())
    rows = torch.randint(N_PERTURBATIONS, (sets,))
    batch = {
        "pert_name": [names[row] for row in rows for _ in range(set_size)],
        "pert_emb": embeddings[rows].repeat_interleave(set_size, 0).to(device),
        "ctrl_cell_emb": torch.rand(sets * set_size, GENES).to(device),
        "pert_cell_emb": torch.rand(sets * set_size, GENES).to(device),
        "batch": torch.zeros(sets * set_size, dtype=torch.long, device=device),
    }
    for number in range(2):  # Adam's state exists from the second step on
        model.training_step(batch, number).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure every method and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--set-size", type=int, default=512)
    parser.add_argument("--only", choices=list(METHODS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(step(args.only, args.sets, args.set_size, args.device)))
        return
    machine = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {machine}; {args.sets} sets of {args.set_size} cells, width {HIDDEN}, K=32")
    peaks: dict[str, float] = {}
    for method in METHODS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", method]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[method] = json.loads(printed.splitlines()[-1])
        print(f"{method:13} peak {peaks[method]:6.2f} GiB   ratio {peaks[method] / peaks['STATE']:.3f}", flush=True)


if __name__ == "__main__":
    main()
