"""Hash chains: a running digest in which each link covers the link before it and one more batch.

    link(n) = xxh3_128(link(n - 1) | contents of batch n)

xxh3 is fast and not cryptographic. It tells runs apart at every step; what is kept for audits is
hashed by SHA-256 (see digest.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
from xxhash import xxh3_128

from bygones.core.digest import as_array, byte_chunks, is_array

_MAX_DEPTH = 8  # of nested objects in a batch that are neither arrays nor containers


def extend_chain(link: str, batch: Any) -> str:
    """Return the next link of a chain over batches, as 32 hex digits; the first `link` is ""."""
    hasher = xxh3_128(link.encode())
    for part in _batch_chunks(batch):
        hasher.update(part)
    return hasher.hexdigest()


def fast_digest(value: Any) -> str:
    """Hash a value's canonical bytes by xxh3 (128 bits), at the speed of memory."""
    hasher = xxh3_128()
    for chunk in byte_chunks(value):
        hasher.update(chunk)
    return hasher.hexdigest()


def ledger_entry(
    step: int, ids: str, batches: str, loss: float | None, holds: Mapping[str, str]
) -> dict[str, Any]:
    """Build one ledger entry, not yet chained.

    `ids`, `batches`: chain links over example ids and over batch contents so far. `holds`: digests of
    the sources' states. JSON has no NaN and no infinity, so such a loss is written as text.
    """
    number = loss if loss is None or math.isfinite(loss) else str(loss)
    return {"step": step, "ids": ids, "batches": batches, "loss": number, "holds": dict(holds)}


def state_digests(states: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Hash the state of each source; of `streams`, hash each random stream separately."""
    holds = {name: fast_digest(state) for name, state in states.items() if name != "streams"}
    streams = states.get("streams", {})
    for name in sorted({leaf.partition("/")[0] for leaf in streams}):
        stream = {leaf: v for leaf, v in streams.items() if leaf.partition("/")[0] == name}
        holds[f"streams/{name}"] = fast_digest(stream)
    return holds


@lru_cache(maxsize=256)  # most batches have the same type and shape
def _encode_kind(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{dtype.str}{shape}".encode()


def _batch_chunks(batch: Any, depth: int = 0) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a batch: of arrays and tensors their data, of scalars and text their repr.

    Of any other object, the name of its class and the contents of its attributes.
    """
    if is_array(batch):
        array = as_array(batch)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        yield _encode_kind(array.dtype, array.shape)
        # datetime64 and empty arrays do not support the buffer protocol; hash a copy of their bytes.
        yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
    elif isinstance(batch, Mapping):
        for key, item in cast("Mapping[Any, Any]", batch).items():
            yield str(key).encode()
            yield from _batch_chunks(item, depth)
    elif isinstance(batch, list | tuple):
        for item in cast("Sequence[Any]", batch):
            yield from _batch_chunks(item, depth)
    elif isinstance(batch, bool | int | float | complex | str | bytes | np.generic | None):
        yield repr(cast("Any", batch)).encode()
    else:
        yield type(batch).__qualname__.encode()
        if depth < _MAX_DEPTH:
            yield from _batch_chunks(getattr(batch, "__dict__", {}), depth + 1)
