"""Training for one use: the numbers of the covariance, then fusion, both on episodes of that use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from state_rag.evidence.bands import Spread, banded
from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import NEW_CONTEXT, USES, Episodes
from state_rag.evidence.fusion import Example, Fusion, effect_loss, judge, train_fusion
from state_rag.evidence.gene_features import ESTIMATES, FEATURES, GeneFeatures, gene_features
from state_rag.evidence.kriging import Answer, KernelWeights, Scene, apply, krige
from state_rag.evidence.own_gene import OwnGene, OwnRows, learn_own_gene, own_rows, same_name_told
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.source_choice import useless_sources
from state_rag.evidence.source_weights import without_sources

KRIGING = ESTIMATES[0]
"""The estimate that is used where nothing beats it."""

MARGIN = 0.002
"""Correlation by which fusion must win in a hidden context: few contexts judge, and the next one is another."""

BAND_GENES = 2048
"""Genes that bands are learned from, at most."""

BAND_SHARE, BAND_RATE = 3, 0.1
"""Steps of kriging for each one on bands, and the rate of these."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


@dataclass(frozen=True)
class Settings:
    """How the engine is trained.

    Attributes
    ----------
    seed
        Of all choices.
    steps, rate
        Of Adam on the numbers of the covariance; a third as many follow on bands of directions.
    max_supports
        Supports of an episode, at most.
    final_supports
        Supports of a prediction, at most; above it, those with the highest covariance with a query.
    episodes, judging
        Episodes that fusion is made from, and how many of them judge instead of train; 0 episodes: no fusion. As many
        others judge whether each of several sources helps.
    fusion_steps
        Steps of fusion's training.
    episode_queries, episode_genes
        Queries and genes kept of each of these, at most.
    powers
        Powers of each source's cosines that are kernels.
    calibrating
        Measured conditions, predicted without themselves, that calibrate how far predictions can be trusted, for each
        use at most; 0 for no calibration.
    """

    seed: int = 0
    steps: int = 250
    rate: float = 0.03
    max_supports: int = 1200
    final_supports: int = 5_000
    episodes: int = 80
    judging: int = 16
    fusion_steps: int = 800
    episode_queries: int = 32
    episode_genes: int = 512
    powers: tuple[int, ...] = (1, 2, 4)
    calibrating: int = 600


@dataclass
class Trained:
    """What was learned for one use.

    Attributes
    ----------
    weights
        Numbers of the covariance.
    fusion
        Correction gene by gene; None where it does not win or was not made.
    estimate
        The estimate that is used without fusion, one of `ESTIMATES`.
    calibration
        Mean squared error of a gene for one unit of kriging variance, as episodes that judge say.
    scores
        Mean correlation over genes in episodes that judge, by method.
    own_gene
        Correction of the effect on the perturbed gene itself; None where it does not help or was not made.
    blind
        Two fusions for those conditions that each has not learned from (`is_blind`), by which trust is calibrated;
        not kept.
    """

    weights: KernelWeights
    fusion: Fusion | None = None
    estimate: str = KRIGING
    calibration: float = 1.0
    scores: dict[str, float] = field(default_factory=dict)
    own_gene: OwnGene | None = None
    blind: tuple[Fusion, ...] = ()


@dataclass(frozen=True)
class _SeenOwn:
    """Own genes of an episode's queries: of which, what is seen, what rows of the same name tell, and the truth."""

    scene: Scene
    rows: torch.Tensor
    seen: GeneFeatures
    told: torch.Tensor
    truth: torch.Tensor


