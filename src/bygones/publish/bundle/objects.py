"""Read-only stores: the objects of a bundle, or those that are written into one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bygones.core.errors import BundleError
from bygones.core.values import Digest
from bygones.publish.bundle.layout import object_path, read_bytes
from bygones.store import AbstractStore, Record

_KEPT = 1 << 28  # bytes that are kept in memory: arms share the stretches before the fork


class ReadOnly(AbstractStore):
    """Objects that are read by a function, with a cache of the last ones."""

    def __init__(self, read: Callable[[Digest], bytes]) -> None:
        self._read = read
        self._kept: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes:
        if digest not in self._kept:
            self._kept[digest] = self._read(digest)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(digest)
        return self._kept[digest]

    def has(self, digest: Digest) -> bool:
        return digest in self._kept

    def put(self, content: bytes) -> Digest:
        _refuse()

    def write_record(self, address: Digest, name: str, record: Record) -> None:
        _refuse()

    def has_record(self, address: Digest, name: str) -> bool:
        return False

    def records(self, address: Digest) -> dict[str, Record]:
        return {}


def open_objects(folder: Path) -> ReadOnly:
    """Open the objects of a bundle. Damaged ones are not moved aside: reading never changes a bundle."""

    def read(digest: Digest) -> bytes:
        name = object_path(digest)
        if not (folder / name).exists():
            raise BundleError(f"{name}: this outcome is not in the bundle.")
        content = read_bytes(folder, name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(f"{name}: its SHA-256 is not its name.")
        return content

    return ReadOnly(read)


def _refuse() -> NoReturn:
    raise BundleError("a bundle is not written to.")
