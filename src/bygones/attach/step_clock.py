"""Step clock: count the optimizer steps of a script, and call back at step boundaries.

    boundary s: after the s-th update of the clock's optimizer, where the script next fetches a batch (from
    a loader with workers: begins its epoch) or calls a module, whichever comes first; at the latest
    before its next update

The clock's optimizer is the only one, or the one that closes a round where several take turns (a GAN's
generator, say). The hooks draw no random numbers and change nothing that the script can observe.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import Module, register_module_forward_pre_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _DatasetKind,
    _SingleProcessDataLoaderIter,
)

from bygones.attach.index_override import IndexOverride
from bygones.attach.isolation.tampering import describe_tampering
from bygones.attach.step_record import StepRecord
from bygones.attach.training_data import note_fetch
from bygones.attach.worker_emulation import InProcessWorkers
from bygones.core.errors import BygonesError, ScriptError, Unexpected

# Updates after which it is settled which optimizer closes a round.
_UPDATES_TO_SETTLE = 24


class ClockCallbacks:
    """What a step clock calls. Override the methods that are needed; by default each does nothing."""

    def before_first(self) -> None:
        """Called once, before the first update of any optimizer: all is built and nothing is trained."""

    def at_boundary(self, step: int) -> None:
        """Called at each boundary in `Clock.stops`; `step` updates are done."""

    def on_update(self, step: int) -> None:
        """Called after each update of the clock's optimizer; `step` updates are done."""

    def on_fetch(self) -> None:
        """Called before each DataLoader fetch with gradients enabled."""

    def on_batch(self, batch: Any) -> None:
        """Called with each batch that a loader delivers."""

    def before_backward(self) -> None:
        """Called before each `Tensor.backward`."""


