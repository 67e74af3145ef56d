"""Whether the selector trusts an informative source of knowledge more than a random one, and what the latter costs.

PT-RAG (the preset `rag=ptrag`), small, trained on a simulated screen of three lines; of one line a third of the
perturbations are seen. Knowledge: the screen's own embeddings (of which a quarter mislead), a table of random vectors
of the same width, or both, the random one first. Printed for each seed, of the perturbations of that line: the mean
inclusion of what only one source proposes, of true module mates and of others, the learned terms, and the Pearson
correlation of predicted and measured effects of the unseen.

    python benchmarks/source_trust.py [--seeds 3] [--steps 2000]
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from memory_cost import METHODS

from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.table import unit_rows
from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge

LINES, HELD_OUT, CONTROL = ("k562", "rpe1", "hepg2"), "hepg2", "non-targeting"
GENES, WIDTH, CELLS, SETS, HIDDEN, K = 40, 24, 16, 8, 32, 10
SCREEN = {
    "n_perturbations": 48,
    "n_modules": 12,
    "n_genes": 60,
    "n_hvgs": GENES,
    "cells_per_condition": 32,
    "controls_per_line": 64,
    "gem_groups_per_line": 2,
    "lines": LINES,
    "embedding_width": WIDTH,
}
PRESET = {**METHODS["PT-RAG"], "topk_rag": K}
MODEL = {
    "input_dim": GENES,
    "hidden_dim": HIDDEN,
    "output_dim": GENES,
    "gene_dim": GENES,
    "pert_dim": WIDTH,
    "output_space": "gene",
    "embed_key": "X_hvg",
    "cell_set_len": CELLS,
    "n_encoder_layers": 1,
    "n_decoder_layers": 1,
    "dropout": 0.0,
    "control_pert": CONTROL,
    "gene_decoder_bool": False,
    "transformer_backbone_key": "llama",
}
BACKBONE = {
    "bidirectional_attention": True,
    "max_position_embeddings": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "use_cache": False,
}
VARIANTS = {"table": ("table",), "random": ("random",), "both": ("random", "table")}


class Screen:
    """A simulated screen: cells by condition, and two tables of knowledge."""

    def __init__(self, folder: Path, seed: int) -> None:
        paths = simulate_screen(folder, seed=seed, **SCREEN)
        self.rng = np.random.default_rng(seed)
        self.truth = json.loads(paths.truth.read_text())
        cells = ad.read_h5ad(paths.h5ad)
        self.values = np.asarray(cells.obsm["X_hvg"], np.float32)
        gene, line = (cells.obs[name].astype(str).to_numpy() for name in ("gene", "cell_line"))
        table = read_embeddings(paths.embeddings)
        self.names = sorted(table.names)
        self.rows = {(a, b): np.flatnonzero((line == a) & (gene == b)) for a in LINES for b in (*self.names, CONTROL)}
        drawn = self.rng.normal(size=(len(self.names), WIDTH))
        vectors = {"table": table.subset(self.names).vectors, "random": drawn.astype(np.float32)}
        self.blocks = {name: torch.from_numpy(unit_rows(rows)) for name, rows in vectors.items()}
        self.unseen = self.rng.permutation(self.names)[: 2 * len(self.names) // 3].tolist()
        held = {(HELD_OUT, name) for name in self.unseen}
        self.seen = [(a, b) for a in LINES for b in self.names if (a, b) not in held]

    def batch(self, conditions, rng) -> dict:
        """Return a set of cells of each condition, with controls of its line."""
        control = np.concatenate([rng.choice(self.rows[a, CONTROL], CELLS) for a, _ in conditions])
        cells = np.concatenate([rng.choice(self.rows[one], CELLS, replace=False) for one in conditions])
        return {
            "pert_name": [name for _, name in conditions for _ in range(CELLS)],
            "cell_type": [line for line, _ in conditions for _ in range(CELLS)],
            "pert_emb": torch.zeros(len(cells), 1),
            "ctrl_cell_emb": torch.from_numpy(self.values[control]),
            "pert_cell_emb": torch.from_numpy(self.values[cells]),
            "batch": torch.zeros(len(cells), dtype=torch.long),
        }

    def effect(self, name: str) -> np.ndarray:
        """Return the measured effect [G] of a perturbation in the line that is asked about."""
        perturbed, control = (self.values[self.rows[HELD_OUT, label]].mean(0) for label in (name, CONTROL))
        return perturbed - control


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            screen = Screen(Path(folder), seed)
        for variant in VARIANTS:
            start = time.perf_counter()
            told = measured(trained(screen, variant, seed, given.steps), screen, seed)
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
            print(f"seed {seed}, {variant}: {numbers} ({time.perf_counter() - start:.0f} s)", flush=True)


def trained(screen: Screen, variant: str, seed: int, steps: int) -> RagStateTransition:
    """Return a model that was trained with some sources."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    blocks = {name: screen.blocks[name] for name in VARIANTS[variant]}
    bound = RagStateTransition.bound_to(Knowledge(screen.names, blocks))
    with contextlib.redirect_stdout(io.StringIO()):
        model = bound(
            **MODEL,
            **PRESET,
            transformer_backbone_kwargs=dict(BACKBONE),
            rag_sources=[f"{name}={name}.npz" for name in blocks],
        )
    model.log = lambda *_, **__: None
    optimiser = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    for step in range(steps):
        conditions = [screen.seen[number] for number in rng.integers(len(screen.seen), size=SETS)]
        optimiser.zero_grad()
        model.training_step(screen.batch(conditions, rng), step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
    return model.eval()


@torch.no_grad()
def measured(model: RagStateTransition, screen: Screen, seed: int) -> dict[str, float]:
    """Return what is printed of a model."""
    rng = np.random.default_rng(seed + 1000)
    seen = []
    model.observer = seen.append
    batch = screen.batch([(HELD_OUT, name) for name in screen.names], rng)
    cells = model(batch).reshape(len(screen.names), CELLS, GENES)
    control = batch["ctrl_cell_emb"].reshape(len(screen.names), CELLS, GENES)
    effects = dict(zip(screen.names, (cells - control).mean(1).numpy(), strict=True))
    weights, proposed, rows = seen[0].weights.mean(1), seen[0].proposed, seen[0].rows.tolist()
    mates = [
        [screen.names[row] in screen.truth["mates"][query] for row in own]
        for query, own in zip(seen[0].queries, rows, strict=True)
    ]
    is_mate = torch.tensor(mates)
    found = {"mates": float(weights[is_mate].mean()), "others": float(weights[~is_mate].mean())}
    if proposed is not None:
        alone = proposed & (proposed.sum(-1, keepdim=True) == 1)
        for number, name in enumerate(model.knowledge.block_names):
            found[f"only {name} proposes"] = float(weights[alone[..., number]].mean())
        found |= {name: float(value) for name, value in model.retriever.facts().items() if "source" in name}
    alike = [np.corrcoef(effects[name], screen.effect(name))[0, 1] for name in screen.unseen]
    return {**found, "Pearson delta of the unseen": float(np.mean(alike))}


if __name__ == "__main__":
    main()
