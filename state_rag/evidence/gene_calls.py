"""Which genes a perturbation changes: a probability for each, its direction, and lists with a bounded share of errors.

What counts as changed is for the caller to say, as a sign for each gene of each measured condition (`welch_changes`
says it from the moments of cells). Two small networks, each taught by half the perturbations, tell it from what is
known of a gene before it is seen; either is judged on the other half, where isotonic regression (Zadrozny and Elkan
2002) turns scores into probabilities, and thresholds are chosen by the false discovery rate observed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from state_rag.errors import StateRagError
from state_rag.evidence.answering import Answered, answer_scene, blind_answer
from state_rag.evidence.bank import Bank
from state_rag.evidence.gene_features import ESTIMATES, FEATURES
from state_rag.evidence.kriging import apply
from state_rag.evidence.questions import ask
from state_rag.evidence.training import Trained
from state_rag.evidence.trust_episodes import calibration_scenes

if TYPE_CHECKING:
    from state_rag.evidence.estimator import Evidence

FEWEST, FEWEST_CHANGES = 20, 50
"""Conditions, and changed genes among them, that a use needs to be calibrated."""

OWN_FEATURES = 10
"""Features of a gene beside those of fusion: see `_features`."""

WIDTH, STEPS, BATCH, GENES, SUPPORTS = 32, 600, 4096, 512, 3000
"""Width of a network, its steps, gene-condition pairs of a step; genes of a scene and supports at most in teaching."""

POINTS = 400
"""Thresholds that are kept of all that were tried."""


@dataclass(frozen=True)
class GeneCalls:
    """Genes that perturbations change in a context.

    Attributes
    ----------
    context, perturbations, genes
        Names: of the context, the Q queries and the G genes.
    probability
        float64 [Q, G]: that the gene changes; NaN throughout for a query that no calibrated use answers.
    direction
        int8 [Q, G]: 1 for up, -1 for down, the sign of the predicted effect.
    called
        Bool [Q, G]: genes in the list for the wanted false discovery rate.
    """

    context: str
    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    probability: np.ndarray
    direction: np.ndarray
    called: np.ndarray


def welch_changes(effect: Any, variance: Any, cells: Any, control_variance: Any, control_cells: Any) -> np.ndarray:
    """Return int8 [N, G]: the sign of each change that Welch's test finds, 0 where it finds none.

    False discovery rate .05 within a condition (Benjamini and Hochberg 1995). Fewer than two cells on a side find none.

    Parameters
    ----------
    effect
        [N, G]: mean of a condition's cells minus mean of its controls.
    variance, control_variance
        [N, G]: unbiased, between the condition's cells and between its controls.
    cells, control_cells
        [N].
    """
    n, n_control = (np.asarray(count, dtype=float)[:, None] for count in (cells, control_cells))
    with np.errstate(divide="ignore", invalid="ignore"):
        mine, theirs = np.asarray(variance) / n, np.asarray(control_variance) / n_control
        t = np.asarray(effect) / np.sqrt(mine + theirs)
        freedom = (mine + theirs) ** 2 / (mine**2 / (n - 1) + theirs**2 / (n_control - 1))
        p = 2 * stats.t.sf(np.abs(t), freedom)
    p = np.where((np.asarray(effect) == 0) | ~np.isfinite(p) | (n < 2) | (n_control < 2), 1.0, p)
    adjusted = stats.false_discovery_control(p, axis=1, method="bh")
    return (np.sign(effect) * (adjusted < 0.05)).astype(np.int8)


class GeneCaller:
    """What is learned for one use.

    Parameters
    ----------
    arrays
        All of it, by name, as `fit_caller` makes it.
    """

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        self.arrays = dict(arrays)
        self._networks = []
        for half in (0, 1):
            prefix = f"{half}."
            network = _network(0)
            network.load_state_dict({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
            self._networks.append(network.requires_grad_(False))

    def scores(self, features: Tensor) -> Tensor:
        """Return the logits [...] of features [..., F]."""
        scaled = (features - self.arrays["centre"]) / self.arrays["deviation"]
        return (sum(network(scaled) for network in self._networks) / 2)[..., 0]

    def probabilities(self, scores: Tensor) -> np.ndarray:
        """Return calibrated probabilities of logits."""
        found: np.ndarray = np.interp(
            scores.numpy(), self.arrays["isotonic_x"].numpy(), self.arrays["isotonic_y"].numpy()
        )
        return found

    def threshold(self, fdr: float) -> float:
        """Return the lowest logit whose calls were wrong in at most a share of `fdr`; infinity where there is none."""
        allowed = self.arrays["levels"][self.arrays["rates"] <= fdr]
        return float(allowed.min()) if len(allowed) else float("inf")


class GeneCalling:
    """Callers of the uses of a fitted engine.

    Parameters
    ----------
    engine
        Fitted.
    changed
        int8 [N, G]: signs of the changes of the engine's measured conditions.
    callers
        Use -> what was learned; empty where the responses do not allow it.
    """

    def __init__(self, engine: Evidence, changed: Tensor, callers: Mapping[str, GeneCaller]) -> None:
        self.engine, self.changed, self.callers = engine, changed, dict(callers)

    @classmethod
    def fit(cls, engine: Evidence, changed: Any, seed: int = 0) -> GeneCalling:
        """Learn from the measured conditions of an engine that was fitted in this process.

        Parameters
        ----------
        engine
            Fitted, not read from a file: that lacks the fusions that have not seen half of the conditions.
        changed
            [N, G]: sign of each change, 0 for none; rows as in the engine's responses.
        seed
            Of all choices.

        Raises
        ------
        StateRagError
            For a table that does not fit, or an engine that was read from a file.
        """
        table = np.asarray(changed)
        if table.shape != tuple(engine.bank.effects.shape) or not np.isin(table, (-1, 0, 1)).all():
            raise StateRagError(
                f"gene calls: changes have shape {table.shape}; expected {tuple(engine.bank.effects.shape)}, a row a "
                "measured condition, of -1, 0 and 1."
            )
        signs = torch.from_numpy(table.astype(np.int8))
        callers = {}
        for use, learned in engine.trained.items():
            if learned.fusion is not None and not learned.blind:
                raise StateRagError(
                    "gene calls: they are learned right after the engine was fitted, with `calibrating` in its "
                    "settings; fit it again."
                )
            found = fit_caller(engine, use, learned, signs, seed)
            if found is not None:
                callers[use] = found
        return cls(engine, signs, callers)

    def calls(self, context: str, perturbations: Sequence[str], fdr: float = 0.1) -> GeneCalls:
        """Return the genes that perturbations change in a context.

        A condition that was itself measured is answered without its own response.

        Parameters
        ----------
        context, perturbations
            Names, as for `Evidence.predict`.
        fdr
            Share of the called genes, over all conditions, that do not change.

        Raises
        ------
        StateRagError
            If `fdr` is not between 0 and 1, or nothing could be calibrated.
        """
        if not 0 < fdr < 1:
            raise StateRagError(f"gene calls: a false discovery rate of {fdr} was asked for; give one between 0 and 1.")
        if not self.callers:
            raise StateRagError(
                f"gene calls: too few measured conditions to calibrate; {FEWEST} and {FEWEST_CHANGES} changed genes "
                "are needed."
            )
        bank, names = self.engine.bank, tuple(map(str, perturbations))
        shape = len(names), bank.effects.shape[1]
        probability, direction = np.full(shape, np.nan), np.zeros(shape, dtype=np.int8)
        called = np.zeros(shape, dtype=bool)
        for question in ask(bank, self.engine.similarity, bank.number_of_context(str(context)), names):
            caller, places = self.callers.get(question.use), list(question.places)
            if caller is None or not question.known:
                continue
            learned, limit = self.engine.trained[question.use], self.engine.settings.final_supports
            answered = answer_scene(bank, self.engine.similarity, question.scene, learned, limit, with_genes=True)
            scores = caller.scores(_features(bank, answered, learned, self.changed))
            probability[places] = caller.probabilities(scores)
            called[places] = (scores >= caller.threshold(fdr)).numpy()
            direction[places] = answered.values.sign().to(torch.int8).numpy()
        return GeneCalls(str(context), names, self.engine.responses.genes, probability, direction, called)

    def to_state(self) -> dict[str, Tensor]:
        """Return all of it as tensors by name, without the engine."""
        found = {
            f"{use}/{name}": value for use, caller in self.callers.items() for name, value in caller.arrays.items()
        }
        return {"changed": self.changed, **found}

    @classmethod
    def from_state(cls, engine: Evidence, state: Mapping[str, Tensor]) -> GeneCalling:
        """Return what `to_state` was called on, with the engine that it was fitted on."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            use, slash, name = key.partition("/")
            if slash:
                parts.setdefault(use, {})[name] = value
        return cls(engine, state["changed"], {use: GeneCaller(arrays) for use, arrays in parts.items()})


