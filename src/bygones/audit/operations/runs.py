"""Processes of a search for the first differing operation, each a run of one script.

BoundaryRun    digests of what a run holds after each of its steps
OperationRun   digests of the operations of a few steps, and the values of one of them
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from bygones.attach.isolation.warmup import imported_libraries
from bygones.attach.live_run import Live
from bygones.attach.watched_process import Ending, WatchedProcess
from bygones.audit.continuation import optimizer_arrays, trained_tensors
from bygones.audit.operations.recorder import Operation, OperationRecorder, Values
from bygones.core.hash_chain import fast_digest
from bygones.training.generators import global_states

Boundary = Mapping[str, Any]  # digests by what they are of


@dataclass(frozen=True)
class Boundaries:
    """What a run held after each step, from 0 on, which is before its first update.

    `ended`: how it ended before the last step that was asked for, in words. `libraries`: what it imported.
    """

    steps: tuple[Boundary, ...]
    ended: str
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Operations:
    """The operations of some steps of a run, and the names of its memory and modules.

    `memory`: what lies at an address. `modules`: the path of a module by its identity. `is_full`: whether
    there were more operations than are kept.
    """

    operations: tuple[Operation, ...]
    memory: Mapping[int, str]
    modules: Mapping[int, str]
    values: Values | None
    is_full: bool


class BoundaryRun(WatchedProcess):
    """Run to a step, and reply what the run held after each: `Boundaries`."""

    def __init__(self, until: int, *given: Any) -> None:
        super().__init__(*given)
        self.until = until
        self.steps: list[Boundary] = []
        self.modules_before = frozenset(sys.modules)

    def before_first(self) -> None:
        super().before_first()
        self._add()

    def on_update(self, step: int) -> None:
        self._add()
        if step == self.until:
            self._reply("")

    def _add(self) -> None:
        record, optimizers = self.clock.record, self.clock.optimizers
        assert self.baseline is not None
        trained = self.baseline.trained
        self.steps.append(
            {
                **{f"streams/{name}": state for name, state in global_states().items()},
                "batches": record.batches.entry,
                "loss": repr(record.losses[-1]) if record.losses else "",
                "buffers": {
                    f"{label}.{name}": fast_digest(buffer)
                    for label, module in trained.items()
                    for name, buffer in module.named_buffers()
                },
                "moments": optimizer_arrays(optimizers),
                "weights": trained_tensors(optimizers)
                if optimizers
                else {n: fast_digest(p) for m in trained.values() for n, p in m.named_parameters()},
            }
        )

    def finish(self, ending: Ending) -> NoReturn:
        if not self.steps or ending.raised:
            where = f"step {self.until}, up to which it was to be compared"
            self.parent.reply_and_exit(self.ended_early(ending, where))
        self._reply(str(ending))

    def _reply(self, ended: str) -> NoReturn:
        libraries = imported_libraries(self.modules_before)
        self.parent.reply_and_exit(Boundaries(tuple(self.steps), ended, libraries))


class OperationRun(WatchedProcess):
    """Run to boundary `end`, and reply the operations since boundary `begin` as `Operations`.

    0 is the script's first line. `keep`: the operation whose values are wanted, by number.
    """

    def __init__(self, begin: int, end: int, keep: int | None, *given: Any) -> None:
        super().__init__(*given)
        self.begin, self.end = begin, end
        self.recorder = OperationRecorder(str(self.file.resolve().parent), keep)
        self.batches: list[Any] = []  # kept alive, so that no other tensor takes their place

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching():
            if self.begin == 0:
                self.recorder.begin()
            yield

    def on_batch(self, batch: Any) -> None:
        if self.clock.step >= self.begin:
            self.batches.append(batch)

    def on_update(self, step: int) -> None:
        if step == self.begin:
            self.recorder.begin()
        if step == self.end:
            self._reply()

    def finish(self, ending: Ending) -> NoReturn:
        if self.clock.step < self.begin or ending.raised:
            where = f"step {self.end}, up to which its operations were to be recorded"
            self.parent.reply_and_exit(self.ended_early(ending, where))
        self._reply()

    def _reply(self) -> NoReturn:
        recorder = self.recorder
        recorder.end()
        live = None if self.baseline is None else self.find_live()
        self.parent.reply_and_exit(
            Operations(
                tuple(recorder.operations),
                self._name_memory(live),
                _name_modules(recorder, live),
                recorder.values,
                recorder.is_full,
            )
        )

    def _name_memory(self, live: Live | None) -> dict[int, str]:
        """Return names of what lies at addresses: batches, weights, buffers, moments, variables."""
        named: dict[int, str] = {}
        for batch in self.batches:
            _add_names(named, "batch", batch)
        if live is not None:
            for name, tensor in live.parameters.items():
                _add_names(named, f"weights {name}", tensor)
                _add_names(named, f"gradient of {name}", tensor.grad)
            labels = {id(p): name for name, p in live.parameters.items()}
            for optimizer in self.clock.optimizers:
                for parameter, state in optimizer.state.items():
                    for kind, value in state.items():
                        name = labels.get(id(parameter), "a parameter")
                        _add_names(named, f"moments {name}/{kind}", value)
            for label, module in {**live.trained, **live.averaging}.items():
                for name, buffer in module.named_buffers():
                    _add_names(named, f"buffer {label}.{name}", buffer)
            for place in live.loose:
                _add_names(named, f"variable {place.path}", place.value)
        return named


def _add_names(named: dict[int, str], name: str, value: Any) -> None:
    """Name the memory of a tensor, or of each tensor in a list or a dict; the first name stays."""
    if isinstance(value, Tensor):
        named.setdefault(value.untyped_storage().data_ptr(), name)
    elif isinstance(value, np.ndarray):  # a tensor may share its memory
        named.setdefault(value.ctypes.data, name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _add_names(named, f"{name}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _add_names(named, f"{name}[{index}]", item)


def _name_modules(recorder: OperationRecorder, live: Live | None) -> dict[int, str]:
    """Return the path of each module that was called, else the name of its class."""
    paths = {
        id(part): f"{label}.{name}".rstrip(".")
        for label, module in ({} if live is None else {**live.trained, **live.averaging}).items()
        for name, part in module.named_modules()
    }
    return {key: paths.get(key, type(module).__name__) for key, module in recorder.modules.items()}
