import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.evidence.bank import Bank
from state_rag.evidence.similarity import Similarity, Source, principal_scores
from tests.evidence.pretend_screen import screen


def similarity_of(drawn, hidden=(), embeddings=None, powers=(1, 3)):
    tables = drawn.embeddings if embeddings is None else embeddings
    bank = Bank(drawn.responses(hidden), [name for names, _ in tables.values() for name in names])
    return bank, Similarity(bank, [Source.of(k, *table, bank.perturbations) for k, table in tables.items()], powers)


def everything(bank):
    return torch.arange(len(bank.perturbations))


def plain_cosine(a, b):
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length else 0.0


def plain_responses(drawn, hidden, context):
    """Cosines of responses outside a context, in loops: each context centred; a mean where all were measured there."""
    n = len(drawn.perturbations)
    measured = {c: [p for p in range(n) if (c, p) not in hidden] for c in range(len(drawn.contexts)) if c != context}
    expected = np.zeros((n, n))
    for p in range(n):
        for q in range(n):
            both = [c for c in measured if p in measured[c] and q in measured[c]]
            length = np.sqrt(sum(p in m for m in measured.values()) * sum(q in m for m in measured.values()))
            for c in both:
                centred = drawn.effects[c].astype(np.float32).astype(float)
                centred = centred - centred[measured[c]].mean(0)
                expected[p, q] += plain_cosine(centred[p], centred[q]) / length
    for p in range(n):
        if not any(p in m for m in measured.values()):
            expected[p, p] = 1
    return expected


@pytest.mark.parametrize("hidden", [(), {(0, 1), (1, 1), (2, 1), (1, 4)}])
def test_similarity_of_responses_is_that_of_the_definition(hidden):
    drawn = screen()
    bank, similarity = similarity_of(drawn, hidden)
    order = torch.tensor([bank.number_of(name) for name in drawn.perturbations])
    for context in (0, 1, -1):
        found = similarity.cosines(order, order, context)[-1]
        np.testing.assert_allclose(found, plain_responses(drawn, hidden, context), atol=1e-5)


def test_similarity_of_embeddings_is_their_cosine_and_kernels_are_its_powers():
    drawn = screen()
    vectors = np.random.default_rng(0).normal(size=(12, 6))
    bank, similarity = similarity_of(drawn, embeddings={"text": (drawn.perturbations, vectors)})
    rows = everything(bank)
    expected = np.array([[plain_cosine(a, b) for b in vectors] for a in vectors])
    stack = similarity.stack(rows, rows, 0)
    names = [
        f"{look}{source}{power}" for source in ("text", "responses") for look in ("", "coarse ") for power in ("", "^3")
    ]
    assert [kernel.name for kernel in similarity.kernels] == names
    np.testing.assert_allclose(stack[0], expected, atol=1e-5)
    np.testing.assert_allclose(stack[1], np.maximum(expected, 0) ** 3, atol=1e-5)