class Clock:
    """Count the updates of one optimizer in this process.

    `optimizer`: its number, in the order in which optimizers first step. `callbacks`: what is called on
    the way. `keeps_batches`: whether `record` keeps the index batches and hashes of each step.
    `past_epoch_end`: whether a boundary lies where the next training batch is fetched, so that the
    evaluation, schedule and saving that end an epoch come before it.
    """

    def __init__(
        self,
        optimizer: int = 0,
        callbacks: ClockCallbacks | None = None,
        *,
        stops: frozenset[int] | None = frozenset(),
        keeps_batches: bool = False,
        past_epoch_end: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.callbacks = callbacks or ClockCallbacks()
        self.step = 0
        self.stops = stops  # boundaries at which `at_boundary` is called; None: at every one
        # Backward passes to let pass first: a boundary inside an accumulation window.
        self.delay = 0
        self.optimizers: list[
            Optimizer
        ] = []  # those that have stepped, in order of their first step
        self.record = StepRecord(keeps_batches=keeps_batches)
        self.override = IndexOverride()
        self._past_epoch_end = past_epoch_end
        self._turns: list[int] = []  # which optimizer made each of the first updates
        self._pending = (
            False  # a boundary in `stops` was reached, and its callback is still to come
        )
        self._module_hook: Any = None
        self._process = os.getpid()

    # ------------------------------------------------------------------ hooks

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hook into torch's optimizers, loaders and `backward` while the script runs."""
        before = register_optimizer_step_pre_hook(self._before_update)
        after = register_optimizer_step_post_hook(self._after_update)
        fetch, sample = _BaseDataLoaderIter.__next__, _SingleProcessDataLoaderIter._next_index
        backward, begin = Tensor.backward, DataLoader.__iter__
        clock = self
        self.follow_this_process()

        def begin_epoch(loader: DataLoader[Any]) -> Any:
            clock._before_epoch(loader, sys._getframe(1))
            iterator = begin(loader)
            if loader.num_workers:
                iterator.begun_at_step = clock.step  # type: ignore[attr-defined]
            return iterator

        def fetch_batch(iterator: _BaseDataLoaderIter) -> Any:
            note_fetch(iterator, sys._getframe(1))
            clock._before_fetch(iterator)
            if isinstance(iterator, InProcessWorkers):
                iterator.replace_index = lambda index: clock.override.apply(iterator, index)
            batch = fetch(iterator)
            clock._after_fetch(iterator, batch)
            return batch

        def next_index(iterator: _SingleProcessDataLoaderIter) -> Any:
            index = clock.override.apply(iterator, sample(iterator))
            iterator.delivered_index = index  # type: ignore[attr-defined]
            return index

        def call_backward(tensor: Tensor, *arguments: Any, **settings: Any) -> None:
            clock.callbacks.before_backward()
            clock.record.add_backward(tensor)
            backward(tensor, *arguments, **settings)

        DataLoader.__iter__ = begin_epoch  # type: ignore[method-assign]
        _BaseDataLoaderIter.__next__ = fetch_batch  # type: ignore[method-assign]
        _SingleProcessDataLoaderIter._next_index = next_index  # type: ignore[method-assign]
        Tensor.backward = call_backward  # type: ignore[method-assign]
        try:
            yield
        finally:
            Tensor.backward = backward  # type: ignore[method-assign]
            del _SingleProcessDataLoaderIter._next_index
            _BaseDataLoaderIter.__next__ = fetch  # type: ignore[method-assign]
            DataLoader.__iter__ = begin  # type: ignore[method-assign]
            before.remove()
            after.remove()

    def follow_this_process(self) -> None:
        """Count in this process only: not in one that the script itself forks."""
        self._process = os.getpid()

    def stop_only_at(self, step: int) -> None:
        """Call back at this boundary and no other; drop one that is pending."""
        if self._pending:
            self._pending = False
            self._module_hook.remove()
        self.stops = frozenset({step})

    def slowest_optimizer(self) -> int:
        """Return the number of the optimizer that steps least often; of equals, the last in a round."""
        counts = [self._turns.count(index) for index in range(len(self.optimizers))]
        return max(index for index, count in enumerate(counts) if count == min(counts))

    # ------------------------------------------------------------------ updates

    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        if os.getpid() != self._process:
            return
        if not self.optimizers:
            with own_errors:
                self.callbacks.before_first()
        self.call_back()

    def _after_update(self, optimizer: Optimizer, *_: Any) -> None:
        if os.getpid() != self._process:
            return
        if len(self._turns) < _UPDATES_TO_SETTLE or len(self.optimizers) <= self.optimizer:
            self._note_turn(optimizer)
        if len(self.optimizers) > self.optimizer and optimizer is self.optimizers[self.optimizer]:
            self.step += 1
            self.record.close_step()
            if self.stops is None or self.step in self.stops:
                self._pending = True
                self._module_hook = register_module_forward_pre_hook(self._before_module)
            with own_errors:
                self.callbacks.on_update(self.step)

    def _note_turn(self, optimizer: Optimizer) -> None:
        if not any(optimizer is known for known in self.optimizers):
            self.optimizers.append(optimizer)
        self._turns.append([one is optimizer for one in self.optimizers].index(True))

    # ------------------------------------------------------------------ boundaries

    def _before_module(self, module: Module, *_: Any) -> None:
        if self.is_due and (not self._past_epoch_end or trains(module)):
            self.call_back()

    def _before_epoch(self, loader: DataLoader[Any], frame: FrameType) -> None:
        """Called before a loader begins an epoch: one with workers draws and reads ahead already here."""
        if not loader.num_workers or os.getpid() != self._process or not torch.is_grad_enabled():
            return
        with own_errors:
            self.callbacks.on_fetch()
        mine = any(data.is_begun_by(loader, frame) for data in self.record.data)
        if self.is_due and (mine or not self._past_epoch_end):
            self.call_back()

    def _before_fetch(self, iterator: _BaseDataLoaderIter) -> None:
        """Called before each DataLoader fetch.

        Fires the pending boundary callback, unless it is due a few micro-batches later.
        """
        if iterator._num_yielded == 0 and getattr(iterator, "begun_at_step", None) == self.step:
            return
        if os.getpid() == self._process and torch.is_grad_enabled():
            with own_errors:
                self.callbacks.on_fetch()
        if self._past_epoch_end and not self._is_next_training_batch(iterator):
            return
        if self.is_due:
            self.call_back()

    def _is_next_training_batch(self, iterator: _BaseDataLoaderIter) -> bool:
        """Test for a fetch from the dataset that is trained on, and not past the epoch's last batch."""
        mine = any(data.is_delivered_by(iterator) for data in self.record.data)
        return mine and not is_exhausted(iterator)

    @property
    def is_due(self) -> bool:
        """Whether the backward passes that come before the boundary are done."""
        return self.record.open_backward_calls >= self.delay

    def call_back(self) -> None:
        """Call `at_boundary` if a boundary is pending."""
        if self._pending and os.getpid() == self._process:
            self._pending = False
            self._module_hook.remove()
            with own_errors:
                self.callbacks.at_boundary(self.step)

    def _after_fetch(self, iterator: _BaseDataLoaderIter, batch: Any) -> None:
        with own_errors:
            self.record.add_batch(self.step, iterator, batch)
            self.callbacks.on_batch(batch)


class _OwnErrors:
    """Raise errors of bygones' own code as `Unexpected`, so that they do not count as the script's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback_: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, BygonesError):
            why = describe_tampering(error)
            if why:
                raise ScriptError(f"the script {why} ({type(error).__name__}: {error}).") from error
            place = "".join(traceback.format_exception(error))
            raise Unexpected(
                f"an error that bygones did not expect: {type(error).__name__}: {error}. Run again with "
                f"--debug to see where, and please report it.",
                place,
            ) from error


own_errors = _OwnErrors()


def trains(module: Module) -> bool:
    """Test whether calling this module now is part of a training step."""
    return (
        torch.is_grad_enabled()
        and module.training
        and any(p.requires_grad for p in module.parameters())
    )


def is_exhausted(iterator: _BaseDataLoaderIter) -> bool:
    """Test whether a loader has delivered all of its batches, as far as their number is known."""
    try:
        size = len(iterator._index_sampler)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # a sampler without an end
        return False
    return iterator._dataset_kind == _DatasetKind.Map and iterator._num_yielded >= size
