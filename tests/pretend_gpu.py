"""An accelerator for machines without one: the device `pretend`, whose tensors keep to CUDA's rules.

PyTorch lets a backend be written in Python. This one computes on the CPU, and shows what can go wrong on a GPU:

- Operations on tensors of two devices are refused, except where CUDA takes them too (numbers, index tensors, copies).
- Every value that had to be rounded is off by one more rounding error, and so are the terms of every sum and product of
  matrices: another device adds in another order, and results must not depend on it.
- Each time that the host waits for the device (a value is read, a shape depends on values, memory that is not pinned
  is copied), the place in the code is noted.

It says nothing about speed or memory, nor about the kernels of a real GPU. A backend is registered for a whole process
and for good, so tests hand a function of theirs to the fixture `pretend_gpu`, which runs it in a process apart.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils import _pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = "pretend"

SUMS = {
    *("mm", "bmm", "addmm", "baddbmm", "sum", "mean", "var", "var_mean", "std", "linalg_vector_norm", "logsumexp"),
    *("_softmax", "_safe_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data"),
    *("native_layer_norm", "native_layer_norm_backward", "cumsum", "index_add", "_cdist_forward"),
}
"""Operations that add many terms, in an order that is the device's own."""

ROUNDED = {
    *("add", "sub", "rsub", "mul", "div", "addcmul", "addcdiv", "lerp", "square", "pow", "sqrt", "rsqrt", "reciprocal"),
    *("exp", "log", "log1p", "sigmoid", "tanh", "sin", "cos", "gelu", "gelu_backward", "silu", "silu_backward"),
    *("special_entr", "softplus", "softplus_backward", "sigmoid_backward"),
}
"""Other operations that round."""

FACTORIES = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm", "full")
"""Operations that would otherwise make an empty tensor and resize it."""

SHAPED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
READS = {"_local_scalar_dense", "equal"}
CPU_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""CUDA takes index tensors that lie on the CPU."""


class PretendTensor(torch.Tensor):
    """A tensor on the pretended device; `held` is the CPU tensor that it keeps to itself."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "PretendTensor":
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(DEVICE, 0),
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{DEVICE}:{self.held!r}"

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _on_device(operation, *args, **(kwargs or {}))


def start() -> None:
    """Make the device known to this process."""
    _setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
    fallback, aten = (torch.library.Library(namespace, "IMPL") for namespace in ("_", "aten"))
    fallback.fallback(_on_device, "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
        aten.impl(name, functools.partial(_on_device, operation), "PrivateUse1")
    _libraries.extend((fallback, aten))
    torch.Generator = _Generator  # type: ignore[misc]


@contextlib.contextmanager
def waits_counted() -> Iterator[list[str]]:
    """Yield a list that names, at the end, each place where the host waited for the device meanwhile."""
    _waits.clear()
    found: list[str] = []
    yield found
    found.extend(_waits)


_libraries: list[torch.library.Library] = []
_waits: list[str] = []
_rounding = torch.Generator().manual_seed(0)


def _on_device(operation, *args, **kwargs):
    name = operation._schema.name.removeprefix("aten::")
    leaves = _pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if name == "copy_":
        return _copy_from(args[1], args[0], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    _check_devices(name, args, tensors)
    there = kwargs.get("device") is None or torch.device(kwargs["device"]).type == DEVICE
    if name in SHAPED_BY_VALUES | READS or not there or _indexes_by_values(name, args):
        _note_wait(name)
    here = {key: _pytree.tree_map(_held, value) for key, value in kwargs.items() if key != "pin_memory"}
    if kwargs.get("device") is not None:
        here["device"] = torch.device("cpu")
    terms = _pytree.tree_map(_held, args)
    if name.rstrip("_") in SUMS and not operation._schema.is_mutable:
        terms = _pytree.tree_map(_off_by_rounding, terms)
    with torch.no_grad():
        result = operation(*terms, **here)
    rounds = name.rstrip("_") in SUMS | ROUNDED
    if operation._schema.is_mutable:
        return _pytree.tree_map(functools.partial(_written, tensors, rounds), result)
    if rounds and name in SUMS:
        result = _pytree.tree_map(_off_by_rounding, result)
    elif rounds:
        result = _pytree.tree_map(_off_where_it_rounded, result, operation(*_pytree.tree_map(_wide, terms), **here))
    return _pytree.tree_map(_sent, result) if there else result


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    across = isinstance(source, PretendTensor) != isinstance(target, PretendTensor)
    if across and not non_blocking:
        _note_wait("copy")
    with torch.no_grad():
        _held(target).copy_(_held(source))
    return target


def _check_devices(name: str, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses: tensors of the CPU that are more than a number or an index."""
    if not any(isinstance(tensor, PretendTensor) for tensor in tensors):
        return
    may = _pytree.tree_leaves(args[1]) if name in CPU_INDEX else []
    for tensor in tensors:
        strange = not isinstance(tensor, PretendTensor) and tensor.dim() > 0
        if strange and not any(tensor is index for index in may):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {DEVICE}:0 and cpu")


def _indexes_by_values(name: str, args: tuple) -> bool:
    """Whether an index is a mask, whose true values must be counted, or lies on the CPU and must be copied."""
    indices = _pytree.tree_leaves(args[1]) if name in CPU_INDEX else []
    return any(
        isinstance(index, torch.Tensor) and (index.dtype == torch.bool or not isinstance(index, PretendTensor))
        for index in indices
    )


def _written(tensors: list[torch.Tensor], rounds: bool, leaf: object) -> object:
    """Return the tensor of the device that an operation wrote to, one rounding off."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    target = next(tensor for tensor in tensors if isinstance(tensor, PretendTensor) and tensor.held is leaf)
    if target.shape != leaf.shape:
        raise NotImplementedError(f"an operation resized a tensor of {tuple(target.shape)} to {tuple(leaf.shape)}")
    if rounds:
        leaf.copy_(_off_by_rounding(leaf))
    return target


def _off_by_rounding(leaf: object) -> object:
    if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    noise = torch.rand(leaf.shape, generator=_rounding, dtype=leaf.dtype).mul_(2).sub_(1)
    return torch.where(torch.isfinite(leaf), leaf * (1 + noise * torch.finfo(leaf.dtype).eps), leaf)


def _off_where_it_rounded(leaf: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Leave float32 numbers that are right to the last digit, such as 0 - x: every device has the same."""
    off = _off_by_rounding(leaf)
    return torch.where(leaf.double() == exact, leaf, off) if leaf.dtype == torch.float32 else off


def _wide(leaf: object) -> object:
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 else leaf


def _note_wait(why: str) -> None:
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "state_rag" in path.parts or "state" in path.parts:
            root = "state_rag" if "state_rag" in path.parts else "state"
            place = "/".join(path.parts[len(path.parts) - 1 - path.parts[::-1].index(root) :])
            _waits.append(f"{place}:{frame.f_lineno} {why}")
            return
        frame = frame.f_back  # type: ignore[assignment]
    _waits.append(f"elsewhere {why}")


def _sent(leaf: object) -> object:
    return PretendTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _held(leaf: object) -> object:
    return leaf.held if isinstance(leaf, PretendTensor) else leaf


class _Backend(_DummyBackendModule):
    """What `torch.pretend` is."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class _Generator(torch.Generator):
    """A backend in Python has no generators; the CPU's draw the same numbers."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu" if torch.device(device).type == DEVICE else device)
