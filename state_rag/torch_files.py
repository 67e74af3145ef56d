"""Read what `torch.save` wrote without running code of the file."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from state_rag.errors import StateRagError


@contextmanager
def numpy_numbers_allowed() -> Iterator[None]:
    """Let `torch.load` with `weights_only=True` read NumPy's numbers and strings, which STATE leaves in checkpoints."""
    scalar = np.str_("").__reduce__()[0]  # numpy's own constructor of scalars, wherever this version keeps it
    kinds = {type(np.dtype(code)) for code in (*np.typecodes["AllInteger"], *np.typecodes["Float"], "?", "U1")}
    allowed: list[Any] = [
        (np.dtype, "numpy.dtype"),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        *((kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds),
    ]
    with torch.serialization.safe_globals(allowed):
        yield


def read_torch(path: Path, remedy: str) -> dict[Any, Any]:
    """Read a dict that `torch.save` wrote, without running code: tensors, plain types and NumPy scalars.

    Raises
    ------
    StateRagError
        If the file is damaged, holds anything else, or is no dict; `remedy` says what to do.
    """
    try:
        with numpy_numbers_allowed():
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if (found := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise StateRagError(f"{path} cannot be read: it is damaged or incomplete. {remedy}") from error
        raise StateRagError(
            f"{path} holds a {found.group(1)}, which only running code of the file would make; tensors, numbers and "
            f"text are read. {remedy}"
        ) from error
    except Exception as error:  # noqa: BLE001  torch raises half a dozen types for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateRagError(f"{path} cannot be read: it is damaged or incomplete ({reason}). {remedy}") from error
    if not isinstance(values, dict):
        raise StateRagError(f"{path} holds a {type(values).__name__}, not the expected dict. {remedy}")
    return values
