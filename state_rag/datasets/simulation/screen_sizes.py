"""The parameters of a simulated screen."""

from dataclasses import dataclass
from typing import Any

from state_rag.errors import StateRagError

PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "n_perturbations": 24,
        "n_modules": 6,
        "n_genes": 80,
        "n_hvgs": 48,
        "cells_per_condition": 20,
        "controls_per_line": 80,
        "embedding_width": 32,
    },
    "demo": {},
    "replogle": {
        "n_perturbations": 2023,
        "n_modules": 200,
        "n_genes": 6642,
        "n_hvgs": 2000,
        "cells_per_condition": 10,
        "controls_per_line": 2500,
        "gem_groups_per_line": 24,
        "embedding_width": 1536,
        "counts_per_gene": 1.5,
    },
}
"""Sizes by name; `demo` is the defaults of `ScreenSizes`."""

MOST_SCALE = 10
"""Factor on effects, at most: beyond, counts are more than a generator draws."""


@dataclass(frozen=True)
class ScreenSizes:
    """The parameters of a screen, checked.

    Attributes
    ----------
    n_perturbations, n_modules
        Perturbations, and modules that they are spread over evenly.
    n_genes, n_hvgs
        Genes of `X` (the first of them are the perturbed genes) and, of those, genes of `X_hvg`.
    cells_per_condition, controls_per_line, gem_groups_per_line
        Cells of a perturbation in a line, control cells of a line, batches of a line.
    lines
        Cell lines.
    embedding_width
        Width of the text embeddings.
    misleading_fraction
        Fraction of the perturbations whose text resembles a module they do not belong to.
    active_fraction
        Fraction of the lines that a module acts in.
    flip_fraction
        Probability that a module acts with the opposite sign in a line.
    effect_scale
        Factor on all log fold changes except the knock-down of the perturbed gene itself.
    counts_per_gene
        Mean sequencing depth of a cell, divided by the number of genes.
    missing
        Number of perturbations that have cells but no embedding.
    unseen
        Number of perturbations that have an embedding (and a true effect) but no cells.
    seed
        Two screens with the same parameters hold the same data.

    Raises
    ------
    StateRagError
        If a parameter makes no screen.
    """

    n_perturbations: int = 60
    n_modules: int = 12
    n_genes: int = 300
    n_hvgs: int = 150
    cells_per_condition: int = 48
    controls_per_line: int = 320
    gem_groups_per_line: int = 3
    lines: tuple[str, ...] = ("k562", "rpe1", "jurkat", "hepg2")
    embedding_width: int = 64
    misleading_fraction: float = 0.25
    active_fraction: float = 0.75
    flip_fraction: float = 0.2
    effect_scale: float = 1.0
    counts_per_gene: float = 5.0
    missing: int = 0
    unseen: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that make no screen."""
        for name, low in (
            ("n_modules", 2),
            ("n_perturbations", 2),
            ("n_genes", 2),
            ("n_hvgs", 1),
            ("cells_per_condition", 1),
            ("controls_per_line", 1),
            ("gem_groups_per_line", 1),
            ("embedding_width", 2),
            ("missing", 0),
            ("unseen", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < low:
                raise StateRagError(f"{name}={getattr(self, name)}: expected at least {low}.")
        for name in ("misleading_fraction", "active_fraction", "flip_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise StateRagError(f"{name}={getattr(self, name)}: expected a fraction between 0 and 1.")
        if self.n_modules > self.n_perturbations:
            raise StateRagError(
                f"n_modules={self.n_modules} is more than n_perturbations={self.n_perturbations}: every module needs a "
                "perturbation. Lower n_modules."
            )
        if self.n_hvgs > self.n_genes:
            raise StateRagError(f"n_hvgs={self.n_hvgs} is more than n_genes={self.n_genes}. Lower n_hvgs.")
        if self.missing + self.unseen >= self.n_perturbations:
            raise StateRagError(
                f"missing={self.missing} and unseen={self.unseen} together leave no perturbation out of "
                f"n_perturbations={self.n_perturbations} that has both cells and an embedding. Lower them."
            )
        if self.counts_per_gene <= 0:
            raise StateRagError(f"counts_per_gene={self.counts_per_gene}: expected a positive number.")
        if not 0 <= self.effect_scale <= MOST_SCALE:
            raise StateRagError(f"effect_scale={self.effect_scale}: expected a number from 0 to {MOST_SCALE}.")
        if not self.lines or len(set(self.lines)) != len(self.lines) or not all(self.lines):
            raise StateRagError(f"lines={list(self.lines)}: expected one or more different cell line names.")
