import logging
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from state_rag.cache import program_digest
from state_rag.engine.kept import fingerprint, kept_fit
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.engine.runs import QUICK

NAMES = [f"P{number}" for number in range(8)]
SETTINGS = replace(QUICK, calibrating=0)


def made(seed=0, **more):
    rng = np.random.default_rng(seed)
    labels = [(line, name) for line in "abc" for name in NAMES if (line, name) != ("a", "P0")]
    controls = {line: rng.uniform(size=6) for line in "abc"}
    cells = rng.integers(5, 50, len(labels))
    effects = rng.normal(size=(len(labels), 6))
    given = {"cells": cells, "controls": controls, **more}
    return Responses(effects, [line for line, _ in labels], [name for _, name in labels], **given)


def tables(seed=0):
    return {"text": (NAMES, np.random.default_rng(seed).normal(size=(8, 5)).astype(np.float32))}


@pytest.fixture
def fits(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "cache"))
    done, fitted = [], Evidence.fit

    def count(self, *args, **named):
        done.append(threading.get_ident())
        return fitted(self, *args, **named)

    monkeypatch.setattr(Evidence, "fit", count)
    return done


def answer(responses, embeddings, uses=("few-shot",), settings=SETTINGS):
    return kept_fit(responses, embeddings, uses, settings, progress=False).predict("a", ["P0", "?"], trust=False).mean


def test_a_second_fit_on_the_same_is_the_kept_one(fits, tmp_path):
    first, second = (answer(made(), tables()) for _ in range(2))
    assert len(fits) == 1
    np.testing.assert_array_equal(first, second)
    (kept,) = (tmp_path / "cache" / "evidence").glob("*.pt")
    assert kept.stat().st_size < 200_000
    direct = Evidence(SETTINGS).fit(made(), tables(), uses=["few-shot"]).predict("a", ["P0", "?"], trust=False)
    np.testing.assert_array_equal(first, direct.mean)


def test_without_embeddings_it_is_kept_too(fits):
    np.testing.assert_array_equal(answer(made(), {}), answer(made(), {}))
    assert len(fits) == 1


def test_whatever_a_fit_depends_on_changes_the_digest(monkeypatch):
    usual = (made(), tables(), ["few-shot"], SETTINGS)
    known = fingerprint(*usual)
    assert fingerprint(made(), tables(), ["few-shot"], SETTINGS) == known
    rng = np.random.default_rng(5)
    others = [
        (made(1), *usual[1:]),
        (made(cells=None), *usual[1:]),
        (made(controls={line: rng.uniform(size=6) for line in "abc"}), *usual[1:]),
        (usual[0], tables(1), *usual[2:]),
        (usual[0], {"text": (NAMES[::-1], tables()["text"][1])}, *usual[2:]),
        (usual[0], {}, *usual[2:]),
        (*usual[:2], None, SETTINGS),
        (*usual[:2], ["unseen"], SETTINGS),
        (*usual[:3], replace(SETTINGS, seed=1)),
    ]
    digests = [fingerprint(*other) for other in others]
    monkeypatch.setattr("state_rag.engine.kept.__version__", "another")
    digests.append(fingerprint(*usual))
    assert len({known, *digests}) == len(others) + 2


def test_a_damaged_kept_fit_is_made_again(fits, tmp_path):
    first = answer(made(), tables())
    (kept,) = (tmp_path / "cache" / "evidence").glob("*.pt")
    kept.write_bytes(b"no")
    np.testing.assert_array_equal(answer(made(), tables()), first)
    assert len(fits) == 2
    answer(made(), tables())
    assert len(fits) == 2


def test_where_nothing_can_be_kept_it_is_fitted_with_a_word(fits, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "file"))
    assert answer(made(), tables()).shape == (2, 6)
    assert "is not kept (STATE_RAG_CACHE)" in caplog.text
    assert os.path.isfile(tmp_path / "file")


def test_two_at_once_share_one_fit(fits, caplog):
    caplog.set_level(logging.INFO)
    found = [None, None]

    def run(place):
        found[place] = answer(made(), tables())

    threads = [threading.Thread(target=run, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(*found)
    assert len(fits) == 1
    assert "Another process fits the evidence engine on the same data" in caplog.text


def test_combinations_are_answered_alike_by_the_kept_fit(fits):
    one = made()
    pairs = [one.effects[8] + one.effects[9], one.effects[10] + one.effects[11]]
    cells = np.append(one.cells, [20, 20])
    labels = [*one.contexts, "b", "b"], [*one.perturbations, "P1+P2", "P3+P4"]
    responses = Responses(np.concatenate([one.effects, pairs]), *labels, cells=cells)
    first, second = (kept_fit(responses, tables(), ["few-shot"], SETTINGS, progress=False) for _ in range(2))
    assert len(fits) == 1
    for name in ("P1+P2", "P5+P6", "P3"):
        found, again = (engine.predict("b", [name], trust=False) for engine in (first, second))
        np.testing.assert_allclose(found.mean, again.mean, atol=1e-12)
        assert found.uses == again.uses


def test_a_change_anywhere_in_the_engines_source_makes_another_fit(monkeypatch, tmp_path):
    (tmp_path / "trust").mkdir()
    monkeypatch.setattr("state_rag.evidence.__file__", str(tmp_path / "__init__.py"))
    digests = []
    for name in ("__init__.py", "estimator.py", "trust/model.py"):
        (tmp_path / name).write_text("VALUE = 1\n")
        program_digest.cache_clear()
        digests.append(fingerprint(made(), tables(), None, SETTINGS))
    program_digest.cache_clear()
    assert len(set(digests)) == 3
