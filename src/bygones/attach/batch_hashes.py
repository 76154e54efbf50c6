"""Hash chain of the batches that a script's loaders deliver: runs with equal chains saw equal data.

    entry <- H(entry | content of the batch)      for each batch that a loader delivers

The content is hashed, not the indices: augmentation that draws other random numbers shows only there.
"""

from __future__ import annotations

from typing import Any

from bygones.core.digest import is_array
from bygones.core.hash_chain import extend_chain


class DeliveredBatches:
    """The hash chain of one run.

    steps[s]       state of the chain at the end of step s
    order          hash chain over the indices of the examples, as far as the loaders number them
    indices[s]     index batches that step s trained on; recorded only if `keeping`
    contents[s]    hash of each batch that step s trained on; recorded only if `keeping`
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
        """Add one delivered batch."""
        self.entry = extend_chain(self.entry, batch)
        self.order = extend_chain(self.order, index if is_array(index) else repr(index))
        if self.keeping:
            self._open.append((id(dataset), index, extend_chain("", batch)))

    def begin_here(self) -> None:
        """Drop all batches but the last: a resumed run fetched them only to skip them."""
        self._open = self._open[-1:]

    def close(self, dataset: Any) -> None:
        """Close the running step; `dataset` is the one that it trained on."""
        if self.keeping:
            mine = [(i, content) for owner, i, content in self._open if owner == id(dataset)]
            self.indices[len(self.steps)] = [index for index, _ in mine]
            self.contents[len(self.steps)] = [content for _, content in mine]
            self._open = []
        self.steps.append(self.entry)
