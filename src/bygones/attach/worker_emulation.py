"""Worker emulation: run a DataLoader's workers in the main process, with the same batches to the bit.

Live worker processes cannot be forked along with the main process; plain objects can. Each worker is
therefore copies of the dataset, `collate_fn` and `worker_init_fn`, made when its process would
have been started, and states of the global generators of its own, which are in place only while it
works. The sampler is called as far ahead as the real loader calls it; an example is read only when its
batch is delivered.

What differs from real workers:
- Only what can be reached through attributes and containers is copied. Globals of modules, attributes of
  classes, what functions close over and bound methods of C objects (`private_generator.random`) are the
  main process's own, for every worker, and are seen as they are at the delivery. So are grad mode,
  default dtype and every other setting of the process, its thread count, files and environment.
- Memory that processes share (`share_memory_`, writable maps) is copied like any other; what cannot be
  copied (locks, open files, running generators) is refused with a sentence.
- The batches take turns with training: they cost its time, and the copies its memory. They lie in
  ordinary memory, not shared and not pinned; `timeout` and `multiprocessing_context` mean nothing.
- Where real workers race, one outcome is taken: that of workers that are punctual. That is so with
  `in_order=False`; for persistent workers that stay behind in an epoch which was broken off while some
  of an iterable dataset's had already ended; and for a dataset that writes into what it has handed out.
- Generators of accelerators are left as the worker's code leaves them. What ends a process (`sys.exit`,
  an error in `iter(dataset)` of a later epoch) comes through as itself. Data pipes are refused.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe
from torch.utils.data._utils import worker as torch_worker
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from bygones.core.errors import ScriptError
from bygones.training.generators import (
    generator_state,
    global_generators,
    preserve_global_generators,
    set_generator_state,
)

_ENDED = object()  # what a worker answers whose part of an iterable dataset is used up


class NotInProcess(ScriptError):
    """A loader's workers cannot be emulated, and have to be processes."""


@contextmanager
def emulating() -> Iterator[None]:
    """Emulate the workers of every loader whose iteration begins inside this context."""
    real = DataLoader._get_iterator

    def get_iterator(loader: DataLoader[Any]) -> _BaseDataLoaderIter:
        if loader.num_workers == 0:
            return real(loader)
        loader.check_worker_number_rationality()
        return InProcessWorkers(loader)

    DataLoader._get_iterator = get_iterator  # type: ignore[method-assign]
    try:
        yield
    finally:
        DataLoader._get_iterator = real  # type: ignore[method-assign]


class InProcessWorkers(_BaseDataLoaderIter):
    """Loader iterator with emulated workers, in place of the multi-process one.

    `delivered_index`: index batch of the last delivered batch; None if the examples have no indices.
    `replace_index`: returns the index batch to read in place of the sampler's, when the batch is due. The
    sampler is called as without it.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        if isinstance(self._dataset, IterDataPipe | MapDataPipe):
            raise NotInProcess(
                f"a DataLoader with workers over the data pipe {type(self._dataset).__name__} cannot be "
                "forked with its process. Use num_workers=0 or a Dataset."
            )
        self.delivered_index: Any = None
        self.replace_index: Callable[[Any], Any] | None = None
        self._ahead = int(loader.prefetch_factor or 2) * self._num_workers
        self._tasks: deque[tuple[int, Any]] = deque()  # (worker, index batch) in order of delivery
        self._workers_here = self._started_workers(int(self._base_seed), loader.worker_init_fn)
        self._reset(loader, first_iter=True)

    def _started_workers(
        self, base_seed: int, init_fn: Callable[[int], None] | None
    ) -> list[_Worker]:
        """Copy all workers before any starts, so that none sees what another's `worker_init_fn` did."""
        waiting: list[tuple[_Worker, Any]] = []
        for rank in range(self._num_workers):
            dataset, collate_fn, init = _copied(self._dataset, self._collate_fn, init_fn)
            info = torch_worker.WorkerInfo(
                id=rank,
                num_workers=self._num_workers,
                seed=base_seed + rank,
                dataset=dataset,
            )
            parts = self._dataset_kind, dataset, self._auto_collation, collate_fn, self._drop_last
            waiting.append((_Worker(info, partial(_DatasetKind.create_fetcher, *parts)), init))
        for worker, init in waiting:
            worker.start(base_seed, init)
        return [worker for worker, _ in waiting]

    def _reset(self, loader: DataLoader[Any], first_iter: bool = False) -> None:
        """Begin an epoch. Persistent workers finish the batches requested so far and keep their streams."""
        super()._reset(loader, first_iter)
        if not first_iter:
            for rank, index in self._tasks:
                self._workers_here[rank].fetch(index)
            for worker in self._workers_here:
                worker.resume()
        self._tasks.clear()
        self._active = [True] * self._num_workers
        self._turns = itertools.cycle(range(self._num_workers))
        for _ in range(self._ahead):
            self._ask_sampler()

    def _ask_sampler(self) -> None:
        """Assign one more index batch to the next worker in turn that has not ended."""
        try:
            index = self._next_index()
        except StopIteration:
            return
        for _ in range(self._num_workers):
            rank = next(self._turns)
            if self._active[rank]:
                self._tasks.append((rank, copy.deepcopy(index)))  # samplers may reuse a list
                return

    def _next_data(self) -> Any:  # type: ignore[override]
        numbered = self._dataset_kind == _DatasetKind.Map
        while self._tasks:
            rank, index = self._tasks.popleft()
            if numbered and self.replace_index is not None:
                index = self.replace_index(index)
            batch = self._workers_here[rank].fetch(index)
            self._active[rank] = batch is not _ENDED
            self._ask_sampler()
            if batch is _ENDED:
                continue
            if isinstance(batch, ExceptionWrapper):
                batch.reraise()
            self.delivered_index = index if numbered else None
            return batch
        if not self._persistent_workers:
            self._shutdown_workers()
        raise StopIteration

    def _shutdown_workers(self) -> None:
        """Release what the workers hold. Some scripts call this themselves."""
        self._tasks.clear()
        self._workers_here = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the iterator itself: a worker's copies may refer to it, but do not use it."""
        return self