def test_embeddings_in_a_narrow_cone_are_centred_and_others_are_not():
    names = [f"P{number}" for number in range(40)]
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    wide = Source.of("text", names, vectors, names).vectors
    narrow = Source.of("text", names, vectors + 10, names).vectors
    np.testing.assert_allclose(wide, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
    assert (narrow @ narrow.T).mean() < 0.1


def test_a_source_that_does_not_know_a_perturbation_makes_it_like_itself_only():
    drawn = screen()
    names, vectors = drawn.embeddings["text"]
    bank, similarity = similarity_of(drawn, embeddings={"text": (names[1:], vectors[1:])})
    unknown, rows = bank.number_of("P0"), everything(bank)
    row = similarity.stack(rows, rows, 0)[0][unknown]
    assert row[unknown] == 1
    assert row.sum() == 1
    assert similarity.known(rows, 0)[0].tolist() == [number != unknown for number in range(len(rows))]


def test_a_vector_of_zeros_knows_nothing():
    source = Source.of("text", ["A", "B"], [[0.0, 0.0], [1.0, 0.0]], ["A", "B", "C"])
    assert source.known.tolist() == [False, True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_linear_kernels_are_positive_semi_definite_whatever_is_missing(seed, data):
    drawn = screen(seed % 7, contexts=3, perturbations=8)
    every = [(c, p) for c in range(3) for p in range(8)]
    hidden = set(data.draw(st.lists(st.sampled_from(every), max_size=18)))
    known = sorted(data.draw(st.sets(st.integers(0, 7))))
    names, vectors = drawn.embeddings["text"]
    table = {"text": ([names[p] for p in known], vectors[known].reshape(-1, vectors.shape[1]))}
    bank, similarity = similarity_of(drawn, hidden, table, powers=(1,))
    rows = everything(bank)
    for kernel in similarity.stack(rows, rows, data.draw(st.integers(-1, len(bank.contexts) - 1))):
        assert torch.linalg.eigvalsh(kernel.double()).min() > -1e-5
        np.testing.assert_allclose(kernel.diagonal(), 1, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2), st.integers(0, 11), st.floats(-5, 5))
def test_responses_in_the_context_asked_about_are_not_looked_at(context, perturbation, value):
    drawn = screen()
    bank, similarity = similarity_of(drawn)
    rows = everything(bank)
    before = similarity.stack(rows, rows, context)
    drawn.effects[context, perturbation] = value
    changed = similarity_of(drawn)[1].stack(rows, rows, context)
    assert torch.equal(before, changed)


def test_hidden_perturbations_have_no_responses():
    drawn = screen()
    bank, similarity = similarity_of(drawn)
    rows = everything(bank)
    hidden = rows == 3
    found = similarity.cosines(rows, rows, 0, hidden)[-1]
    assert found[3].tolist() == [float(number == 3) for number in range(len(rows))]


def test_one_context_has_no_responses_elsewhere():
    drawn = screen(contexts=1)
    bank, similarity = similarity_of(drawn)
    rows = everything(bank)
    assert torch.equal(similarity.cosines(rows, rows, 0)[-1], torch.eye(len(rows)))


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("text", np.ones((3, 2)), "shape \\(3, 2\\) for 2 names"),
        ("text", np.array([[1.0], [np.nan]]), "NaN or infinity"),
        ("responses", np.ones((2, 2)), "is taken by measured responses"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(name, matrix, message):
    with pytest.raises(StateRagError, match=message):
        Source.of(name, ["A", "B"], matrix, ["A", "B"])


def test_a_name_with_two_rows_is_refused_for_it_does_not_say_which_is_meant():
    with pytest.raises(StateRagError, match=r"'text': 1 names occur more than once \(P0\); keep one row"):
        Source.of("text", ["P0", "P1", "P0"], np.eye(3), ["P0", "P1"])


def test_a_coarse_look_is_the_cosine_of_principal_scores():
    drawn = screen(perturbations=40)
    vectors = np.random.default_rng(0).normal(size=(40, 35))
    bank, similarity = similarity_of(drawn, embeddings={"text": (drawn.perturbations, vectors)}, powers=(1,))
    lengths = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(lengths - lengths.mean(0), full_matrices=False)
    scores = (u * s)[:, :30]
    expected = np.array([[plain_cosine(a, b) for b in scores] for a in scores])
    rows = everything(bank)
    np.testing.assert_allclose(similarity.stack(rows, rows, 0)[1], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_principal_scores_are_those_of_a_singular_value_decomposition(shape):
    values = np.random.default_rng(0).normal(size=shape)
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    found = principal_scores(torch.from_numpy(values), 4).numpy()
    np.testing.assert_allclose(found @ found.T, (u * s)[:, :4] @ (u * s)[:, :4].T, atol=1e-9)


def test_equal_responses_have_no_direction():
    assert not principal_scores(torch.ones(5, 3, dtype=torch.float64), 3).any()
