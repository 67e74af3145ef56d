import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from tests.evidence.pretend_screen import QUICK, screen

NAMES = [f"P{p}" for p in range(12)] + ["unheard of"]


@pytest.mark.parametrize("complete", [True, False])
def test_an_engine_comes_back_from_json_and_safetensors_as_it_was(complete):
    drawn = screen()
    more = {}
    if complete:
        more = {"cells": np.full((3, 12), 9), "controls": {"line0": np.arange(15.0)}}
    responses = drawn.responses([(0, 7)], **more)
    engine = Evidence(QUICK).fit(responses, drawn.embeddings if complete else None)
    state = engine.to_state()
    tensors = load(save({name: tensor.contiguous() for name, tensor in state["tensors"].items()}))
    again = Evidence.from_state({"settings": json.loads(json.dumps(state["settings"])), "tensors": tensors})
    for context in ("line0", "a new line"):
        before, after = engine.predict(context, NAMES), again.predict(context, NAMES)
        assert np.array_equal(before.mean, after.mean)
        assert np.array_equal(before.variance, after.variance)
        assert before.sources == after.sources
    assert again.settings == engine.settings
    assert again.trained.keys() == engine.trained.keys()


def test_the_state_is_a_copy():
    engine = Evidence(QUICK).fit(screen().responses(), uses=["few-shot"])
    before = engine.predict("line0", ["P3"]).mean
    for tensor in engine.to_state()["tensors"].values():
        tensor.zero_()
    assert np.array_equal(engine.predict("line0", ["P3"]).mean, before)


def test_another_version_and_a_state_cut_short_are_refused():
    state = Evidence(QUICK).fit(screen().responses(), uses=["few-shot"]).to_state()
    with pytest.raises(StateRagError, match="of version 99, this program reads 1"):
        Evidence.from_state({**state, "settings": {**state["settings"], "version": 99}})
    with pytest.raises(StateRagError, match="a part of the state is missing"):
        Evidence.from_state({"settings": state["settings"], "tensors": {}})


def test_the_state_holds_tensors_and_plain_values_only():
    state = Evidence(QUICK).fit(screen().responses(), uses=["few-shot"]).to_state()
    assert set(state) == {"settings", "tensors"}
    assert all(type(tensor) is torch.Tensor for tensor in state["tensors"].values())


def test_a_state_without_profiles_of_responses_answers_alike():
    engine = Evidence(QUICK).fit(screen().responses([(0, 7)]), uses=["few-shot"])
    state = engine.to_state()
    assert state["tensors"].pop("similarity.profiles").shape[0] == len(engine.bank.contexts)
    before, after = (one.predict("line0", NAMES) for one in (engine, Evidence.from_state(state)))
    assert np.array_equal(before.mean, after.mean)
