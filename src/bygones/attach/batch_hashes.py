"""What a script was shown, step by step, as a chain of hashes: two runs with equal chains saw the same.

    entry <- H(entry | content of the batch)      for each batch that a loader delivers

The content, not the numbers of the examples: augmentation that draws from another stream shows nowhere else.
"""

from __future__ import annotations

from typing import Any

from bygones.core.digest import is_array
from bygones.core.hash_chain import extend_chain


class DeliveredBatches:
    """The chain of one run. `steps[s]` is the chain's state at the end of step s.

    `order` is the chain over the numbers of the examples, as far as the loaders number them. `indices` is
    kept only while `keeping`: for each step, the index batches that its own data came from; `contents` too,
    which has a hash of each batch of its own.
    """

    def __init__(self, *, keeping: bool = False) -> None:
        self.entry = ""
        self.order = ""
        self.steps: list[str] = []
        self.keeping = keeping
        self.indices: dict[int, list[Any]] = {}
        self.contents: dict[int, list[str]] = {}
        self._open: list[tuple[int, Any, str]] = []

    def deliver(self, dataset: Any, index: Any, batch: Any) -> None:
        """Notes one delivered batch."""
        self.entry = extend_chain(self.entry, batch)
        self.order = extend_chain(self.order, index if is_array(index) else repr(index))
        if self.keeping:
            self._open.append((id(dataset), index, extend_chain("", batch)))

    def begin_here(self) -> None:
        """What was delivered before the last batch was not trained on: it was only skipped."""
        self._open = self._open[-1:]

    def close(self, dataset: Any) -> None:
        """The step is over; `dataset` is the one that it trained on."""
        if self.keeping:
            mine = [(i, content) for owner, i, content in self._open if owner == id(dataset)]
            self.indices[len(self.steps)] = [index for index, _ in mine]
            self.contents[len(self.steps)] = [content for _, content in mine]
            self._open = []
        self.steps.append(self.entry)
