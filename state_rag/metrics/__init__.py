"""Metrics: arrays in, numbers out. No file, AnnData or model is known here.

`registry.METRICS` lists every metric as data, one family of definitions a file beside it: `profile` (expression),
`effects` (what a perturbation changes), `distances` and `sinkhorn` (clouds of cells). `degs` finds differential genes,
`pca` fits the space of distances, `significance` tests differences, `glossary` explains, `gge` adapts to and from GGE.
"""

import importlib.util
from typing import Any

from state_rag.public import lazily

_get, __dir__, __all__ = lazily(__name__)


def __getattr__(name: str) -> Any:
    """Return a public name, or a metric of the registry as a function of arrays (see `on_arrays.compute`)."""
    try:
        return _get(name)
    except AttributeError:
        if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}"):
            raise  # a module beside this one, which Python imports next
        from state_rag.metrics.on_arrays import metric_function

        return metric_function(name)
