"""Nested containers as flat states and back: how schedulers, dicts and objects become leaves."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, State
from bygones.training.leaves import clone_leaf

_SCALARS = (bool, int, float, str, type(None))
_EMPTY: dict[str, Callable[[], Any]] = {"{}": dict, "[]": list, "()": tuple}


def flatten(value: Any, where: str) -> dict[str, Leaf]:
    """Leaves of a nested value, by path; `where` is named in the error for what cannot be kept.

    >>> flatten({"a": [1, 2.5], 3: {}}, "here")
    {'a/[0': 1, 'a/[1': 2.5, '#3/{}': None}
    """
    leaves: dict[str, Leaf] = {}
    _flatten(value, "", leaves, where)
    return leaves


def unflatten(state: State) -> Any:
    """The nested value that `flatten` was given.

    >>> unflatten(flatten({"a": [1, (2.5,)], 3: {}}, "here"))
    {'a': [1, (2.5,)], 3: {}}
    """
    if list(state) == [""]:
        return clone_leaf(state[""])
    groups: dict[str, dict[str, Leaf]] = {}
    for path, leaf in state.items():
        head, _, rest = path.partition("/")
        groups.setdefault(head, {})[rest] = leaf
    first = next(iter(groups), "{}")
    if first in _EMPTY:
        return _EMPTY[first]()
    values = {head: unflatten(group) for head, group in groups.items()}
    if first[0] in "[(":
        items = [values[head] for head in sorted(values, key=lambda head: int(head[1:]))]
        return items if first[0] == "[" else tuple(items)
    return {
        int(head[1:]) if head[0] == "#" else sys.intern(head.removeprefix(".")): inner
        for head, inner in values.items()
    }


def like(template: Any, value: Any) -> Any:
    """`value` in containers of the template's types: a Counter comes back as a Counter."""
    if isinstance(template, Mapping) and isinstance(value, dict):
        inner = {key: like(template.get(key), item) for key, item in value.items()}
        if not isinstance(template, MutableMapping):
            return inner
        filled = copy.copy(template)  # a defaultdict keeps its factory
        filled.clear()
        filled.update(inner)
        return filled
    if isinstance(template, list) and isinstance(value, list):
        padded = [*template, *([None] * len(value))]
        return [like(kind, item) for kind, item in zip(padded, value, strict=False)]
    if isinstance(template, tuple) and isinstance(value, tuple) and len(template) == len(value):
        items = [like(kind, item) for kind, item in zip(template, value, strict=True)]
        kind: Callable[..., Any] = type(template)
        return kind(*items) if hasattr(template, "_fields") else tuple(items)
    if isinstance(template, np.generic) and isinstance(value, np.ndarray):
        return value[()]
    return value


@torch.no_grad()
def refill(held: Any, value: Any) -> Any:
    """Puts `value` into the containers and arrays that are already there, and returns what then holds it.

    A training step may hold on to an inner dict, list or array; those stay the same objects. What is
    not alike (another shape, another type) is replaced in its container.
    """
    if isinstance(held, MutableMapping) and isinstance(value, Mapping):
        items = {key: refill(held.get(key), item) for key, item in value.items()}
        held.clear()  # so that the keys come in the order of the snapshot
        held.update(items)
        return held
    if isinstance(held, list) and isinstance(value, list):
        padded = [*held, *([None] * len(value))]
        held[:] = [refill(old, new) for old, new in zip(padded, value, strict=False)]
        return held
    if isinstance(held, Tensor | np.ndarray) and _alike(held, value):
        held[...] = value
        return held
    return value


def _alike(one: Tensor | np.ndarray, other: Any) -> bool:
    """Two arrays of the same kind, shape and type."""
    return type(one) is type(other) and one.shape == other.shape and one.dtype == other.dtype


def _flatten(value: Any, path: str, leaves: dict[str, Leaf], where: str) -> None:
    join = f"{path}/" if path else ""
    match value:
        case Tensor() | np.ndarray() if not _holds_objects(value):
            leaves[path] = clone_leaf(value)
        case _ if type(value) in _SCALARS:
            leaves[path] = value
        case np.generic():
            leaves[path] = np.asarray(value)  # keeps its type: float32 sums are not float64 sums
        case _ if isinstance(value, _SCALARS):
            leaves[path] = value
        case Mapping() if not value:
            leaves[f"{join}{{}}"] = None
        case Mapping():
            for key, item in value.items():
                if type(key) not in (int, str) or "/" in str(key):
                    raise RecipeError(f"{where}: a key must be a name or a number; got {key!r}.")
                head = f"#{key}" if isinstance(key, int) else _guarded(key)
                _flatten(item, f"{join}{head}", leaves, where)
        case list() | tuple() if not value:
            leaves[f"{join}{'[]' if isinstance(value, list) else '()'}"] = None
        case list() | tuple():
            bracket = "[" if isinstance(value, list) else "("
            for index, item in enumerate(value):
                _flatten(item, f"{join}{bracket}{index}", leaves, where)
        case _:
            raise RecipeError(
                f"{where} holds a {type(value).__name__} at '{path}', which cannot be captured "
                f"exactly. Expected tensors, arrays, numbers, text, and lists or dicts of these; "
                f"give it a state_dict, or write a source for it."
            )


def _holds_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject


def _guarded(key: str) -> str:
    """A key that cannot be taken for an index or an empty container."""
    return f".{key}" if not key or key[0] in "#[(.{" else key