def fit_caller(engine: Evidence, use: str, learned: Trained, changed: Tensor, seed: int = 0) -> GeneCaller | None:
    """Return what the measured conditions teach about a use; None where they are too few.

    Parameters
    ----------
    engine
        Fitted.
    use, learned
        One of `USES`, and what the engine learned for it.
    changed
        int8 [N, G].
    seed
        Of all choices.
    """
    from sklearn.isotonic import IsotonicRegression  # brings pandas with it

    rng = np.random.default_rng(seed)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    bank = engine.bank
    for scene, rows in calibration_scenes(bank, use, engine.settings.calibrating, seed):
        limit = min(engine.settings.final_supports, SUPPORTS)
        answered = answer_scene(bank, engine.similarity, scene, learned, limit, with_genes=True)
        answered = blind_answer(answered, use, learned)
        genes = torch.from_numpy(np.sort(rng.permutation(changed.shape[1])[:GENES]))
        features = _features(bank, answered, learned, changed)[:, genes]
        truth = (changed[rows][:, genes] != 0).float()
        parts.append((features, truth, scene.queries[:, None].expand(truth.shape)))
    if sum(len(part[0]) for part in parts) < FEWEST:
        return None
    features, truth, query = (torch.cat([part[i].flatten(0, 1) for part in parts]) for i in range(3))
    # every second perturbation in random order, whatever the context
    half = torch.from_numpy(rng.permutation(len(bank.perturbations)) % 2)[query]
    if min(float(truth[half == side].sum()) for side in (0, 1)) < FEWEST_CHANGES / 2:
        return None
    arrays = {"centre": features.mean(0), "deviation": features.std(0).clamp_min(1e-6)}
    scaled = (features - arrays["centre"]) / arrays["deviation"]
    scores = torch.zeros(len(truth))
    for side in (0, 1):
        network = _taught(scaled[half == side], truth[half == side], seed + side)
        scores[half != side] = network(scaled[half != side])[:, 0]
        arrays |= {f"{side}.{name}": value for name, value in network.state_dict().items()}
    isotonic = IsotonicRegression(y_min=0, y_max=1).fit(scores.numpy(), truth.numpy())
    arrays["isotonic_x"] = torch.from_numpy(np.asarray(isotonic.X_thresholds_, dtype=np.float32))
    arrays["isotonic_y"] = torch.from_numpy(np.asarray(isotonic.y_thresholds_, dtype=np.float32))
    arrays["levels"], arrays["rates"] = _levels(scores, truth)
    return GeneCaller(arrays)


