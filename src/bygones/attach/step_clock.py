"""Counting the optimizer steps of a script that knows nothing of it, and finding its boundaries.

    boundary s: after the s-th update of the clock's optimizer, where the script next asks a loader for
    a batch or calls a module, whichever comes first; at the latest before its next update

The clock's optimizer is the only one, or the one that closes a round where several take turns (a GAN's
generator, say). Nothing here draws, computes or changes anything that the script can see.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import Module, register_module_forward_pre_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _DatasetKind,
    _SingleProcessDataLoaderIter,
)

from bygones.attach.batch_hashes import DeliveredBatches
from bygones.attach.worker_emulation import InProcessWorkers
from bygones.core.errors import BygonesError, Unexpected

_EVENTS_TO_TELL = (
    24  # updates that are listened to before it is said which optimizer closes a round
)


class _Ours:
    """An error in here is bygones' own, not the script's, and must not be taken for one of its."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback_: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, BygonesError):
            place = "".join(traceback.format_exception(error))
            raise Unexpected(
                f"an error that bygones did not expect: {type(error).__name__}: {error}. Run again with "
                f"--debug to see where, and please report it.",
                place,
            ) from error


_ours = _Ours()


class Clock:
    """The steps of one process that runs a script.

    `stops`: the boundaries at which `at_boundary(step)` is to be called. `before_first` is called once,
    right before the first update of any optimizer: everything is built then, and nothing is trained.
    """

    def __init__(self, optimizer: int = 0) -> None:
        self.optimizer = optimizer  # which one, in the order in which they first step
        self.step = 0
        self.stops: frozenset[int] | None = frozenset()  # None: every boundary
        self.at_boundary: Callable[[int], None] = lambda step: None
        self.before_first: Callable[[], None] = lambda: None
        self.on_batch: Callable[[Any], None] = lambda batch: None
        self.seen: list[Optimizer] = []  # every optimizer that has stepped, in order of its first
        self.turns: list[int] = []  # who made the first updates, to tell what a round is
        self.before_backward: Callable[[], None] = lambda: None  # before each `backward`
        self.on_fetch: Callable[[], None] = lambda: None  # before each batch that may be trained on
        self.fetches_on = (
            0  # a boundary is reached so many batches later: inside an accumulation window
        )
        self.epochs: list[int] = []  # steps in which a loader began anew
        self.backward_calls: list[
            int
        ] = []  # how often each step descended: more than once if it accumulates
        self.losses: list[float] = []  # what was descended on in each step, summed over its parts
        self.delivered = DeliveredBatches()
        self.num_workers = 0  # the most that any loader of the script works with
        self.loader: _BaseDataLoaderIter | None = None  # what the running step was fetched from
        self.replace_on: Any = None  # the dataset whose loader's indices are replaced, and by what
        self.replace: Callable[[Any, Any], Any] | None = None
        # Whether a boundary lies where the next step's batch is fetched: past the evaluation, the schedule
        # and the saving that end an epoch, and not where its loader is asked in vain for one more batch.
        self.ends_epochs = False
        self._waiting = False
        self._by_fetches = False
        self._forwards: Any = None
        self._losses_of_backward: list[Tensor] = []
        self._last: _BaseDataLoaderIter | None = None

    # ------------------------------------------------------------------ listening

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hooks into torch for as long as the script runs."""
        before = register_optimizer_step_pre_hook(self._before_update)
        after = register_optimizer_step_post_hook(self._after_update)
        following, indexing = _BaseDataLoaderIter.__next__, _SingleProcessDataLoaderIter._next_index
        backward = Tensor.backward
        clock = self
        self.go_on_here()

        def next_batch(iterator: _BaseDataLoaderIter) -> Any:
            clock._fetches(iterator)
            if isinstance(iterator, InProcessWorkers):
                iterator.replace_index = lambda index: clock._chosen(iterator, index)
            batch = following(iterator)
            clock._delivered(iterator, batch)
            return batch

        def next_index(iterator: _SingleProcessDataLoaderIter) -> Any:
            index = clock._chosen(iterator, indexing(iterator))
            iterator.delivered_index = index  # type: ignore[attr-defined]
            return index

        def descend(tensor: Tensor, *arguments: Any, **settings: Any) -> None:
            clock._descends(tensor)
            backward(tensor, *arguments, **settings)

        _BaseDataLoaderIter.__next__ = next_batch  # type: ignore[method-assign]
        _SingleProcessDataLoaderIter._next_index = next_index  # type: ignore[method-assign]
        Tensor.backward = descend  # type: ignore[method-assign]
        try:
            yield
        finally:
            Tensor.backward = backward  # type: ignore[method-assign]
            del _SingleProcessDataLoaderIter._next_index
            _BaseDataLoaderIter.__next__ = following  # type: ignore[method-assign]
            before.remove()
            after.remove()

    def go_on_here(self) -> None:
        """It is this process that is followed: one that the script itself forks off is not."""
        self._process = os.getpid()

    def wait_for(self, step: int) -> None:
        """From here on, only that boundary counts; not one that was being waited for."""
        if self._waiting:
            self._waiting = False
            self._forwards.remove()
        self.stops = frozenset({step})

    def slowest_optimizer(self) -> int:
        """Which optimizer to count by: the one that steps least often; of equals, the last in a round."""
        counts = [self.turns.count(index) for index in range(len(self.seen))]
        return max(index for index, count in enumerate(counts) if count == min(counts))

    # ------------------------------------------------------------------ what happens

    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        if os.getpid() != self._process:
            return
        if not self.seen:
            with _ours:
                self.before_first()
        self._reached()

    def _after_update(self, optimizer: Optimizer, *_: Any) -> None:
        if os.getpid() != self._process:
            return
        if len(self.turns) < _EVENTS_TO_TELL or len(self.seen) <= self.optimizer:
            self._take_note(optimizer)
        if len(self.seen) > self.optimizer and optimizer is self.seen[self.optimizer]:
            self.step += 1
            self.backward_calls.append(len(self._losses_of_backward))
            self.losses.append(sum(map(float, self._losses_of_backward)))
            self.delivered.close(getattr(self.loader, "_dataset", None))
            self._losses_of_backward = []
            if self.stops is None or self.step in self.stops:
                self._waiting, self._by_fetches = True, self.fetches_on > 0
                self._forwards = register_module_forward_pre_hook(self._called)

    def _take_note(self, optimizer: Optimizer) -> None:
        if not any(optimizer is known for known in self.seen):
            self.seen.append(optimizer)
        self.turns.append([one is optimizer for one in self.seen].index(True))

    def _called(self, module: Module, *_: Any) -> None:
        if not self._by_fetches and (not self.ends_epochs or trains(module)):
            self._reached()

    def _fetches(self, iterator: _BaseDataLoaderIter) -> None:
        """A batch is asked for: the boundary that somebody waits for, unless it lies some batches on."""
        if os.getpid() == self._process and torch.is_grad_enabled():
            with _ours:
                self.on_fetch()
        if self.ends_epochs and not self._goes_on(iterator):
            return
        if self._waiting and self.fetches_on:
            self.fetches_on -= 1
            return
        self._reached()

    def _goes_on(self, iterator: _BaseDataLoaderIter) -> bool:
        """Whether this fetch is the next step's: of what is trained on, and not past the epoch's last."""
        trained_on = getattr(self.loader, "_dataset", None)
        return iterator._dataset is trained_on and not is_exhausted(iterator)

    def _reached(self) -> None:
        """The script goes on to its next step: if somebody waits for this boundary, here it is."""
        if self._waiting and os.getpid() == self._process:
            self._waiting = False
            self._forwards.remove()
            with _ours:
                self.at_boundary(self.step)

    def _chosen(self, iterator: _BaseDataLoaderIter, index: Any) -> Any:
        """The examples to fetch: what the sampler says, unless a treatment says otherwise."""
        if self.replace is None or iterator._dataset is not self.replace_on:
            return index
        return self.replace(iterator, index)

    def _delivered(self, iterator: _BaseDataLoaderIter, batch: Any) -> None:
        if torch.is_grad_enabled():
            if iterator is not self._last:
                self.epochs.append(self.step)
            self._last = iterator
        with _ours:
            self._note(iterator, batch)

    def _note(self, iterator: _BaseDataLoaderIter, batch: Any) -> None:
        self.on_batch(batch)
        self.num_workers = max(self.num_workers, iterator._num_workers)
        index = getattr(iterator, "delivered_index", None)
        self.delivered.deliver(iterator._dataset, index, batch)

    def _descends(self, tensor: Tensor) -> None:
        self.before_backward()
        self.loader = self._last
        if tensor.numel() == 1:
            self._losses_of_backward.append(tensor.detach())


def trains(module: Module) -> bool:
    """Whether a call of this module, here and now, is a training step's."""
    return (
        torch.is_grad_enabled()
        and module.training
        and any(p.requires_grad for p in module.parameters())
    )


def is_exhausted(iterator: _BaseDataLoaderIter) -> bool:
    """Whether it has delivered all of its batches, as far as their number is known."""
    try:
        size = len(iterator._index_sampler)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # a sampler without an end
        return False
    return iterator._dataset_kind == _DatasetKind.Map and iterator._num_yielded >= size
