import numpy as np
import pytest
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.kriging import KernelWeights, Scene, apply, factorise, krige, nearest, solve
from state_rag.evidence.prior import prior_of
from state_rag.evidence.similarity import Similarity, Source
from tests.evidence.pretend_screen import screen


def problem(drawn, cells=None, embeddings=None):
    tables = drawn.embeddings if embeddings is None else embeddings
    bank = Bank(drawn.responses(cells=cells), [name for names, _ in tables.values() for name in names])
    similarity = Similarity(bank, [Source.of(k, *table, bank.perturbations) for k, table in tables.items()])
    torch.manual_seed(0)
    weights = KernelWeights(len(similarity.kernels))
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return bank, similarity, weights.requires_grad_(False)


def plain_prior(bank, scene, weights):
    """Prior means, in loops: a context's supports, drawn to the other contexts' mean, shrunken."""
    shrink = 1 / (1 + np.exp(-float(weights.shrink)))
    rows = scene.supports.tolist()
    effects = bank.effects.numpy()
    own = {c: [effects[r] for r in rows if bank.context[r] == c] for c in range(len(bank.contexts))}
    means = {c: np.mean(found, axis=0) for c, found in own.items() if found}
    prior = []
    for c in range(len(bank.contexts)):
        others = [mean for other, mean in means.items() if other != c]
        borrow = float(weights.borrow.exp()) if others else 0.0
        total = np.sum(own[c], axis=0) if own[c] else 0.0
        prior.append(shrink * (total + borrow * np.mean(others, axis=0) if others else total) / (len(own[c]) + borrow))
    prior.append(shrink * np.mean(list(means.values()), axis=0))
    return np.stack(prior)


def plain_kriging(bank, similarity, weights, scene):
    """A dense Gaussian process, element by element."""

    def covariance(a, b):
        (c, p), (d, q) = a, b
        kernels = similarity.stack(torch.tensor([p]), torch.tensor([q]), scene.context, scene.hidden)[:, 0, 0].double()
        total = sum(
            float(k) * (np.exp(float(f)) + np.exp(float(g)) * (c == d))
            for k, f, g in zip(kernels, weights.shared, weights.own, strict=True)
        )
        return total + np.exp(float(weights.same)) * (p == q)

    rows = scene.supports.tolist()
    conditions = [(int(bank.context[r]), int(bank.perturbation[r])) for r in rows]
    queries = [(scene.context, int(q)) for q in scene.queries]
    among = np.array([[covariance(a, b) for b in conditions] for a in conditions])
    noise = np.exp(float(weights.noise)) + np.exp(float(weights.scarcity)) * bank.scarcity[scene.supports].numpy()
    cross = np.array([[covariance(a, b) for b in queries] for a in conditions])
    prior = plain_prior(bank, scene, weights)
    deviations = np.stack([bank.effects[r].numpy() - prior[bank.context[r]] for r in rows])
    weight = np.linalg.inv(among + np.diag(noise)) @ cross
    mean = prior[scene.context] + weight.T @ deviations
    variance = [covariance(q, q) for q in queries] - (weight * cross).sum(0)
    return mean, variance


@pytest.mark.parametrize("context", [0, 2, -1])
def test_kriging_is_a_dense_gaussian_process(context):
    drawn = screen(perturbations=7, genes=5)
    cells = np.random.default_rng(1).integers(3, 50, size=(3, 7))
    bank, similarity, weights = problem(drawn, cells)
    asked = (bank.context == context) & (bank.perturbation >= 4)
    scene = Scene(context, torch.tensor([4, 6]), torch.nonzero(~asked).flatten())
    answer = krige(bank, scene, weights, similarity)
    mean, variance = plain_kriging(bank, similarity, weights, scene)
    found = apply(answer, bank, scene, weights, bank.effects[scene.supports])
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answer.variance, variance, rtol=1e-4, atol=1e-4)


def test_prior_means_are_those_of_the_definition_also_without_supports():
    drawn = screen(perturbations=5, genes=4)
    bank, _, weights = problem(drawn)
    for keep in (bank.context >= 0, bank.context != 1, (bank.context == 0) & (bank.perturbation < 2)):
        scene = Scene(1, torch.tensor([0]), torch.nonzero(keep).flatten())
        found = prior_of(bank, scene, weights, bank.effects[scene.supports]).means
        present = [c for c in range(3) if keep[bank.context == c].any()]
        expected = plain_prior(bank, scene, weights)
        for c in [*present, 1, -1]:
            np.testing.assert_allclose(found[c], expected[c], atol=1e-12)


def test_the_solve_has_the_right_gradient():
    torch.manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64)
    matrix = (root @ root.T + 3 * torch.eye(5)).requires_grad_()
    right = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(solve(matrix, right).square().sum(), (matrix, right))
    expected = torch.autograd.grad((torch.linalg.inv(matrix) @ right).square().sum(), (matrix, right))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours + ours.T if ours.shape == (5, 5) else ours,
            theirs + theirs.T if theirs.shape == (5, 5) else theirs,
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_matrix_that_is_not_quite_positive_still_has_a_factor():
    matrix = torch.ones(4, 4, dtype=torch.float64)
    matrix[0, 1] = matrix[1, 0] = 1.001
    factor = factorise(matrix)
    torch.testing.assert_close(factor @ factor.T, matrix, rtol=0.2, atol=0.2)


def test_variance_falls_with_supports_and_is_largest_where_nothing_is_known():
    drawn = screen()
    names, vectors = drawn.embeddings["text"]
    bank, similarity, weights = problem(drawn, embeddings={"text": (names[:-1], vectors[:-1])})
    last = torch.tensor([bank.number_of(names[-1])])
    few = torch.nonzero((bank.context == 0) & (bank.perturbation < 4)).flatten()
    many = torch.nonzero((bank.context < 2) & (bank.perturbation < 11)).flatten()
    query = torch.tensor([9])
    hidden = torch.zeros(len(bank.perturbations), dtype=torch.bool)
    hidden[last] = True
    variances = [krige(bank, Scene(2, query, rows), weights, similarity).variance for rows in (few, many)]
    unknown = krige(bank, Scene(2, last, many, hidden), weights, similarity).variance
    assert variances[1] < variances[0] <= unknown
    torch.testing.assert_close(unknown[0], weights.prior_variance())


def test_a_condition_of_few_cells_weighs_less():
    drawn = screen()
    weighed = []
    for cells in (100, 1):
        counts = np.full((3, 12), 100)
        counts[0, 3] = cells
        bank, similarity, weights = problem(drawn, counts)
        supports = torch.nonzero(bank.perturbation != 6).flatten()
        answer = krige(bank, Scene(0, torch.tensor([6]), supports), weights, similarity)
        weighed.append(float(answer.weight[supports == bank.row[0, 3]].abs()))
    assert weighed[1] < weighed[0]


def test_the_nearest_supports_are_those_of_highest_covariance_with_any_query():
    bank, similarity, weights = problem(screen(perturbations=20))
    scene = Scene(0, torch.tensor([3, 7]), torch.nonzero(bank.context != 0).flatten())
    covariance = krige(bank, scene, weights, similarity).covariance.amax(1)
    kept = nearest(bank, scene, weights, similarity, 9).supports
    assert torch.equal(kept, scene.supports[covariance.argsort(descending=True)[:9]].sort().values)
    assert nearest(bank, scene, weights, similarity, 40) is scene