def train(
    bank: Bank, similarity: Similarity, use: str, settings: Settings, progress: Progress | None = None
) -> Trained | None:
    """Return what episodes of a use teach; None where the responses allow no such episode.

    Parameters
    ----------
    bank, similarity
        Measured responses and the kernels of their perturbations.
    use
        One of `USES`.
    settings
        How long, and from which seed.
    progress
        Told about each step.
    """
    episodes = Episodes(bank, use, settings.max_supports)
    if not episodes.contexts:
        return None
    say = progress or (lambda *_: None)
    # each use has its own stream, so that what one learns does not hang on which others are trained
    streams = np.random.SeedSequence([settings.seed, USES.index(use)]).spawn(4)
    weights = _train_weights(bank, similarity, episodes, settings, np.random.default_rng(streams[0]), use, say)
    if len(similarity.sources) > 1:
        judging = np.random.default_rng(streams[2])
        useless = useless_sources(bank, similarity, episodes, weights, settings.judging, judging)
        if useless:
            again = np.random.default_rng(streams[0])
            weights = _train_weights(bank, similarity, episodes, settings, again, use, say, without=useless)
    if settings.steps >= BAND_SHARE:
        _train_bands(bank, similarity, episodes, weights, settings, np.random.default_rng(streams[3]), use, say)
    if not settings.episodes:
        return Trained(weights)
    episodes = Episodes(bank, use, settings.max_supports, settings.episode_queries)
    rng = np.random.default_rng(streams[1])
    examples, own = _examples(bank, similarity, episodes, weights, settings, rng, use, say)
    judges, others = _judges(examples, use, settings.judging)
    fusion = train_fusion(others or judges, settings.seed, settings.fusion_steps)
    found = _choose(weights, fusion, judges, MARGIN if use in NEW_CONTEXT else 0.0)
    found.own_gene = _own_gene(bank, use, found, own)
    if found.fusion is not None and settings.calibrating:
        found.blind = _blind(bank, examples, use, settings)
    return found


def is_blind(half: int, use: str, context: int, named: torch.Tensor) -> torch.Tensor:
    """Tell bool [Q] which conditions of a context, by numbers of names, one of the two blind fusions never saw.

    Where a whole context is hidden, each is blind to every second context, otherwise to every second perturbation.
    """
    place = torch.full_like(named, context) if use in NEW_CONTEXT else named
    return place % 2 == half


