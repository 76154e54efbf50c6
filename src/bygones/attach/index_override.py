"""Index override: replace the example indices that a DataLoader's sampler returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from bygones.attach.training_data import TrainingData

Rule = Callable[[Any, Any], Any]  # (loader iterator, the sampler's index batch) -> index batch


class IndexOverride:
    """Replace the index batches of the loaders of one dataset by a rule's.

    The sampler is called exactly as without an override, so it consumes the same random numbers; only the
    indices it returns are overridden.
    """

    def __init__(self) -> None:
        self._data: TrainingData | None = None
        self._rule: Rule | None = None

    def begin(self, loader: _BaseDataLoaderIter, rule: Rule) -> None:
        """Apply `rule` to every fetch to come of the data of `loader`."""
        self._data, self._rule = TrainingData.of(loader), rule

    def apply(self, iterator: _BaseDataLoaderIter, index: Any) -> Any:
        """Return the index batch to fetch in place of the sampler's `index`."""
        if self._rule is None or self._data is None or not self._data.is_delivered_by(iterator):
            return index
        return self._rule(iterator, index)


class QueuedIndices:
    """Rule: fetch the queued index batches first, one a fetch; then the sampler's own."""

    def __init__(self, queue: Iterable[Any]) -> None:
        self._queue = list(queue)

    def __call__(self, iterator: Any, index: Any) -> Any:
        return self._queue.pop(0) if self._queue else index
