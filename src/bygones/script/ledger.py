"""What a script was shown, step by step, as a chain of hashes: two runs with equal chains saw the same.

    entry <- H(entry | content of the batch)      for each batch that a loader delivers

The content, not the numbers of the examples: augmentation that draws from another stream shows nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from xxhash import xxh3_128

from bygones.digest import array_of


class Ledger:
    """The chain of one run. `steps[s]` is the chain's state at the end of step s.

    `indices` is kept only while `keeping`: for each step, the index batches that its own data came from.
    """

    def __init__(self) -> None:
        self.entry = ""
        self.steps: list[str] = []
        self.keeping = False
        self.indices: dict[int, list[Any]] = {}
        self._open: list[tuple[int, Any]] = []

    def deliver(self, dataset: Any, index: Any, batch: Any) -> None:
        """Notes one delivered batch."""
        chained = xxh3_128(self.entry.encode())
        for part in _contents(batch):
            chained.update(part)
        self.entry = chained.hexdigest()
        if self.keeping:
            self._open.append((id(dataset), index))

    def close(self, dataset: Any) -> None:
        """The step is over; `dataset` is the one that it trained on."""
        if self.keeping:
            mine = [index for owner, index in self._open if owner == id(dataset)]
            self.indices[len(self.steps)] = mine
            self._open = []
        self.steps.append(self.entry)


def _contents(batch: Any) -> Iterator[bytes | np.ndarray]:
    """The contents of a batch's tensors and arrays, and the text of what is neither."""
    if isinstance(batch, Tensor | np.ndarray):
        array = array_of(batch)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        kind = (array.dtype, array.shape)
        if kind not in _HEADS:
            _HEADS[kind] = f"{array.dtype.str}{array.shape}".encode()
        yield _HEADS[kind]
        # What numpy lends to nobody (times, and arrays of no size) goes by its bytes.
        yield array if array.size and array.dtype.kind in "biufc" else array.tobytes()
    elif isinstance(batch, Mapping):
        for key, item in batch.items():
            yield str(key).encode()
            yield from _contents(item)
    elif isinstance(batch, list | tuple):
        for item in batch:
            yield from _contents(item)
    elif isinstance(batch, bool | int | float | str | bytes | None):
        yield repr(batch).encode()


_HEADS: dict[Any, bytes] = {}  # how type and shape are written, made once: a batch is like the last one
