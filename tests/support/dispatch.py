"""What a step does, seen below autograd: how many operations it dispatches, and whether one waits for the device."""

from __future__ import annotations

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that give another name to the same memory launch nothing on a GPU.
_VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select", "slice"),
    *("detach", "alias", "unbind", "split", "split_with_sizes", "as_strided", "diagonal", "lift_fresh"),
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"),
}
# The size or the value of their result is known to the device only, so that the host has to wait for it.
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "_unique2", "unique_dim", "bincount"}
# The same seen from Python; on a CPU most of them dispatch nothing.
_READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")


def _name(operation) -> str:
    return operation.overloadpacket.__name__


class Operations(TorchDispatchMode):
    """Count the operations that would launch a kernel, and the most bytes that one tensor of theirs takes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if _name(operation) not in _VIEWS:
            self.counts[_name(operation)] += 1
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.untyped_storage().nbytes())
        return made


class WaitError(AssertionError):
    """The step would make the host wait for a GPU."""


class _NoWaitingOperation(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = _name(operation)
        # A mask as an index: how many rows does it pick?
        by_mask = name.startswith("index") and any(_is_mask(index) for index in _flat(args[1:]))
        if name in _WAITS or by_mask:
            raise WaitError(f"{operation} in the step")
        return operation(*args, **(kwargs or {}))


class _NoReading(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # A tensor of Python numbers is a copy to the device, unless it is meant to stay with the host.
        copies = function in (torch.tensor, torch.as_tensor) and kwargs.get("device") != "cpu"
        if copies or any(function is getattr(torch.Tensor, name) for name in _READS):
            raise WaitError(f"{function.__name__} in the step")
        return function(*args, **kwargs)


class OneDevice(TorchDispatchMode):
    """Inside this block an operation on tensors of several devices is an error, as it is on a GPU.

    The device that is pretended is `meta`, whose tensors have no content; some of its operations take others as well.
    Numbers of the host (tensors without dimensions) may be used with any device, and copies go between them.
    """

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        tensors = [value for value in _flat([*args, *(kwargs or {}).values()]) if torch.is_tensor(value)]
        devices = {value.device.type for value in tensors if value.dim()}
        if len(devices) > 1 and _name(operation) not in ("copy_", "_to_copy"):
            raise AssertionError(f"{operation} of tensors on {' and '.join(sorted(devices))}")
        return operation(*args, **(kwargs or {}))


class TapeRecording:
    """Does on a CPU what `dica.engine.speed.CudaRecording` does on a GPU: repeats the operations of one step.

    The same operations run on the same memory with the same numbers, whatever Python would now decide.
    """

    def __init__(self, step, generators) -> None:
        self.tape: list[tuple] = []
        with _Taping(self.tape):
            self.result = step()
        self.executed = True  # unlike a capture, which executes nothing: the first replay has nothing left to do

    @torch.no_grad()
    def replay(self) -> None:
        if self.executed:
            self.executed = False
            return
        for operation, args, kwargs, result in self.tape:
            again = operation(*args, **kwargs)
            for old, new in zip(_flat([result]), _flat([again]), strict=True):
                if torch.is_tensor(old) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class _Taping(TorchDispatchMode):
    def __init__(self, tape: list[tuple]) -> None:
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.tape.append((operation, args, kwargs or {}, result))
        return result


class NoWaiting:
    """Inside this block whatever would make the host wait for a GPU is an error, on a CPU as well."""

    def __enter__(self) -> None:
        self.modes = (_NoWaitingOperation(), _NoReading())
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *error) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)


def _flat(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _is_mask(value) -> bool:
    return torch.is_tensor(value) and value.dtype in (torch.bool, torch.uint8)
