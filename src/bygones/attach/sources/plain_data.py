"""Plain data: numbers, text, None, arrays, and built-in containers of these, copied as one value.

A copy of a container is a `Container`, which can be digested, compared and sent to another process.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import is_array, same_bits
from bygones.training.leaves import clone_leaf

_MOST_BYTES = 1 << 28  # larger arrays are taken for data, and not copied to see if they change
_MOST_ITEMS = 50_000  # larger containers likewise
_DEEPEST = 8
_SCALARS = (bool, int, float, str, bytes, np.generic)
_KEYS = (bool, int, float, str, bytes)
_SEQUENCES = {"list": list, "deque": deque, "tuple": tuple}


@dataclass(frozen=True)
class Container:
    """A copy of a built-in container.

    `kind`: list, tuple, deque, dict or set, with the name of a subclass after a colon; `keys`: of a dict,
    else empty; `items`: copies of its items, of a set in sorted order.
    """

    kind: str
    keys: tuple[Any, ...]
    items: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nbytes(self) -> int:
        """Its size in bytes, plain values counted as eight."""
        return sum(int(getattr(item, "nbytes", 8)) for item in self.items)


class PlainData:
    """Which values are plain data. `held`: identities of the arrays that belong to modules and optimizers."""

    def __init__(self, held: Collection[int]) -> None:
        self._held = held
        self._left = 0

    def __contains__(self, value: Any) -> bool:
        self._left = _MOST_ITEMS
        return self._is_plain(value, 0)

    def _is_plain(self, value: Any, depth: int) -> bool:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            return False
        if value is None or isinstance(value, _SCALARS):
            return True
        if isinstance(
            value, Tensor | np.ndarray
        ):  # not by attributes: an object may refuse to be asked
            return (
                id(value) not in self._held
                and value.nbytes <= _MOST_BYTES
                and not (isinstance(value, np.ndarray) and value.dtype.hasobject)
            )
        if not is_container(value):
            return False
        if isinstance(value, Mapping) and not all(map(_is_plain_key, value)):
            return False
        items = value.values() if isinstance(value, Mapping) else value
        return all(self._is_plain(item, depth + 1) for item in items)


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, _KEYS) or (isinstance(key, tuple) and all(map(_is_plain_key, key)))


def is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | deque | dict | set | frozenset)


def copy_plain(value: Any) -> Any:
    """Copy a plain value; the copy shares no memory with it. Raises `TypeError` for what is not plain."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if value is None or isinstance(value, _SCALARS):
        return value
    if is_array(value):
        return clone_leaf(value)
    if isinstance(value, Mapping):
        items = tuple(copy_plain(item) for item in value.values())
        return Container(_kind_of(value, dict), tuple(value), items)
    if isinstance(value, set | frozenset):
        return Container("set", (), tuple(sorted(map(copy_plain, value), key=repr)))
    for kind in _SEQUENCES.values():
        if isinstance(value, kind):
            return Container(_kind_of(value, kind), (), tuple(map(copy_plain, value)))
    raise TypeError(f"not plain data: a {type(value).__name__}")


def _kind_of(value: Any, kind: type) -> str:
    return kind.__name__ if type(value) is kind else f"{kind.__name__}:{type(value).__name__}"


def build_plain(value: Any) -> Any:
    """Build the value that `copy_plain` copied."""
    if not isinstance(value, Container):
        return clone_leaf(value)
    kind, _, name = value.kind.partition(":")
    items = [build_plain(item) for item in value.items]
    if kind == "dict":
        return dict(zip(value.keys, items, strict=True))
    if kind == "set":
        return set(items)
    named = getattr(sys.modules.get("__main__"), name, None) if name else None
    if kind == "tuple" and hasattr(named, "_make"):
        return named._make(items)  # type: ignore[union-attr]
    return _SEQUENCES[kind](items)


@torch.no_grad()
def fill(held: Any, value: Any) -> bool:
    """Write a copy into the value that is held, in place. Returns whether that is possible.

    Items that are equal to the bit are left alone, so that other names for them stay valid. An array is
    overwritten only if it is no view into another one.
    """
    if same_plain(held, value):
        return True  # not touched: something may be iterating over it
    if is_array(held) and is_array(value):
        return _overwrite(held, value)
    if not isinstance(value, Container) or value.kind != _kind_of_held(held):
        return False
    if isinstance(held, dict):
        items = dict(zip(value.keys, value.items, strict=True))
        for key in [key for key in held if key not in items]:
            del held[key]
        for key, item in items.items():
            if key not in held or not fill(held[key], item):
                held[key] = build_plain(item)
        return True
    if isinstance(held, list | deque):
        old = list(held)
        held.clear()
        held.extend(
            old[i] if i < len(old) and fill(old[i], item) else build_plain(item)
            for i, item in enumerate(value.items)
        )
        return True
    if isinstance(held, set):
        held.clear()
        held.update(map(build_plain, value.items))
        return True
    return False


def same_plain(held: Any, copy: Any) -> bool:
    """Compare a value with a copy, to the bit."""
    try:
        return same_bits(copy_plain(held), copy)
    except TypeError:
        return False


def _kind_of_held(held: Any) -> str:
    if isinstance(held, dict):
        return _kind_of(held, dict)
    if isinstance(held, set):
        return "set"
    return next((_kind_of(held, k) for k in _SEQUENCES.values() if isinstance(held, k)), "")


def _overwrite(held: Any, value: Any) -> bool:
    if isinstance(held, Tensor):
        whole = held._base is None and held.is_contiguous()
        if not (whole and isinstance(value, Tensor)):
            return False
        if held.shape != value.shape or held.dtype != value.dtype:
            return False
        held.copy_(value)
        return True
    if not isinstance(value, np.ndarray) or held.base is not None:
        return False
    if held.shape != value.shape or held.dtype != value.dtype:
        return False
    held[...] = value
    return True


def arrays_in(leaf: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a value or a copy, each with its path."""
    if is_array(value):
        yield leaf, value
    elif isinstance(value, Container):
        keys = value.keys or range(len(value.items))
        for key, item in zip(keys, value.items, strict=True):
            yield from arrays_in(f"{leaf}[{key!r}]", item)


def differing_items(one: Any, other: Any) -> list[str]:
    """Name the items in which two copies differ, as paths; empty if they differ as a whole."""
    if not isinstance(one, Container) or not isinstance(other, Container):
        return []
    if one.kind != other.kind or len(one) != len(other) or set(one.keys) != set(other.keys):
        return []
    mine, theirs = (
        dict(zip(c.keys or range(len(c.items)), c.items, strict=True)) for c in (one, other)
    )
    return [f"[{key!r}]" for key in mine if not same_bits(mine[key], theirs[key])]
