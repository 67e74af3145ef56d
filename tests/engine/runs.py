"""A small screen and an evidence run on it, for the tests of this room."""

from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.splits import write_split
from state_rag.engine.fitting import fit
from state_rag.evidence.training import Settings

QUICK = Settings(steps=8, episodes=6, judging=2, fusion_steps=10)
SIZES = {
    "n_perturbations": 12,
    "n_modules": 3,
    "n_genes": 40,
    "n_hvgs": 24,
    "cells_per_condition": 12,
    "controls_per_line": 30,
    "embedding_width": 16,
    "gem_groups_per_line": 2,
    "lines": ("k562", "rpe1", "hepg2"),
}


def make_run(folder, **split):
    """Write screen, split and run into a folder; return the screen, the split's path and the run's folder."""
    screen = simulate_screen(folder, seed=2, **SIZES)
    path = write_split(screen.h5ad, "hepg2", output=folder / "split.toml", **split).path
    fit(path, folder / "evidence", embeddings=screen.embeddings, settings=QUICK, progress=False)
    return screen, path, folder / "evidence"
