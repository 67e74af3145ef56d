"""Choose where tensors are computed."""

import torch

from state_rag.errors import StateRagError

GPU_ERRORS: tuple[type[Exception], ...] = (
    torch.OutOfMemoryError,
    getattr(torch, "AcceleratorError", torch.OutOfMemoryError),
)
"""What torch raises when a GPU is full, busy or broken."""


def choose_device(wanted: str) -> torch.device:
    """Return the device that `auto` (the GPU where there is one), `cpu` or `cuda` stands for.

    Raises
    ------
    StateRagError
        If `cuda` is asked for and torch sees no GPU.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise StateRagError(f"--device {wanted}: torch {torch.__version__} sees no GPU; use --device cpu or auto")
    return torch.device(wanted)
