import numpy as np
import pytest

from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from tests.evidence.pretend_screen import QUICK, screen

TEST = [(0, p) for p in range(6, 12)]
"""Conditions that are predicted: half of the first context."""


def test_a_single_table_is_the_source_text_and_a_table_of_effects_is_refused_with_the_way_to_make_it():
    from types import SimpleNamespace

    drawn = screen()
    names, vectors = drawn.embeddings["text"]
    table = SimpleNamespace(names=names, vectors=vectors)
    found = Evidence(QUICK).fit(drawn.responses(TEST), table)
    engine = Evidence(QUICK).fit(drawn.responses(TEST), drawn.embeddings)
    assert np.array_equal(found.predict("line0", ["P6"]).mean, engine.predict("line0", ["P6"]).mean)
    with pytest.raises(StateRagError, match=r"not ndarray; `sr.evidence.from_effects\(effects\)` makes them"):
        Evidence(QUICK).fit(drawn.effects)


def test_sources_may_lack_perturbations_and_a_context_may_lack_controls():
    drawn = screen()
    names, vectors = drawn.embeddings["text"]
    tables = {"text": (names[3:], vectors[3:]), "sets": (names[:5], np.eye(5))}
    controls = {"line1": np.arange(15.0)}
    engine = Evidence(QUICK).fit(drawn.responses(TEST, controls=controls), tables)
    found = engine.predict("line0", ["P0", "P4", "P9"])
    assert np.isfinite(found.mean).all()
    assert found.sources == (("sets", "responses"), ("text", "sets", "responses"), ("text", "responses"))
