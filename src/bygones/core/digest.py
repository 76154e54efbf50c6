"""Content digests: the SHA-256 of a canonical serialization of nested values.

Equal values give equal bytes on every machine. Values that differ in one bit, in type, in shape or
in a name give different bytes: -0.0 and 0.0 differ, and so do the integer 1 and the float 1.0.
Each value is written as a tag, its length and its content, so the encoding is injective.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from bygones.core.values import Digest


def digest(value: Any) -> Digest:
    """Hash a value: the SHA-256 of its canonical bytes, as 64 hex digits.

    Raises `TypeError` for what has no canonical bytes (see `byte_chunks`).

    >>> digest({"b": 1, "a": 2.0}) == digest({"a": 2.0, "b": 1})
    True
    >>> digest(1) == digest(1.0), digest([1, [2]]) == digest([[1], 2])
    (False, False)
    """
    hasher = hashlib.sha256()
    for chunk in byte_chunks(value):
        hasher.update(chunk)
    return hasher.hexdigest()


def as_array(leaf: Any) -> np.ndarray:
    """Convert an array or a tensor to a numpy array of the same bits.

    Numpy has no bfloat16 and no float8, so a tensor of such a type is returned as its bytes (uint8).
    """
    if isinstance(leaf, np.ndarray):
        return cast("np.ndarray", leaf)
    try:
        return leaf.numpy(force=True)
    except TypeError:
        uint8 = sys.modules["torch"].uint8  # the leaf is a tensor, so torch is loaded
        return leaf.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()


def is_array(leaf: Any) -> bool:
    """Return True for numpy arrays and torch tensors, without importing torch."""
    return isinstance(leaf, np.ndarray) or (hasattr(leaf, "detach") and hasattr(leaf, "dtype"))


def same_bits(one: Any, other: Any) -> bool:
    """Compare bit by bit, types and shapes included: NaN equals NaN, and -0.0 differs from 0.0."""
    if is_array(one) and is_array(other):
        if str(one.dtype) != str(other.dtype) or tuple(one.shape) != tuple(other.shape):
            return False
        return as_array(one).tobytes() == as_array(other).tobytes()
    if is_array(one) or is_array(other):
        return False
    return digest(one) == digest(other)


def byte_chunks(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the canonical bytes of a value, chunk by chunk.

    Supported: None, bool, int, float, str, bytes, lists and tuples (not told apart), mappings with
    sortable keys, numpy scalars and arrays, torch tensors, and dataclass instances of these.
    Raises `TypeError` for anything else.
    """
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"T" if value else b"F"
        case int():
            yield _frame(b"i", str(value).encode())
        case float():
            yield b"f" + struct.pack(">d", value)
        case str():
            yield _frame(b"s", value.encode())
        case bytes():
            yield _frame(b"b", value)
        case list() | tuple():
            yield from _sequence_chunks(cast("Sequence[Any]", value))
        case Mapping():
            mapping = cast("Mapping[Any, Any]", value)
            yield _frame(b"d", str(len(mapping)).encode())
            for key in sorted(mapping):
                yield from byte_chunks(key)
                yield from byte_chunks(mapping[key])
        case np.generic():
            yield from byte_chunks(np.asarray(cast("Any", value)))
        case np.ndarray() if (array := cast("np.ndarray", value)).dtype.hasobject:
            raise TypeError(f"no canonical bytes for an array of {array.dtype}: {array!r}")
        case _ if is_array(value):
            array = np.ascontiguousarray(as_array(value))
            yield _frame(b"a", f"{value.dtype}|{tuple(value.shape)}".replace("torch.", "").encode())
            # datetime64 and empty arrays do not support the buffer protocol; hash a copy of their bytes.
            yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield _frame(b"c", type(value).__qualname__.encode())
            yield from byte_chunks(
                {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            )
        case _:
            raise TypeError(f"no canonical bytes for a {type(value).__name__}: {value!r}")


def _sequence_chunks(items: Sequence[Any]) -> Iterator[bytes | memoryview]:
    yield _frame(b"l", str(len(items)).encode())
    if {*map(type, items)} == {int}:
        # The state of a random generator is a list of hundreds of integers: write them at once.
        yield b"".join([_frame(b"i", str(item).encode()) for item in items])
        return
    for item in items:
        yield from byte_chunks(item)


def _frame(tag: bytes, content: bytes) -> bytes:
    """Prefix content with its tag and its length."""
    return tag + str(len(content)).encode() + b":" + content
