"""The authors' fixtures: find them, build our model with their weights, run it on their inputs."""

import copy
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge
from state_rag.upstream.authors import our_name, our_state

FOLDER = Path(os.environ.get("STATE_RAG_PARITY_DIR", Path(__file__).resolve().parents[1].parent / "shared" / "parity"))


def fixture_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


@dataclass
class Fixture:
    """One forward and backward pass of the authors' model, and ours with the same weights."""

    settings: dict
    arrays: dict[str, np.ndarray]
    model: RagStateTransition

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {
            our_name(name.removeprefix(prefix)): self.tensor(name) for name in self.arrays if name.startswith(prefix)
        }

    def batch(self) -> dict:
        size = self.settings["model_kwargs"]["cell_set_len"]
        return {
            "pert_name": [f"GENE{row}" for row in self.arrays["inputs/pert_index"] for _ in range(size)],
            "ctrl_cell_emb": self.tensor("inputs/ctrl_cell_emb"),
            "batch": self.tensor("inputs/batch"),
            "pert_cell_emb": self.tensor("inputs/target"),
        }


def load(name: str) -> Fixture:
    settings = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = dict(stored)
    embeddings = torch.from_numpy(arrays["inputs/embeddings"])
    knowledge = Knowledge([f"GENE{row}" for row in range(len(embeddings))], {"text": embeddings})
    flags = {**settings["flags"], "rag_score_scale": "batch", "rag_inference": "sample"}
    if not flags["rag"]:
        flags.pop("retrieve_than_predict")
    model = RagStateTransition.bound_to(knowledge)(**copy.deepcopy(settings["model_kwargs"]), **flags)
    weights = our_state(
        {key.removeprefix("weights/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("weights/")}
    )
    lacking, surplus = model.load_state_dict(weights, strict=False)
    assert not surplus, surplus
    assert set(lacking) <= {"state_rag_format", "selector.score_std", "selector.score_batches"}, lacking
    model.eval()
    if model.settings.mode == "differentiable":
        model.selector.select = partial(model.selector.select, noise=torch.from_numpy(arrays["inputs/gumbel_noise"]))
    return Fixture(settings, arrays, model)
