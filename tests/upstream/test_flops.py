import json

import pytest
import torch

from state_rag.upstream.flops import FlopStats


class Doubling(torch.nn.Module):
    """A model of one product, of two products where it retrieves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8, bias=False)
        self.retrieves = True

    def forward(self, batch, **kwargs):
        cells = self.layer(batch["cells"])
        return self.layer(cells) if self.retrieves else cells

    def predict_step(self, batch, batch_idx, **kwargs):
        return {"preds": self.forward(batch)}

    def without_retrieval(self):
        model = self

        class Off:
            def __enter__(self):
                model.retrieves = False

            def __exit__(self, *error):
                model.retrieves = True

        return Off()


def batch(cells: int) -> dict:
    return {"cells": torch.zeros(cells, 8), "pert_name": ["A"] * cells}


def test_operations_are_summed_over_sets_of_any_size_and_compared_with_no_retrieval(tmp_path):
    with FlopStats(tmp_path / "flops_stats.json") as stats:
        model = stats.counting(Doubling)()
        for number, cells in enumerate((4, 6)):
            model.predict_step(batch(cells), number)
    written = json.loads((tmp_path / "flops_stats.json").read_text())
    product = 2 * 8 * 8
    assert written["total_flops"] == 2 * product * 10
    assert written["cells"] == 10
    assert written["flops_per_cell"] == 2 * product
    assert written["flops_per_batch"] == product * 10
    assert written["parameters"] == 64
    assert written["ratio_to_no_retrieval"] == pytest.approx(2.0)


def test_nothing_is_written_when_the_prediction_fails(tmp_path):
    def predict_and_fail() -> None:
        with FlopStats(tmp_path / "flops_stats.json") as stats:
            stats.counting(Doubling)().predict_step(batch(4), 0)
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        predict_and_fail()
    assert list(tmp_path.iterdir()) == []
