import pytest
import torch

from state_rag.evidence import kriging
from state_rag.evidence.conjugate import Parts, conjugate_solve
from state_rag.evidence.kriging import Scene, krige
from tests.evidence.pretend_screen import screen
from tests.evidence.test_kriging import problem


def parts(n_distinct=12, n_supports=40, noise=0.3, own=1.0):
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(n_distinct, n_distinct, generator=generator, dtype=torch.float64) for _ in range(2)]
    at = torch.randint(n_distinct, (n_supports,), generator=generator)
    context = torch.randint(3, (n_supports,), generator=generator)
    shared, local = (f @ f.T / n_distinct for f in factors)
    same = torch.tensor(0.2, dtype=torch.float64)
    return Parts(shared, own * local, same, torch.full((n_supports,), noise, dtype=torch.float64), at, context)


def dense(given):
    """The covariance, element by element."""
    n = len(given.at)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            p, q = given.at[i], given.at[j]
            matrix[i, j] = given.shared[p, q] + given.same * (p == q)
            if given.context[i] == given.context[j]:
                matrix[i, j] += given.own[p, q]
            if i == j:
                matrix[i, j] += given.noise[i]
    return matrix


def test_a_product_is_that_of_the_whole_covariance():
    given, vectors = parts(), torch.randn(40, 3, dtype=torch.float64)
    torch.testing.assert_close(given.times(vectors), dense(given) @ vectors)
    torch.testing.assert_close(given.diagonal(), dense(given).diagonal())


def test_the_solution_is_that_of_the_whole_covariance():
    given, right = parts(), torch.randn(40, 3, dtype=torch.float64)
    right[:, 1] = 0
    torch.testing.assert_close(
        conjugate_solve(given, right), torch.linalg.solve(dense(given), right), rtol=1e-7, atol=1e-7
    )


def test_a_covariance_that_is_not_positive_is_left_to_others():
    assert conjugate_solve(parts(noise=0.01, own=-5.0), torch.randn(40, 2, dtype=torch.float64)) is None


@pytest.mark.parametrize("n_queries", [1, 3])
def test_few_queries_are_answered_as_many_are(monkeypatch, n_queries):
    bank, similarity, weights = problem(screen())
    rows = torch.arange(4, len(bank))
    scene = Scene(int(bank.context[0]), bank.perturbation[:n_queries], rows)
    direct = krige(bank, scene, weights, similarity)
    monkeypatch.setattr(kriging, "MANY_SUPPORTS", 0)
    few = krige(bank, scene, weights, similarity)
    torch.testing.assert_close(few.weight, direct.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(few.variance, direct.variance, rtol=1e-4, atol=1e-5)
