"""The names of the Python API and where each is defined, so that `import state_rag` loads none of it.

A name is imported when it is first looked at. This is the one place where a room's public face may name what lies in
a room above it (`state_rag.metrics.evaluate` is `state_rag.evaluation.api.evaluate`): the room itself imports nothing.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

NAMES: dict[str, dict[str, str]] = {
    "state_rag": {
        "load": "state_rag.inference.predictor:load",
        "StateRagError": "state_rag.errors:StateRagError",
        "datasets": "state_rag.datasets",
        "effects": "state_rag.effects",
        "embeddings": "state_rag.embeddings",
        "evidence": "state_rag.evidence",
        "metrics": "state_rag.metrics",
        "plot": "state_rag.plot",
    },
    "state_rag.datasets": {
        "screen": "state_rag.datasets.simulation.simulate:screen",
        "simulate_screen": "state_rag.datasets.simulation.simulate:simulate_screen",
        "write_perturbation_splits": "state_rag.datasets.splitting.perturbation_splits:write_perturbation_splits",
        "write_split": "state_rag.datasets.splitting.splits:write_split",
        "check_split": "state_rag.datasets.splitting.splits:check_split",
    },
    "state_rag.effects": {
        "from_anndata": "state_rag.effects.sources:from_anndata",
        "read": "state_rag.effects.sources:read",
        "write": "state_rag.effects.mean_effects:write_mean_effects",
        "MeanEffects": "state_rag.effects.mean_effects:MeanEffects",
    },
    "state_rag.embeddings": {
        "read": "state_rag.embeddings.readers:read_embeddings",
        "read_source": "state_rag.embeddings.sources:read_source",
        "write": "state_rag.embeddings.writers:write_embeddings",
        "Embeddings": "state_rag.embeddings.table:Embeddings",
    },
    "state_rag.evidence": {
        "Evidence": "state_rag.evidence.estimator:Evidence",
        "Responses": "state_rag.evidence.responses:Responses",
        "from_effects": "state_rag.engine.bank:responses_in",
        "Settings": "state_rag.evidence.training:Settings",
        "Prediction": "state_rag.evidence.prediction:Prediction",
        "Explanation": "state_rag.evidence.explanation:Explanation",
        "Trust": "state_rag.evidence.trust.expected:Trust",
        "GeneCalls": "state_rag.evidence.trust.gene_calls:GeneCalls",
    },
    "state_rag.metrics": {
        "evaluate": "state_rag.evaluation.api:evaluate",
        "compare": "state_rag.evaluation.api:compare",
        "compute": "state_rag.metrics.on_arrays:compute",
        "table": "state_rag.metrics.on_arrays:table",
        "METRICS": "state_rag.metrics.registry:METRICS",
    },
    "state_rag.plot": {
        "distribution": "state_rag.plot.conditions:distribution",
        "effect_scatter": "state_rag.plot.conditions:effect_scatter",
        "cells": "state_rag.plot.conditions:cells",
        "jaccard": "state_rag.plot.retrieval:jaccard",
        "inclusion_by_rank": "state_rag.plot.retrieval:inclusion_by_rank",
        "inclusion_against": "state_rag.plot.retrieval:inclusion_against",
        "ablated_neighbours": "state_rag.plot.retrieval:ablated_neighbours",
        "ablated_conditions": "state_rag.plot.retrieval:ablated_conditions",
        "learning_curves": "state_rag.plot.training:learning_curves",
        "evidence": "state_rag.plot.evidence_map:evidence",
    },
}
"""Module to public name to `module` or `module:attribute`."""


def lazily(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the `__getattr__`, `__dir__` and `__all__` of a module whose public names are imported on first use.

    Parameters
    ----------
    module
        Its name, a key of `NAMES`.
    """
    names = NAMES[module]

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, attribute = names[name].partition(":")
        found = importlib.import_module(place)
        value = getattr(found, attribute) if attribute else found
        setattr(sys.modules[module], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[module]), *names})

    return __getattr__, __dir__, sorted(names)