def _blind(bank: Bank, examples: list[Example], use: str, settings: Settings) -> tuple[Fusion, ...]:
    """Return fusions of half the steps, each from the rows that it is not blind to; none where one has no rows."""
    found = []
    for half in (0, 1):
        own = []
        for example in examples:
            assert example.queries is not None  # of `_examples`
            keep = ~is_blind(half, use, example.context, bank.named[example.queries])
            if keep.any():
                seen = GeneFeatures(example.seen.estimates[:, keep], example.seen.features[:, keep])
                own.append(Example(seen, example.truth[keep], example.context, example.queries[keep]))
        if not own:
            return ()
        found.append(train_fusion(own, settings.seed, max(1, settings.fusion_steps // 2)))
    return tuple(found)


def _train_weights(
    bank: Bank,
    similarity: Similarity,
    episodes: Episodes,
    settings: Settings,
    rng: np.random.Generator,
    use: str,
    say: Progress,
    without: tuple[str, ...] = (),
) -> KernelWeights:
    weights = KernelWeights(len(similarity.kernels), bank.axes)
    if without:
        # as if they had never been given
        untaught = weights
        weights = without_sources(weights, similarity, without)
        weights.same, weights.noise = untaught.same, untaught.noise
    optimiser = torch.optim.Adam(weights.parameters(), lr=settings.rate)
    effects = bank.effects_on_others
    for step in range(settings.steps):
        scene, truth = episodes.draw(rng)
        answer = krige(bank, scene, weights, similarity, with_bands=False)
        genes = _some_genes(bank, settings, rng)
        predicted = apply(answer, bank, scene, weights, effects[scene.supports][:, genes])
        optimiser.zero_grad()
        effect_loss(predicted, effects[truth][:, genes]).backward()
        optimiser.step()
        say(f"{use}: kriging", step + 1, settings.steps)
    return weights.requires_grad_(False)


def _train_bands(
    bank: Bank,
    similarity: Similarity,
    episodes: Episodes,
    weights: KernelWeights,
    settings: Settings,
    rng: np.random.Generator,
    use: str,
    say: Progress,
) -> None:
    """Learn the numbers of each band of directions, in place; all others stay.

    Directions are those of an episode's supports, since those of all conditions would have seen what is hidden. Where
    further episodes say that no bands do as well, there are none.
    """
    genes = torch.from_numpy(np.sort(rng.permutation(bank.effects.shape[1])[:BAND_GENES]))
    effects = bank.effects_on_others[:, genes]

    def episode() -> tuple[Answer, Spread, torch.Tensor]:
        scene, truth = episodes.draw(rng)
        spread = Spread(bank, scene, weights, effects[scene.supports])
        return krige(bank, scene, weights, similarity), spread, effects[truth]

    weights.bands.requires_grad_(True)
    optimiser = torch.optim.Adam([weights.bands], lr=BAND_RATE)
    steps = settings.steps // BAND_SHARE
    for step in range(steps):
        answer, spread, truth = episode()
        optimiser.zero_grad()
        effect_loss(banded(answer, spread), truth).backward()
        optimiser.step()
        say(f"{use}: bands", step + 1, steps)
    weights.bands.requires_grad_(False)
    gain = 0.0
    for _ in range(max(settings.judging, 2)):
        answer, spread, truth = episode()
        plain = banded(replace(answer, by_band=None), spread)
        gain += float(effect_loss(plain, truth) - effect_loss(banded(answer, spread), truth))
    if gain <= 0:
        weights.bands.zero_()


def _some_genes(bank: Bank, settings: Settings, rng: np.random.Generator) -> torch.Tensor:
    """Return the columns that an episode looks at, ascending."""
    return torch.from_numpy(np.sort(rng.permutation(bank.effects.shape[1])[: settings.episode_genes]))


def _examples(
    bank: Bank,
    similarity: Similarity,
    episodes: Episodes,
    weights: KernelWeights,
    settings: Settings,
    rng: np.random.Generator,
    use: str,
    say: Progress,
) -> tuple[list[Example], list[_SeenOwn]]:
    """Return the examples of fusion, and what is seen of the queries' own genes."""
    examples, own = [], []
    effects = bank.effects_on_others
    for number in range(settings.episodes):
        scene, truth = episodes.draw(rng)
        spread = Spread(bank, scene, weights, effects[scene.supports])
        answer = krige(bank, scene, weights, similarity)
        seen = gene_features(answer, spread, similarity)
        genes = _some_genes(bank, settings, rng)
        examples.append(Example(seen.of_genes(genes), effects[truth][:, genes].float(), scene.context, scene.queries))
        rows, genes, wanted = own_rows(bank, scene, truth)
        told = same_name_told(bank, scene, answer.weight, rows)
        at_own = GeneFeatures(*(part[:, rows, genes][:, None] for part in (seen.estimates, seen.features)))
        own.append(_SeenOwn(scene, rows, at_own, told, wanted))
        say(f"{use}: fusion", number + 1, settings.episodes)
    return examples, own


def _own_gene(bank: Bank, use: str, learned: Trained, own: list[_SeenOwn]) -> OwnGene | None:
    found = []
    for one in own:
        if learned.fusion is not None:
            predicted = learned.fusion(one.seen)
        else:
            predicted = one.seen.estimates[ESTIMATES.index(learned.estimate)]
        found.append(OwnRows(one.scene, one.rows, predicted[0].double() + one.told, one.truth))
    return learn_own_gene(bank, use, found)


def _judges(examples: list[Example], use: str, count: int) -> tuple[list[Example], list[Example]]:
    """Return the examples that judge fusion, and those that it learns from.

    Where a whole context is hidden, the judges are a quarter of the contexts, which fusion then never saw: what it
    learns of a context's genes would help it with other episodes of that context, and with no new one.
    """
    contexts = sorted({example.context for example in examples})
    if use not in NEW_CONTEXT or len(contexts) < 3:
        return examples[:count], examples[count:]
    chosen = set(contexts[::4])
    judges = [example for example in examples if example.context in chosen]
    return judges, [example for example in examples if example.context not in chosen]


def _choose(weights: KernelWeights, fusion: Fusion, judges: list[Example], margin: float) -> Trained:
    scores = judge(fusion, judges)
    best = max(ESTIMATES, key=lambda name: scores[name] + (margin if name == KRIGING else 0.0))
    wins = scores["fusion"] > scores[best] + margin
    chosen = fusion if wins else None
    return Trained(weights, chosen, best, _calibration(judges, chosen, ESTIMATES.index(best)), scores)


def _calibration(judges: list[Example], fusion: Fusion | None, estimate: int) -> float:
    """Return the mean squared error over the mean variance of the episodes that judge."""
    error = variance = 0.0
    for example in judges:
        predicted = fusion(example.seen) if fusion is not None else example.seen.estimates[estimate]
        error += float((predicted - example.truth).square().mean(1).sum())
        variance += float(example.seen.features[FEATURES.index("variance"), :, 0].sum())
    return error / variance if variance > 0 else 1.0
