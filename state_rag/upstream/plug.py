"""Wrap STATE's commands and register our configuration with Hydra."""

import functools
import logging
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from state_rag.errors import StateRagError
from state_rag.upstream import arguments, contract
from state_rag.upstream.search_path import register_search_path

MARK = "__state_rag__"

RUNNERS = {
    "run_tx_train": "state_rag.upstream.training.train",
    "run_tx_predict": "state_rag.upstream.predict",
    "run_tx_infer": "state_rag.upstream.infer",
}
"""STATE's command functions and the module of ours whose `run(original, argument)` takes their place."""

PARSERS = {
    "add_arguments_train": arguments.add_train_arguments,
    "add_arguments_predict": arguments.add_predict_arguments,
    "add_arguments_infer": arguments.add_infer_arguments,
}


def attach(commands: ModuleType) -> None:
    """Put wrapped functions into STATE's command module; see `state_rag.upstream.plug_in`."""
    if hasattr(commands, MARK):
        return
    missing = [name for name in (*RUNNERS, *PARSERS) if not callable(getattr(commands, name, None))]
    if missing:
        print(
            f"state-rag is not attached: {contract.explain([f'state._cli._tx.{n}' for n in missing])}", file=sys.stderr
        )
        return
    for name, module in RUNNERS.items():
        setattr(commands, name, _wrap_runner(getattr(commands, name), module))
    for name, extend in PARSERS.items():
        setattr(commands, name, _wrap_parser(getattr(commands, name), extend))
    setattr(commands, MARK, True)
    register_search_path()


def _wrap_runner(original: Callable[[Any], Any], module: str) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def run(argument: Any) -> Any:
        with plain_errors():
            contract.check()
            return import_module(module).run(original, argument)

    return run


def _wrap_parser(
    original: Callable[[ArgumentParser], None], extend: Callable[[ArgumentParser], None]
) -> Callable[[ArgumentParser], None]:
    @functools.wraps(original)
    def add_arguments(parser: ArgumentParser) -> None:
        original(parser)
        extend(parser)

    return add_arguments


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show our messages while a command runs, and a `StateRagError` as one line with exit status 1.

    ``STATE_RAG_TRACEBACK=1`` lets the error through with its traceback.
    """
    logger = logging.getLogger("state_rag")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[state-rag] %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    except StateRagError as error:
        if os.environ.get("STATE_RAG_TRACEBACK"):
            raise
        print(f"state-rag: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
