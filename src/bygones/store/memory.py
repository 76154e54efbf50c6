"""In-memory store: lasts as long as the process."""

from __future__ import annotations

import hashlib
import json

from bygones.core.errors import StoreError
from bygones.core.values import Digest
from bygones.store.base import AbstractStore, Damaged, Record


class MemoryStore(AbstractStore):
    """Objects and records in dictionaries, for a study that is not to be kept.

    >>> store = MemoryStore()
    >>> store.get(store.put(b"bygones"))
    b'bygones'
    """

    def __init__(self) -> None:
        self._objects: dict[Digest, bytes] = {}
        self._records: dict[Digest, dict[str, str]] = {}

    def __getstate__(self) -> object:
        raise StoreError(
            "a store in memory cannot be shared with other processes: what they train would be lost. "
            "Give measure() a FolderStore, or let it run serially."
        )

    def put(self, content: bytes) -> Digest:
        digest = hashlib.sha256(content).hexdigest()
        self._objects[digest] = content
        return digest

    def get(self, digest: Digest) -> bytes:
        if digest not in self._objects:
            raise Damaged(f"there is no object {digest[:12]}… in the store.")
        return self._objects[digest]

    def has(self, digest: Digest) -> bool:
        return digest in self._objects

    def write_record(self, address: Digest, name: str, record: Record) -> None:
        self._records.setdefault(address, {})[name] = json.dumps(record)

    def has_record(self, address: Digest, name: str) -> bool:
        return name in self._records.get(address, {})

    def records(self, address: Digest) -> dict[str, Record]:
        there = dict(
            self._records.get(address, {})
        )  # copied at once, since other threads may write
        return {name: json.loads(text) for name, text in there.items()}
