import pytest

from state_rag.evidence.estimator import Evidence
from tests.evidence.combinations.pretend_pairs import made
from tests.evidence.pretend_screen import QUICK


@pytest.fixture(scope="module")
def engine():
    drawn, responses = made()
    return Evidence(QUICK).fit(responses, drawn.embeddings)