def _features(bank: Bank, answered: Answered, learned: Trained, changed: Tensor) -> Tensor:
    """Return float32 [Q, G, F]: the features of fusion, the predicted effect and what changed in the supports."""
    scene, seen, values = answered.scene, answered.seen, answered.values.float()
    assert seen is not None  # asked for
    signs = changed[scene.supports].float()
    here = bank.context[scene.supports] == scene.context
    often = (signs != 0).float()
    elsewhere = often[~here].mean(0) if not here.all() else often.mean(0)
    frequency = often[here].mean(0) if here.any() else elsewhere
    up, down = (
        apply(answered.answer, bank, scene, learned.weights, (sign * signs > 0).float()) for sign in (1.0, -1.0)
    )
    same = (bank.perturbation[scene.supports][None] == scene.queries[:, None]).float()
    donors = same / same.sum(1, keepdim=True).clamp_min(1)
    size = values.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)
    own = [
        values,
        values.abs(),
        values.abs() / size,
        size.log().expand_as(values),
        up,
        down,
        frequency.expand_as(values),
        elsewhere.expand_as(values),
        donors @ often,
        donors @ signs,
    ]
    return torch.cat([seen.estimates, seen.features, torch.stack(own)]).permute(1, 2, 0)


def _network(seed: int) -> nn.Sequential:
    # layers draw from torch's global stream, which belongs to the caller
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = len(ESTIMATES) + len(FEATURES) + OWN_FEATURES
        return nn.Sequential(
            nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
        )


def _taught(features: Tensor, truth: Tensor, seed: int) -> nn.Sequential:
    network = _network(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        some = torch.from_numpy(rng.integers(len(truth), size=min(BATCH, len(truth))))
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(features[some])[:, 0], truth[some]).backward()
        optimiser.step()
        schedule.step()
    return network.requires_grad_(False)


def _levels(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, and the share of errors, one more than were seen, among genes that reach each of them."""
    order = torch.argsort(scores, descending=True, stable=True)
    number = torch.arange(1, len(order) + 1)
    rates = ((1 - truth[order]).cumsum(0) + 1) / number
    kept = torch.from_numpy(np.unique(np.geomspace(1, len(order), POINTS).astype(np.int64))) - 1
    return scores[order][kept], rates[kept]
