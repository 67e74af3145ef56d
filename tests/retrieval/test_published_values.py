"""The method authors' own numbers, recomputed with the room alone: everything up to the transformer's input.

The fixtures hold one forward and backward pass of their model each; the whole model is compared elsewhere.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from state_rag.retrieval.neighbours import distinct, top_neighbours
from state_rag.retrieval.selector import CandidateSelector

FOLDER = Path(os.environ.get("STATE_RAG_PARITY_DIR", Path(__file__).parents[2] / ".." / "shared" / "parity"))
FIXTURES = sorted(FOLDER.glob("*.npz"))
PUBLISHED_NAMES = {
    "norm": "context_input_norm",
    "scorer_in": "cell_pert_scorer.0",
    "scorer_out": "cell_pert_scorer.3",
    "project": "final_project_genept_emb.0",
}


def load(mode):
    found = [path for path in FIXTURES if path.name.startswith(mode)]
    if not found:
        pytest.skip(f"no {mode} fixtures in {FOLDER}")
    for path in found:
        with np.load(path) as arrays:
            yield {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def apply(values, layer, given):
    return functional.linear(given, values[f"weights/{layer}.weight"], values[f"weights/{layer}.bias"])


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def select(values):
    n_sets, n_cells, n_candidates = values["outputs/include"].shape
    selector = CandidateSelector(values["outputs/context"].shape[-1], score_scale="batch", inference="sample").eval()
    weights = {
        f"{ours}.{kind}": values[f"weights/{theirs}.{kind}"]
        for ours, theirs in PUBLISHED_NAMES.items()
        for kind in ("weight", "bias")
    }
    selector.load_state_dict(selector.state_dict() | weights)
    embeddings, rows = values["inputs/embeddings"], values["inputs/pert_index"]
    index, _ = top_neighbours(embeddings[rows], embeddings, n_candidates, rows)
    used, local = distinct(index)
    cells = apply(values, "basal_encoder.0", values["inputs/ctrl_cell_emb"]).view(n_sets, n_cells, -1)
    encoded = (apply(values, "pert_encoder.0", embeddings[which]) for which in (rows, used))
    return selector.select(cells, *encoded, local, noise=values["inputs/gumbel_noise"])


@pytest.mark.parametrize("mode", ["vanilla", "differentiable"])
def test_the_retrieved_candidates_are_the_authors(mode):
    for values in load(mode):
        embeddings, rows, topk = (values[key] for key in ("inputs/embeddings", "inputs/pert_index", "outputs/topk"))
        index, _ = top_neighbours(embeddings[rows], embeddings, topk.shape[-1], rows)
        assert torch.equal(index.unsqueeze(1).expand_as(topk), topk)


def test_scores_choices_context_and_sparsity_are_the_authors():
    for values in load("differentiable"):
        selection = select(values)
        assert relative(selection.scores, values["outputs/scores"]) < 1e-5
        assert torch.equal(selection.include, values["outputs/include"].round())
        assert relative(selection.context, values["outputs/context"]) < 1e-5
        assert selection.sparsity.item() == pytest.approx(values["outputs/sparsity"].item(), rel=1e-6)
