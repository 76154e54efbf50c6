"""Content-addressed storage: objects named by their SHA-256, and records that say what they are.

object   bytes, named by their SHA-256; written once, checked at every read
record   a small JSON value under an address (what was trained) and a name (from where to where)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from safetensors.numpy import load, save

from bygones.core.digest import digest as digest_of
from bygones.core.errors import BygonesError, StoreError
from bygones.core.values import Digest

Record = dict[str, Any]


class Damaged(StoreError):
    """Raised for an object whose bytes do not match its name. The object has been moved aside."""


class AbstractStore(ABC):
    """Storage of finished segments. Everything in it can be trained again, so every read is checked."""

    @abstractmethod
    def put(self, content: bytes) -> Digest:
        """Store an object and return its digest; equal bytes are stored once."""

    @abstractmethod
    def get(self, digest: Digest) -> bytes:
        """Return the object's bytes. Raises `Damaged` if they are missing or changed."""

    @abstractmethod
    def has(self, digest: Digest) -> bool:
        """Return whether the object exists; its content is checked when it is read."""

    @abstractmethod
    def write_record(self, address: Digest, name: str, record: Record) -> None:
        """Store a record under an address, replacing one of the same name."""

    @abstractmethod
    def has_record(self, address: Digest, name: str) -> bool:
        """Return whether the record exists; it is checked when it is read."""

    @abstractmethod
    def records(self, address: Digest) -> dict[str, Record]:
        """Return all undamaged records under an address, by name."""


def seal_record(record: Record) -> bytes:
    """Encode a record as JSON with its digest."""
    return json.dumps({"digest": digest_of(record), "record": record}, sort_keys=True).encode()


def open_record(content: bytes) -> Record | None:
    """Decode a sealed record; None if its digest does not match, or if it is none."""
    try:
        sealed = json.loads(content)
        record = sealed["record"]
        sound = isinstance(record, dict) and digest_of(record) == sealed["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return cast(Record, record) if sound else None


def pack(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> bytes:
    """Encode arrays and a JSON value as safetensors bytes; equal values give equal bytes.

    The value is one metadata entry, since safetensors does not fix the order of several.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(contiguous, metadata={"bygones": json.dumps(meta, sort_keys=True)})


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Decode the arrays and the value that were packed. Raises `StoreError` for other bytes."""
    with reading("a stored object"):
        return load(content), unpack_meta(content)


def unpack_meta(content: bytes) -> dict[str, Any]:
    """Decode the JSON value alone. safetensors: 8 bytes of length, then a JSON header."""
    with reading("a stored object"):
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        return {**json.loads(header["__metadata__"]["bygones"])}


@contextmanager
def reading(what: str) -> Generator[None]:
    """Raise `StoreError` for whatever bytes that somebody else wrote can lead to."""
    try:
        yield
    except (BygonesError, MemoryError):
        raise
    except Exception as error:
        raise StoreError(
            f"{what} is not as bygones writes it ({type(error).__name__}: {str(error).rstrip('.'):.200})."
        ) from error
