"""Several devices where there is one: tensors on the CPU that say they are elsewhere, and refuse to meet others.

Every operation is checked as CUDA would check it: its tensors have to be on one device, but for numbers (0-dimensional
tensors on the CPU), indices on the CPU, and copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

CPU = torch.device("cpu")
aten = torch.ops.aten
MAY_MIX = {aten.copy_, aten._to_copy, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Placed(torch.Tensor):
    """A tensor with the values of ``inner``, on a device of the name ``place``."""

    inner: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, place: torch.device) -> Placed:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CPU,
            dispatch_device=True,
        )

    def __init__(self, inner: Tensor, place: torch.device) -> None:
        self.inner, self.place = inner, place

    @property
    def device(self) -> torch.device:
        return self.place

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.unbind(0))

    # Methods that would look for the driver of the device, in place of which the operations beneath are called.
    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        return self if self.inner.is_contiguous() else torch.clone(self, memory_format=memory_format)

    def __invert__(self) -> Tensor:
        return torch.bitwise_not(self)

    def copy_(self, new: Tensor, non_blocking: bool = False) -> Tensor:
        # Copies may come from anywhere.
        self.inner.copy_(value(new))
        return self

    def nonzero(self) -> Tensor:
        return Placed(self.inner.nonzero(), self.place)

    def __bool__(self) -> bool:
        return bool(self.inner)

    def __int__(self) -> int:
        return int(self.inner)

    def __float__(self) -> float:
        return float(self.inner)

    def __getitem__(self, index: Any) -> Placed:
        self._check_index(index)
        return Placed(self.inner[_values(index)], self.place)

    def __setitem__(self, index: Any, new: Any) -> None:
        self._check_index(index)
        if isinstance(new, Tensor) and new.dim() > 0 and new.device != self.place:
            raise RuntimeError(f"a part of a tensor on {self.place} was set to one on {new.device}")
        self.inner[_values(index)] = value(new)

    def _check_index(self, index: Any) -> None:
        if any(x.device not in (CPU, self.place) for x in tree_iter(index) if isinstance(x, Tensor)):
            raise RuntimeError(f"a tensor on {self.place} was indexed from elsewhere")

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Placed({self.inner!r}, {self.place})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].place
        return run(func, args, kwargs)


class _Factories(TorchDispatchMode):
    """Makes new tensors on the devices that are named, and sees operations on plain tensors, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].place
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, and say where its result is."""
    tensors = [x for x in _leaves((args, kwargs)) if isinstance(x, Tensor)]
    asked = kwargs.get("device")
    places = {x.device for x in tensors if x.dim() > 0}
    if func.overloadpacket not in MAY_MIX and len(places) > 1:
        raise RuntimeError(f"{func} was given tensors on {' and '.join(sorted(map(str, places)))}")
    place = torch.device(asked) if asked is not None else where(func, args, tensors, places)
    if asked is not None:
        kwargs = kwargs | {"device": CPU}
    values = func(*_mapped(value, args), **_mapped(value, kwargs))
    if func._schema.is_mutable and not isinstance(values, (tuple, list)):
        # An operation in place returns what it was given.
        return kwargs.get("out", args[0])
    return values if place == CPU else _mapped(lambda x: Placed(x, place) if isinstance(x, Tensor) else x, values)


# For what operations are given, in place of torch's own walks, in which the tests would spend half of their time.
def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _leaves(branch)
    elif isinstance(tree, dict):
        yield from _leaves(tuple(tree.values()))
    else:
        yield tree


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(function, branch) for branch in tree])
    if isinstance(tree, dict):
        return {key: _mapped(function, branch) for key, branch in tree.items()}
    return function(tree)


def where(func: Any, args: Any, tensors: list[Tensor], places: set[torch.device]) -> torch.device:
    """The device of a result."""
    if func.overloadpacket in MAY_MIX:
        return args[0].device
    return next(iter(places)) if places else next((x.device for x in tensors if x.device != CPU), CPU)


def value(x: Any) -> Any:
    """What a tensor holds."""
    return x.inner if isinstance(x, Placed) else x


def _values(index: Any) -> Any:
    """What an index holds, whose slices may have tensors for ends."""
    if isinstance(index, tuple):
        return tuple(map(_values, index))
    if isinstance(index, slice):
        return slice(*(int(end) if isinstance(end, Placed) else end for end in (index.start, index.stop, index.step)))
    return tree_map(value, index)


class Event:
    """A moment on a device that works while it is called."""

    def record(self, stream: None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@contextmanager
def several_devices(monkeypatch: Any) -> Iterator[None]:
    """Let tensors be on GPUs that are not there."""
    tensor, nonzero = torch.tensor, torch.nonzero
    with monkeypatch.context() as patch, _Factories():
        # Numbers in lists may be tensors.
        patch.setattr(torch, "tensor", lambda data, **options: tensor(tree_map(value, data), **options))
        patch.setattr(torch, "nonzero", lambda x, **options: x.nonzero() if isinstance(x, Placed) else nonzero(x))
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.accelerator, "synchronize", lambda device=None: None)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: None)
        patch.setattr(torch.cuda, "Event", lambda enable_timing: Event())
        # Otherwise torch.tensor(..., device=...) would copy past the mode.
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(before)
