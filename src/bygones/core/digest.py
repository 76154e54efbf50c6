"""Canonical bytes of a value, and their SHA-256.

Equal values give equal bytes on every machine; values that differ in one bit, in type, in shape or
in a name give different bytes (-0.0 and 0.0 differ, the integer 1 and the float 1.0 differ).
Each value is written as a tag, its length, and its content, so no two can run into each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bygones.core.values import Digest


def digest(value: Any) -> Digest:
    """SHA-256 of a value's canonical bytes, as 64 hex digits.

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
    """A leaf that is an array or a tensor, as a numpy array of the same bits.

    numpy has no bfloat16 and no float8, so a tensor of such a type comes as its bytes.
    """
    if isinstance(leaf, np.ndarray):
        return leaf
    try:
        return leaf.numpy(force=True)
    except TypeError:
        uint8 = sys.modules["torch"].uint8  # a tensor is here, so torch is loaded
        return leaf.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()


def is_array(leaf: Any) -> bool:
    """True of numpy arrays and of torch tensors, without importing torch."""
    return isinstance(leaf, np.ndarray) or (hasattr(leaf, "detach") and hasattr(leaf, "dtype"))


def same_bits(one: Any, other: Any) -> bool:
    """Equal to the bit, in type and shape too (so NaN equals NaN, and -0.0 is not 0.0)."""
    if is_array(one) and is_array(other):
        if str(one.dtype) != str(other.dtype) or tuple(one.shape) != tuple(other.shape):
            return False
        return as_array(one).tobytes() == as_array(other).tobytes()
    if is_array(one) or is_array(other):
        return False
    return digest(one) == digest(other)


def byte_chunks(value: Any) -> Iterator[bytes | memoryview]:
    """The canonical bytes of a value, piece by piece."""
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"T" if value else b"F"
        case int():
            yield _framed(b"i", str(value).encode())
        case float():
            yield b"f" + struct.pack(">d", value)
        case str():
            yield _framed(b"s", value.encode())
        case bytes():
            yield _framed(b"b", value)
        case list() | tuple():
            yield _framed(b"l", str(len(value)).encode())
            if {*map(type, value)} == {int}:  # a generator's state is hundreds of them: all at once
                yield b"".join([_framed(b"i", str(item).encode()) for item in value])
                return
            for item in value:
                yield from byte_chunks(item)
        case Mapping():
            yield _framed(b"d", str(len(value)).encode())
            for key in sorted(value):
                yield from byte_chunks(key)
                yield from byte_chunks(value[key])
        case np.generic():
            yield from byte_chunks(np.asarray(value))
        case np.ndarray() if value.dtype.hasobject:
            raise TypeError(f"no canonical bytes for an array of {value.dtype}: {value!r}")
        case _ if is_array(value):
            array = np.ascontiguousarray(as_array(value))
            yield _framed(
                b"a", f"{value.dtype}|{tuple(value.shape)}".replace("torch.", "").encode()
            )
            # What numpy lends to nobody (times, and arrays of no size) goes by a copy of its bytes.
            yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield _framed(b"c", type(value).__qualname__.encode())
            yield from byte_chunks(
                {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            )
        case _:
            raise TypeError(f"no canonical bytes for a {type(value).__name__}: {value!r}")


def _framed(tag: bytes, content: bytes) -> bytes:
    return tag + str(len(content)).encode() + b":" + content
