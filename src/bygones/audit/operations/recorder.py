"""Operation recorder: a digest of what each torch operation of a step is given, and of what it returns.

A dispatch mode sees every operation below autograd: of the forward pass, the backward pass, the optimizer and
the loader. Operations are executed as they are. Memory that was allocated and not written yet has no content.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bygones.core.hash_chain import fast_digest

_MOST_OPERATIONS = 500_000
_MOST_BYTES = 1 << 28  # of the values that are kept of one operation
_NAMESPACES = {"profiler", "prim"}  # of operations that compute nothing
# Operations whose result has no content yet.
_ALLOCATING = {
    "empty",
    "empty_like",
    "empty_strided",
    "empty_permuted",
    "new_empty",
    "new_empty_strided",
}
# Files of torch that lie between an operation and the code that calls it.
_DISPATCHING = ("/torch/utils/_python_dispatch.py", "/torch/_dynamo/", "/torch/_compile.py")
_UNWRITTEN = "not written yet"


class Line(NamedTuple):
    """A line of code that was running."""

    file: str
    number: int
    function: str


class Given(NamedTuple):
    """A tensor that an operation was given. `storage`: the address of its memory."""

    argument: str
    digest: str
    storage: int
    is_number: bool  # whether it may be a Python number: no dimensions, on the CPU


@dataclass(frozen=True)
class Operation:
    """One torch operation of a run.

    `settings`: arguments that are no tensors, as text. `returned`: digests of its results. `drawn_from`:
    digest of the generator's state before it, if it draws random numbers. `modules`: the modules that were
    being called, by identity, outermost first; of a backward operation, those of its forward pass. `own`:
    the line of the script. `inner`: the innermost line of Python.
    """

    name: str
    given: tuple[Given, ...]
    settings: tuple[tuple[str, str], ...]
    returned: tuple[str, ...]
    drawn_from: str
    phase: str  # "forward", "backward", "optimizer", "loader" or ""
    modules: tuple[int, ...]
    own: Line | None
    inner: Line | None

    @property
    def key(self) -> tuple[Any, ...]:
        """What is equal where two runs do the same on the same numbers."""
        given = tuple((one.argument, one.digest) for one in self.given)
        return self.name, given, self.settings, self.returned, self.drawn_from


@dataclass(frozen=True)
class Values:
    """What one operation was given and returned, by argument; None for what was too large to keep."""

    given: dict[str, Tensor | None]
    returned: tuple[Tensor | None, ...]


class OperationRecorder(TorchDispatchMode):
    """Record the operations between `begin` and `end`. `folder`: where the script's own files lie.

    `keep`: the number of the operation whose values are kept too.
    """

    def __init__(self, folder: str, keep: int | None = None) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.values: Values | None = None
        self.modules: dict[int, nn.Module] = {}
        self.is_full = False
        self._folder, self._keep = folder.rstrip("/") + "/", keep
        self._calls: list[int] = []
        self._unwritten: set[int] = set()
        self._forward: dict[int, tuple[int, ...]] = {}  # modules by the number of an autograd node
        self._hooks: list[Any] = []

    def begin(self) -> None:
        """Record from here on."""
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        self.__enter__()

    def end(self) -> None:
        """Record no more."""
        self.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()

    def _enter_module(self, module: nn.Module, *_: Any) -> None:
        self.modules.setdefault(
            id(module), module
        )  # kept alive, so that its identity stays its own
        self._calls.append(id(module))

    def _leave_module(self, module: nn.Module, *_: Any) -> None:
        if id(module) in self._calls:
            while self._calls.pop() != id(module):
                continue

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.is_full or func.namespace in _NAMESPACES:
            return func(*args, **kwargs)
        named = dict(_flatten(func, args, kwargs))
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        given = tuple(self._given(name, tensor) for name, tensor in tensors.items())
        drawn_from = _generator_state(func, named)
        is_kept = self._keep == len(self.operations)
        kept = {name: _copy(tensor) for name, tensor in tensors.items()} if is_kept else {}
        returned = func(*args, **kwargs)
        results = [value for value in _leaves(returned) if isinstance(value, Tensor)]
        numbers = [repr(v) for v in _leaves(returned) if isinstance(v, bool | int | float)]
        self._note_writing(func, results, named)
        if is_kept:
            self.values = Values(kept, tuple(map(_copy, results)))
        phase, own, inner = self._place()
        self.operations.append(
            Operation(
                name=str(func),
                given=given,
                settings=tuple(
                    (n, _text(v)) for n, v in named.items() if not isinstance(v, Tensor)
                ),
                returned=(*map(self._content, results), *numbers),
                drawn_from=drawn_from,
                phase=phase,
                modules=self._modules_now(),
                own=own,
                inner=inner,
            )
        )
        self.is_full = len(self.operations) >= _MOST_OPERATIONS
        return returned

    # ------------------------------------------------------------------ contents

    def _given(self, name: str, tensor: Tensor) -> Given:
        is_number = tensor.ndim == 0 and tensor.device.type == "cpu"
        return Given(name, self._content(tensor), _storage(tensor), is_number)

    def _content(self, tensor: Tensor) -> str:
        """Return a digest of type, shape and numbers; without numbers where none were written yet."""
        kind = f"{tensor.dtype} {list(tensor.shape)} {tensor.device.type}"
        if _storage(tensor) in self._unwritten:
            return f"{kind} {_UNWRITTEN}"
        try:
            return fast_digest([kind, tensor.detach()])
        except (
            RuntimeError,
            TypeError,
            NotImplementedError,
        ):  # sparse, quantized or without memory
            return kind

    def _note_writing(self, func: Any, results: list[Tensor], named: dict[str, Any]) -> None:
        """Note which memory has no content yet, and which has got some."""
        places = {_storage(tensor) for tensor in results}
        if func.overloadpacket.__name__ in _ALLOCATING:
            self._unwritten |= places
            return
        views = any(
            argument.alias_info is not None and not argument.alias_info.is_write
            for argument in func._schema.arguments
        )
        if not views:
            self._unwritten -= places
        for argument in func._schema.arguments:
            value = named.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write:
                if isinstance(value, Tensor):
                    self._unwritten.discard(_storage(value))

    # ------------------------------------------------------------------ places

    def _modules_now(self) -> tuple[int, ...]:
        """Return the modules that are being called; in a backward pass, those of the forward pass."""
        node = torch._C._current_autograd_node()
        if node is not None:
            return self._forward.get(node._sequence_nr(), ())  # type: ignore[attr-defined]
        now = tuple(self._calls)
        # The first operation after a node was made is the node's own.
        self._forward.setdefault(torch.autograd._get_sequence_nr() - 1, now)  # type: ignore[attr-defined]
        return now

    def _place(self) -> tuple[str, Line | None, Line | None]:
        """Return the phase of the step, the line of the script, and the innermost line."""
        phase, inner = "", None
        if torch._C._current_autograd_node() is not None:
            phase = "backward"
        elif self._calls:
            phase = "forward"
        for frame in _frames():
            file = frame.f_code.co_filename
            line = Line(file, frame.f_lineno, frame.f_code.co_name)
            inner = inner or line
            if "/torch/optim/" in file and phase != "backward":
                phase = "optimizer"
            elif "/torch/utils/data/" in file:
                phase = "loader"
            if file.startswith(self._folder) and "site-packages" not in file:
                return phase, line, inner
        return phase, None, inner


def _frames() -> Iterator[FrameType]:
    """Yield the running frames but those of this file and of dispatching, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not any(part in file for part in _DISPATCHING):
            yield frame
        frame = frame.f_back


def _flatten(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments by name; those in lists by name and number."""
    names = [argument.name for argument in func._schema.arguments]
    for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
        if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
        else:
            yield name, value


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _text(value: Any) -> str:
    return "a generator" if isinstance(value, torch.Generator) else repr(value)


def _generator_state(func: Any, named: dict[str, Any]) -> str:
    """Return a digest of the state of the generator that an operation draws from; else nothing."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return ""
    generator = named.get("generator")
    if not isinstance(generator, torch.Generator):
        generator = torch.default_generator
    return fast_digest(generator.get_state())


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def _copy(tensor: Tensor) -> Tensor | None:
    if tensor.numel() * tensor.element_size() > _MOST_BYTES:
        return None
    return tensor.detach().to("cpu", copy=True)
