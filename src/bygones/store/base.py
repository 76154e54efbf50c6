"""What a store is: objects named by their content, and records that say what they are.

object   bytes, named by their SHA-256; written once, checked at every read
record   a small JSON value under an address (what was trained) and a name (from where to where)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from bygones.core.digest import digest as digest_of
from bygones.core.errors import StoreError
from bygones.core.values import Digest

Record = dict[str, Any]


class Damaged(StoreError):
    """An object whose bytes are not what its name says. It has been moved aside."""


class AbstractStore(ABC):
    """Where finished segments lie. Everything in it can be made again, so nothing in it is trusted."""

    @abstractmethod
    def put(self, content: bytes) -> Digest:
        """Keeps an object; the same bytes twice are kept once."""

    @abstractmethod
    def get(self, digest: Digest) -> bytes:
        """The object's bytes. Raises `Damaged` if they are gone or are not what was kept."""

    @abstractmethod
    def has(self, digest: Digest) -> bool:
        """Whether there is an object of this name (its content is checked when it is read)."""

    @abstractmethod
    def write_record(self, address: Digest, name: str, record: Record) -> None:
        """Keeps a record under an address; an older one of the same name is replaced."""

    @abstractmethod
    def has_record(self, address: Digest, name: str) -> bool:
        """Whether there is a record of this name (it is checked when it is read)."""

    @abstractmethod
    def records(self, address: Digest) -> dict[str, Record]:
        """All sound records under an address, by name."""


def seal_record(record: Record) -> bytes:
    """A record as JSON that carries its own digest."""
    return json.dumps({"digest": digest_of(record), "record": record}, sort_keys=True).encode()


def open_record(content: bytes) -> Record | None:
    """The record that was sealed; None if these bytes are not what was written."""
    try:
        whole = json.loads(content)
        return whole["record"] if digest_of(whole["record"]) == whole["digest"] else None
    except (ValueError, KeyError, TypeError):
        return None


def pack(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> bytes:
    """Arrays and a JSON value as safetensors bytes; equal in, equal out.

    The value travels as one metadata entry, since safetensors does not fix the order of several.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(contiguous, metadata={"bygones": json.dumps(meta, sort_keys=True)})


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the value that were packed."""
    return load(content), unpack_meta(content)


def unpack_meta(content: bytes) -> dict[str, Any]:
    """The JSON value alone. safetensors: 8 bytes of length, then a JSON header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return json.loads(header["__metadata__"]["bygones"])