class _Worker:
    """State of one worker: its copies, the states of its generators, and its position."""

    def __init__(self, info: torch_worker.WorkerInfo, new_fetcher: Callable[[], Any]) -> None:
        self._info = info
        self._new_fetcher = new_fetcher
        self._fetcher: Any = None
        self._streams: dict[str, Any] = {}
        self._ended = False
        self._failed: ExceptionWrapper | None = None  # raised in place of the first batch

    def start(self, base_seed: int, init_fn: Callable[[int], None] | None) -> None:
        """Seed the generators as a new worker process does, and create the fetcher."""
        with self._inside():
            random.seed(self._info.seed)
            torch.default_generator.manual_seed(self._info.seed)
            np.random.seed(torch_worker._generate_state(base_seed, self._info.id))
            try:
                if init_fn is not None:
                    init_fn(self._info.id)
                self._fetcher = self._new_fetcher()
            except Exception:
                self._failed = self._wrapped()

    def resume(self) -> None:
        """Begin an epoch in a persistent worker: the dataset starts over, the streams go on."""
        self._ended = False
        with self._inside():
            self._fetcher = self._new_fetcher()

    def fetch(self, index: Any) -> Any:
        """Return what a worker would send: a batch, a wrapped exception, or `_ENDED`."""
        if self._ended:
            return _ENDED
        if self._failed is not None:
            failed, self._failed = self._failed, None
            return failed
        with self._inside():
            try:
                return _sent(self._fetcher.fetch(copy.copy(index)))
            except Exception as error:
                streams = isinstance(self._info.dataset, IterableDataset)
                self._ended = streams and isinstance(error, StopIteration)
                return _ENDED if self._ended else self._wrapped()

    def _wrapped(self) -> ExceptionWrapper:
        return ExceptionWrapper(where=f"in DataLoader worker process {self._info.id}")

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Set the global generators to this worker's states, and restore the main process's afterwards."""
        around = torch_worker._worker_info
        with preserve_global_generators():
            for name, state in self._streams.items():
                set_generator_state(global_generators()[name], state)
            torch_worker._worker_info = self._info
            try:
                yield
            finally:
                torch_worker._worker_info = around
                self._streams = {n: generator_state(g) for n, g in global_generators().items()}


def _copied(*held: Any) -> tuple[Any, ...]:
    """Deep-copy what a worker process would hold. Modules and the global generators are not copied."""
    shared = [*sys.modules.values(), *global_generators().values()]
    try:
        with preserve_global_generators():
            return copy.deepcopy(held, {id(thing): thing for thing in shared})
    except Exception as error:
        raise NotInProcess(
            f"the dataset {type(held[0]).__name__}, its collate_fn or its worker_init_fn cannot be copied "
            f"for a DataLoader's worker ({type(error).__name__}: {error}). Use num_workers=0, or open "
            "files and the like only when an example is read."
        ) from error


def _sent(batch: Any) -> Any:
    """Return a batch as it arrives from a worker process: new objects, with the same tensor data.

    Collating in a worker puts tensors into shared memory, which forked processes would share; they are
    copied out of it.
    """
    file = io.BytesIO()
    sender = _Sender(file)
    sender.dump(batch)
    file.seek(0)
    return _Receiver(file, [_arrived(tensor) for tensor in sender.tensors]).load()


def _arrived(tensor: Tensor) -> Tensor:
    shared = tensor.layout == torch.strided and tensor.is_shared()
    values = tensor.detach().clone() if shared else tensor.data
    return values.requires_grad_() if tensor.requires_grad else values


class _Sender(pickle.Pickler):
    """Pickler that stores plain tensors aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if type(obj) is not Tensor:
            return None
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        return self._numbers[id(obj)]


class _Receiver(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        return self._tensors[pid]
