"""Hash chains: lines of which each carries the digest of the ones before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from xxhash import xxh3_128

from bygones.core.digest import as_array, byte_chunks, is_array

_DEEPEST = 8  # objects within a batch, of classes of their own


def extend_chain(entry: str, batch: Any) -> str:
    """The next link of a chain over the contents of batches: xxh3 of the last link and of this batch."""
    hasher = xxh3_128(entry.encode())
    for part in _contents(batch):
        hasher.update(part)
    return hasher.hexdigest()


def fast_digest(value: Any) -> str:
    """xxh3 of a value's canonical bytes: to tell states apart at every step, at the speed of memory."""
    hasher = xxh3_128()
    for chunk in byte_chunks(value):
        hasher.update(chunk)
    return hasher.hexdigest()


def ledger_entry(
    step: int, ids: str, batches: str, loss: float | None, holds: Mapping[str, str]
) -> dict[str, Any]:
    """One entry, not yet chained. JSON has no NaN, so a loss that is no number is written in words."""
    number = loss if loss is None or math.isfinite(loss) else str(loss)
    return {"step": step, "ids": ids, "batches": batches, "loss": number, "holds": dict(holds)}


def state_digests(states: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`holds` of an entry: a digest of each source's state, and of each random stream's by its own."""
    holds = {name: fast_digest(state) for name, state in states.items() if name != "streams"}
    streams = states.get("streams", {})
    for name in sorted({leaf.partition("/")[0] for leaf in streams}):
        mine = {leaf: v for leaf, v in streams.items() if leaf.partition("/")[0] == name}
        holds[f"streams/{name}"] = fast_digest(mine)
    return holds


@lru_cache(maxsize=256)  # a batch is like the last one
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{dtype.str}{shape}".encode()


def _contents(batch: Any, depth: int = 0) -> Iterator[bytes | memoryview]:
    """The contents of a batch's tensors and arrays, and the text of what is neither.

    Of an object of a class of its own, its attributes; of anything else, the name of its class.
    """
    if is_array(batch):
        array = as_array(batch)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        yield _head(array.dtype, array.shape)
        # What numpy lends to nobody (times, and arrays of no size) goes by its bytes.
        yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
    elif isinstance(batch, Mapping):
        for key, item in batch.items():
            yield str(key).encode()
            yield from _contents(item, depth)
    elif isinstance(batch, list | tuple):
        for item in batch:
            yield from _contents(item, depth)
    elif isinstance(batch, bool | int | float | complex | str | bytes | np.generic | None):
        yield repr(batch).encode()
    else:
        yield type(batch).__qualname__.encode()
        if depth < _DEEPEST:
            yield from _contents(getattr(batch, "__dict__", {}), depth + 1)
