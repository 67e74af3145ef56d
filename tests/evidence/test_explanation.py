from dataclasses import replace

import numpy as np
import pytest

from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.explanation import SAME
from tests.evidence.pretend_screen import QUICK, screen

HIDDEN = [(0, p) for p in range(6, 12)]


@pytest.fixture(scope="module", params=[0, 6], ids=["kriging alone", "with fusion"])
def engine(request):
    drawn = screen()
    cells = np.arange(36).reshape(3, 12) + 1
    settings = replace(QUICK, episodes=request.param)
    return Evidence(settings).fit(drawn.responses(HIDDEN, cells=cells), drawn.embeddings)


@pytest.mark.parametrize("perturbation", ["P7", "P2"])
def test_prior_contributions_and_correction_add_up_to_the_prediction(engine, perturbation):
    found = engine.explain("line0", perturbation)
    predicted = engine.predict("line0", [perturbation]).mean[0]
    total = found.prior + sum(found.contributions[row] for row in range(len(found.weights))) + found.correction
    np.testing.assert_allclose(total, predicted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.prediction, predicted, rtol=1e-12, atol=1e-12)


def test_without_fusion_there_is_no_correction():
    drawn = screen()
    engine = Evidence(replace(QUICK, episodes=0)).fit(drawn.responses(HIDDEN), drawn.embeddings)
    np.testing.assert_allclose(engine.explain("line0", "P7").correction, 0, atol=1e-12)


def test_shares_of_the_effect_add_up_to_one(engine):
    prior, conditions, correction = engine.explain("line0", "P7").shares()
    assert abs(prior + conditions.sum() + correction - 1) < 1e-9


def test_each_condition_says_why_and_how_many_cells_it_has(engine):
    found = engine.explain("line0", "P7")
    assert (np.abs(found.weights[:-1]) >= np.abs(found.weights[1:])).all()
    for (context, perturbation), why, cells in zip(found.conditions, found.why, found.cells, strict=True):
        assert (why == SAME) == (perturbation == "P7")
        assert cells == 12 * int(context[-1]) + int(perturbation[1:]) + 1
    assert set(found.reasons) == {"text", "responses", SAME}
    np.testing.assert_allclose(sum(found.reasons.values()), 1, atol=1e-9)
    assert ("line0", "P7") not in found.conditions


def test_the_genes_that_a_condition_moves_most_come_first(engine):
    found = engine.explain("line0", "P7")
    sizes = dict(zip(found.genes, np.abs(found.contributions[0]), strict=True))
    assert found.top_genes(0, 3) == sorted(sizes, key=lambda gene: -sizes[gene])[:3]


def test_cells_are_unknown_where_nobody_counted():
    engine = Evidence(QUICK).fit(screen().responses(HIDDEN), uses=["few-shot"])
    assert np.isnan(engine.explain("line0", "P7").cells).all()


def test_there_is_nothing_to_explain_where_nothing_is_known(engine):
    with pytest.raises(StateRagError, match="unheard of has no response in another context than line0"):
        engine.explain("line0", "unheard of")
