"""Step record: the losses and batches that each training step used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data.dataloader import _BaseDataLoaderIter

from bygones.attach.batch_hashes import DeliveredBatches
from bygones.attach.training_data import TrainingData


class StepRecord:
    """What a script trained on, step by step.

    losses[s]            sum of the losses on which step s called `backward`
    backward_calls[s]    number of these calls; more than 1 if the step accumulates gradients
    epochs               steps in which the loader that is fetched first started over
    batches              the batches of each step, by index and by hash
    open_backward_calls  number of these calls in the running step
    loader               iterator that the running step fetches from; None before the first `backward`. Of
                         several that each step fetches from, the last
    together             iterators that this step and the one before fetched from, if there are several
    num_workers          largest number of workers of any loader
    """

    def __init__(self, *, keeps_batches: bool = False) -> None:
        self.losses: list[float] = []
        self.backward_calls: list[int] = []
        self.epochs: list[int] = []
        self.batches = DeliveredBatches(keeping=keeps_batches)
        self.loader: _BaseDataLoaderIter | None = None
        self.together: list[_BaseDataLoaderIter] = []
        self._open: list[_BaseDataLoaderIter] = []  # the running step's, with gradients enabled
        self._closed: list[_BaseDataLoaderIter] = []  # the former step's
        self.num_workers = 0
        self._last: _BaseDataLoaderIter | None = None  # the latest with gradients enabled
        self._first: _BaseDataLoaderIter | None = None  # of the loader that was fetched first
        self._open_losses: list[Tensor] = []
        self.open_backward_calls = 0

    @property
    def dataset(self) -> Any:
        """The dataset that is trained on; None if no loader delivers it."""
        return getattr(self.loader, "_dataset", None)

    @property
    def data(self) -> list[TrainingData]:
        """The data that is trained on, as loaders deliver it; empty if no loader does."""
        loaders = self.together or ([] if self.loader is None else [self.loader])
        return [TrainingData.of(loader) for loader in loaders]

    def add_batch(self, step: int, iterator: _BaseDataLoaderIter, batch: Any) -> None:
        """Record a batch that `iterator` delivered after `step` updates."""
        if torch.is_grad_enabled():
            first = iterator if self._first is None else self._first
            if iterator is not first or not self.epochs:
                if TrainingData.of(first).is_delivered_by(iterator):
                    self.epochs.append(step)
                    self._first = iterator
            self._last = iterator
            if not any(iterator is one for one in self._open):
                self._open.append(iterator)
        self.num_workers = max(self.num_workers, iterator._num_workers)
        index = getattr(iterator, "delivered_index", None)
        self.batches.deliver(iterator._dataset, index, batch)

    def add_backward(self, loss: Tensor) -> None:
        """Record a call of `backward`."""
        self.loader = self._last
        self.open_backward_calls += 1
        if loss.numel() == 1:
            self._open_losses.append(loss.detach())

    def close_step(self) -> None:
        """Close the running step: what follows belongs to the next one."""
        self.backward_calls.append(self.open_backward_calls)
        self.open_backward_calls = 0
        self.losses.append(sum(map(float, self._open_losses)))
        self.batches.close(self.dataset)
        self._open_losses = []
        if self._open:
            both = [
                one for one in self._open if any(_alike(one, former) for former in self._closed)
            ]
            self.together = both if len(both) > 1 else []
            self._open, self._closed = [], self._open


def _alike(one: _BaseDataLoaderIter, former: _BaseDataLoaderIter) -> bool:
    return TrainingData.of(former).is_delivered_by(one)
