"""Training data: recognise the loaders that deliver what a script trains on, epoch after epoch."""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter


@dataclass(frozen=True)
class TrainingData:
    """The dataset of a loader, and the instruction of the script's (or a library's) loop that fetches it.

    A script may build a new dataset and a new loader in each epoch. It is the same data if its kind and
    length are those of the one before, and the same loop fetches it with gradients enabled.
    """

    dataset: Any
    code: CodeType | None = None
    instruction: int = -1

    @classmethod
    def of(cls, iterator: _BaseDataLoaderIter) -> TrainingData:
        code, instruction = getattr(iterator, "fetched_at", (None, -1))
        return cls(iterator._dataset, code, instruction)

    def is_delivered_by(self, iterator: _BaseDataLoaderIter) -> bool:
        """Test whether a loader that is being fetched from delivers this data."""
        at = getattr(iterator, "fetched_at", (None, -2))
        return iterator._dataset is self.dataset or (
            at == (self.code, self.instruction) and self._is_alike(iterator._dataset)
        )

    def is_begun_by(self, loader: DataLoader[Any], frame: FrameType) -> bool:
        """Test whether a loader whose epoch is begun in this frame delivers this data."""
        return loader.dataset is self.dataset or (
            frame.f_code is self.code and self._is_alike(loader.dataset)
        )

    def _is_alike(self, dataset: Any) -> bool:
        return (
            torch.is_grad_enabled()
            and type(dataset) is type(self.dataset)
            and _length(dataset) == _length(self.dataset)
        )


def note_fetch(iterator: Any, frame: FrameType) -> None:
    """Note on a loader's iterator which instruction fetches from it."""
    iterator.fetched_at = frame.f_code, frame.f_lasti


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):  # a stream
        return None
