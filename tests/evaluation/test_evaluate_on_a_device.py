"""A whole evaluation with its distances on another device than the CPU."""

from unittest import mock

import numpy as np
import pytest
import torch

from state_rag.effects.conditions import Columns, open_pair
from state_rag.evaluation import evaluate
from state_rag.evaluation.evaluate import Settings, evaluate_pair
from state_rag.metrics.clouds import pad
from tests.evaluation import made_up


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    run = made_up.make_run(folder / "runs" / "a", made_up.make_screen(folder / "screen", perturbations=8), accuracy=0.5)
    return run / "eval_last.ckpt"


def evaluate_on(device, folder):
    pair = open_pair(folder / "adata_pred.h5ad", folder / "adata_real.h5ad", Columns())
    return evaluate_pair(pair, settings=Settings(device=device, batch=3), progress=False).table


def assert_same(table, expected):
    numbers = expected.select_dtypes("number").columns
    assert len(numbers) > 20
    np.testing.assert_allclose(table[numbers], expected[numbers], rtol=1e-4, atol=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_an_evaluation_on_a_gpu_gives_the_same_table(predictions):
    assert_same(evaluate_on("cuda", predictions), evaluate_on("cpu", predictions))


def test_an_evaluation_on_another_device_gives_the_same_table(on_pretend_gpu, predictions):
    there, here = on_pretend_gpu(evaluate_on, "pretend", predictions), evaluate_on("cpu", predictions)
    assert (there["w2_pca50"] != here["w2_pca50"]).any()  # it was computed there
    assert_same(there, here)


def evaluate_where_memory_ends(folder):
    """Evaluate on a device that is full from the second batch of distances on; return the table and what was said."""
    taken, said = [], []

    def take(clouds, device):
        taken.append(device.type)
        if device.type == "pretend" and len(taken) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")
        return pad(clouds, device)

    with (
        mock.patch.object(evaluate, "pad", take),
        mock.patch.object(evaluate.logger, "warning", lambda text, *values: said.append(text % values)),
    ):
        return evaluate_on("pretend", folder), taken, said


def test_a_full_gpu_does_not_end_an_evaluation(on_pretend_gpu, predictions):
    table, taken, said = on_pretend_gpu(evaluate_where_memory_ends, predictions)
    assert taken == ["pretend"] * 4 + ["cpu"] * 2  # real and predicted cells of two batches, the second one twice
    assert said == ["Distances are computed on the CPU from here on, since the GPU failed: CUDA out of memory."]
    assert_same(table, evaluate_on("cpu", predictions))
