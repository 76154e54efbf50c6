"""Flatten nested containers to states and back, as for the state_dicts of schedulers and other objects."""

from __future__ import annotations

import copy
import re
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
    """Flatten a nested value to leaves by path.

    Raises `RecipeError`, which names `where`, for a key or a value that cannot be captured exactly.

    >>> flatten({"a": [1, 2.5], 3: {}}, "here")
    {'a/[0': 1, 'a/[1': 2.5, '#3/{}': None}
    """
    leaves: dict[str, Leaf] = {}
    _flatten(value, "", leaves, where)
    return leaves


def write_path(leaf: str) -> str:
    """Write a leaf's path as a reader expects it, with indices in brackets.

    >>> write_path("groups/[0/betas/(1"), write_path("state/#3/step")
    ('groups[0]/betas[1]', 'state[3]/step')
    """
    return re.sub(r"(?:/|^)[\[(#](-?\d+)(?=/|$)", r"[\1]", leaf)


def unflatten(state: State) -> Any:
    """Rebuild the nested value that `flatten` was given.

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
    """Convert the containers of `value` to the types of the template's: a Counter stays a Counter."""
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
def refill(existing: Any, value: Any) -> Any:
    """Write `value` into existing containers and arrays in place, and return the object that holds it.

    A training step may keep a reference to an inner dict, list or array, so these stay the same
    objects. A part whose shape or type differs is replaced in its container.
    """
    if isinstance(existing, MutableMapping) and isinstance(value, Mapping):
        items = {key: refill(existing.get(key), item) for key, item in value.items()}
        existing.clear()  # restores the snapshot's order of keys
        existing.update(items)
        return existing
    if isinstance(existing, list) and isinstance(value, list):
        padded = [*existing, *([None] * len(value))]
        existing[:] = [refill(old, new) for old, new in zip(padded, value, strict=False)]
        return existing
    if isinstance(existing, Tensor | np.ndarray) and _alike(existing, value):
        existing[...] = value
        return existing
    return value


def _alike(one: Tensor | np.ndarray, other: Any) -> bool:
    """Return True for two arrays of the same class, shape and dtype."""
    return type(one) is type(other) and one.shape == other.shape and one.dtype == other.dtype


def _flatten(value: Any, path: str, leaves: dict[str, Leaf], where: str) -> None:
    join = f"{path}/" if path else ""
    match value:
        case Tensor() | np.ndarray() if not _holds_objects(value):
            leaves[path] = clone_leaf(value)
        case _ if type(value) in _SCALARS:
            leaves[path] = value
        case np.generic():
            leaves[path] = np.asarray(
                value
            )  # keeps the dtype: sums in float32 and in float64 differ
        case _ if isinstance(value, _SCALARS):
            leaves[path] = value
        case Mapping() if not value:
            leaves[f"{join}{{}}"] = None
        case Mapping():
            for key, item in value.items():
                if type(key) not in (int, str) or "/" in str(key):
                    raise RecipeError(f"{where}: a key must be a name or a number; got {key!r}.")
                head = f"#{key}" if isinstance(key, int) else _escape_key(key)
                _flatten(item, f"{join}{head}", leaves, where)
        case list() | tuple() if not value:
            leaves[f"{join}{'[]' if isinstance(value, list) else '()'}"] = None
        case list() | tuple():
            bracket = "[" if isinstance(value, list) else "("
            for index, item in enumerate(value):
                _flatten(item, f"{join}{bracket}{index}", leaves, where)
        case _:
            at = f" at '{path}'" if path else ""
            raise RecipeError(
                f"{where} holds a {type(value).__name__}{at}, which cannot be captured "
                f"exactly. Expected tensors, arrays, numbers, text, and lists or dicts of these; "
                f"give it a state_dict, or write a source for it."
            )


def _holds_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject


def _escape_key(key: str) -> str:
    """Prefix a key that would otherwise read as an index or an empty container."""
    return f".{key}" if not key or key[0] in "#[(.{" else key
