"""What a simulated screen is made of before any cell is drawn: modules, effects and text embeddings.

Perturbations come in modules that share a function, and so an effect. How strongly a module acts, and with which
sign, differs by cell line. A text embedding says two things about a perturbation: what its description talks about
(its topic, loud) and what it does (its function, quiet). For most perturbations the topic is that of their own module.
For the misleading ones it is another module's, so that similarity of text brings them among neighbours whose function
they do not share.
"""

from dataclasses import dataclass

import numpy as np

_STEMS = (
    "TRNSYN",
    "RIBOSM",
    "PROTSM",
    "SPLICE",
    "MITORC",
    "COATOM",
    "CHAPER",
    "REPLIC",
    "POLTWO",
    "EXOSOM",
    "NUCPOR",
    "CHOLST",
    "LYSOSM",
    "GLYCAN",
    "KINETO",
    "CENTRO",
)
_TOPIC_SHARE, _FUNCTION_SHARE, _NOISE_SHARE = 0.55, 0.27, 0.18  # of an embedding's squared length
_AFFECTED_GENES = 0.15  # fraction of the genes that a module acts on
_FOLD_CHANGE = 0.8  # standard deviation of the natural-log fold change on those genes
_COMMON_SHARE = 0.5  # of a module's effect that all lines have in common
_OWN_SHARE = 0.12  # of a perturbation's effect that its module mates do not show
_KNOCK_DOWN = -1.5  # natural-log fold change of the perturbed gene itself, where it is measured


@dataclass(frozen=True)
class ScreenTruth:
    """The generating parameters of a screen of P perturbations in L lines on G genes, with M modules.

    Attributes
    ----------
    perturbations, genes, lines, modules
        Names; `modules` holds one stem per module, which the names of its perturbations start with.
    module_of, topic_of
        Module that a perturbation belongs to, and module that its text resembles, int `[P]`. They differ for the
        misleading perturbations only.
    gain
        Signed strength of a module in a line, `[M, L]`; 0 where the module is inactive.
    log_fold_change
        Natural-log fold change of the expression level, `[P, L, G]` float32.
    embeddings
        Text embeddings of unit length, `[P, D]` float32.
    """

    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    lines: tuple[str, ...]
    modules: tuple[str, ...]
    module_of: np.ndarray
    topic_of: np.ndarray
    gain: np.ndarray
    log_fold_change: np.ndarray
    embeddings: np.ndarray

    def mates(self, index: int) -> list[str]:
        """Return the perturbations that share the module of perturbation `index`, without itself."""
        same = self.module_of == self.module_of[index]
        return [name for i, name in enumerate(self.perturbations) if same[i] and i != index]

    def misleading(self, index: int) -> list[str]:
        """Return the perturbations whose text resembles that of perturbation `index` but whose module is another."""
        near = (self.topic_of == self.topic_of[index]) & (self.module_of != self.module_of[index])
        return [name for i, name in enumerate(self.perturbations) if near[i]]


def draw_truth(
    rng: np.random.Generator,
    *,
    n_perturbations: int,
    n_modules: int,
    n_genes: int,
    lines: tuple[str, ...],
    embedding_width: int,
    misleading_fraction: float,
    active_fraction: float,
    flip_fraction: float,
    effect_scale: float,
) -> ScreenTruth:
    """Draw the truth of a screen; see `screen_sizes.ScreenSizes` for the parameters.

    Every part has a random stream of its own, so that for instance another embedding width leaves the effects alone.
    """
    names_rng, text_rng, effect_rng = rng.spawn(3)
    module_of = np.arange(n_perturbations) * n_modules // n_perturbations
    modules = tuple(_STEMS[m] if m < len(_STEMS) else f"MODUL{m + 1:03d}G" for m in range(n_modules))
    member = [int(i - np.searchsorted(module_of, module_of[i])) + 1 for i in range(n_perturbations)]
    perturbations = tuple(f"{modules[module_of[i]]}{member[i]}" for i in range(n_perturbations))
    genes = perturbations[:n_genes] + tuple(f"GENE{i + 1:04d}" for i in range(n_genes - n_perturbations))

    topic_of = module_of.copy()
    for index in names_rng.choice(n_perturbations, round(misleading_fraction * n_perturbations), replace=False):
        topic_of[index] = (module_of[index] + names_rng.integers(1, n_modules)) % n_modules

    gain = _draw_gain(effect_rng, n_modules, len(lines), active_fraction, flip_fraction)
    return ScreenTruth(
        perturbations=perturbations,
        genes=genes,
        lines=tuple(lines),
        modules=modules,
        module_of=module_of,
        topic_of=topic_of,
        gain=gain,
        log_fold_change=_draw_effects(effect_rng, module_of, gain, n_genes, effect_scale),
        embeddings=_draw_embeddings(text_rng, module_of, topic_of, n_modules, embedding_width),
    )


def _draw_gain(
    rng: np.random.Generator, n_modules: int, n_lines: int, active_fraction: float, flip_fraction: float
) -> np.ndarray:
    """Return `[M, L]` signed strengths; a module is active in `active_fraction` of the lines, at least in one."""
    n_active = max(1, round(active_fraction * n_lines))
    gain = np.zeros((n_modules, n_lines))
    for module in range(n_modules):
        active = rng.choice(n_lines, n_active, replace=False)
        signs = np.where(rng.random(n_active) < flip_fraction, -1.0, 1.0)
        gain[module, active] = signs * rng.uniform(0.6, 1.4, n_active)
    return gain


def _sparse_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal values of standard deviation `_FOLD_CHANGE` on a random `_AFFECTED_GENES` of the entries."""
    return rng.normal(0.0, _FOLD_CHANGE, shape) * (rng.random(shape) < _AFFECTED_GENES)


def _draw_effects(
    rng: np.random.Generator, module_of: np.ndarray, gain: np.ndarray, n_genes: int, effect_scale: float
) -> np.ndarray:
    """Return natural-log fold changes `[P, L, G]`: module effect in the line, own effect, knock-down."""
    n_modules, n_lines = gain.shape
    n_perturbations = len(module_of)
    common = _sparse_normal(rng, (n_modules, 1, n_genes))
    local = _sparse_normal(rng, (n_modules, n_lines, n_genes))
    by_module = gain[:, :, None] * (np.sqrt(_COMMON_SHARE) * common + np.sqrt(1 - _COMMON_SHARE) * local)
    effects = np.empty((n_perturbations, n_lines, n_genes), dtype=np.float32)
    for index, module in enumerate(module_of):
        own = _sparse_normal(rng, (1, n_genes))
        strength = rng.uniform(0.7, 1.3)
        effects[index] = effect_scale * (
            strength * np.sqrt(1 - _OWN_SHARE) * by_module[module] + np.sqrt(_OWN_SHARE) * own
        )
    measured = np.arange(min(n_perturbations, n_genes))
    effects[measured, :, measured] = _KNOCK_DOWN
    return effects


def _draw_embeddings(
    rng: np.random.Generator, module_of: np.ndarray, topic_of: np.ndarray, n_modules: int, width: int
) -> np.ndarray:
    """Return unit vectors `[P, D]`: topic, function and a part of one's own, in the shares named above."""

    def directions(count: int) -> np.ndarray:
        vectors = rng.normal(size=(count, width))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    topics, functions, own = directions(n_modules), directions(n_modules), directions(len(module_of))
    vectors = (
        np.sqrt(_TOPIC_SHARE) * topics[topic_of]
        + np.sqrt(_FUNCTION_SHARE) * functions[module_of]
        + np.sqrt(_NOISE_SHARE) * own
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
