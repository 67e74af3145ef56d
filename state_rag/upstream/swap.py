"""Replace an attribute of somebody else's module for the length of a `with` block."""

import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from state_rag.files import atomic_path


@contextmanager
def replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """Set ``target.name`` (or ``target[name]`` of a mapping) to `value`, and put the old one back."""
    if isinstance(target, MutableMapping):
        old = target[name]
        target[name] = value
        try:
            yield
        finally:
            target[name] = old
        return
    old = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, old)


@contextmanager
def whole_h5ad_files() -> Iterator[None]:
    """Have h5ad files written under a temporary name and renamed, so that none is left half written.

    Where no options are given, as STATE gives none, a full disk is one error and not a crash of HDF5 at exit.
    """
    import anndata

    from state_rag.h5ad_writing import write_h5ad

    write: Callable[..., Any] = anndata.AnnData.write_h5ad

    def write_whole(self: Any, filename: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        if not args and not kwargs:
            write_h5ad(self, filename)
            return
        with atomic_path(filename) as temporary:
            write(self, temporary, *args, **kwargs)

    with replaced(anndata.AnnData, "write_h5ad", write_whole):
        yield


@contextmanager
def unclipped_copies(key: str) -> Iterator[None]:
    """Have cells that are made from values and `obs` alone keep a copy of the values in ``obsm[key]``.

    STATE makes its predicted and real cells so, and then clips their X to [0, 14], which suits genes; coordinates of
    an embedding it mutilates.
    """
    import anndata

    make: Callable[..., None] = anndata.AnnData.__init__

    def make_with_copy(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if not args and set(kwargs) == {"X", "obs"}:
            self.obsm[key] = self.X.copy()

    with replaced(anndata.AnnData, "__init__", make_with_copy):
        yield


@contextmanager
def whole_npy_files() -> Iterator[None]:
    """Have `numpy.save` write under a temporary name and rename."""
    import numpy as np

    save: Callable[..., Any] = np.save

    def save_whole(file: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(file, str | os.PathLike):
            save(file, *args, **kwargs)
            return
        final = os.fspath(file)
        with atomic_path(final if final.endswith(".npy") else f"{final}.npy") as temporary:
            save(temporary, *args, **kwargs)

    with replaced(np, "save", save_whole):
        yield


@contextmanager
def any_head_count() -> Iterator[None]:
    """Let Llama backbones have a number of heads that does not divide their width.

    The published model has 12 heads of 58 on a width of 128. transformers 5 refuses such a configuration
    although its attention runs it; so it is built with one head and told the real number afterwards.
    """
    from state.tx.models import utils

    configuration = utils.LlamaConfig

    def build(**kwargs: Any) -> Any:
        heads, width = kwargs.get("num_attention_heads"), kwargs.get("hidden_size")
        if not heads or not width or width % heads == 0 or not kwargs.get("head_dim"):
            return configuration(**kwargs)
        shared = kwargs.get("num_key_value_heads") or heads
        config = configuration(**{**kwargs, "num_attention_heads": 1, "num_key_value_heads": 1})
        config.num_attention_heads, config.num_key_value_heads = heads, shared
        return config

    with replaced(utils, "LlamaConfig", build):
        yield
