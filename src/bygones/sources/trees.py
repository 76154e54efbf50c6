"""Nested containers as flat states and back: how schedulers, dicts and objects become leaves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.errors import RecipeError
from bygones.leaves import clone
from bygones.values import Leaf, State

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
        return clone(state[""])
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
    return {int(head[1:]) if head[0] == "#" else head.lstrip("."): v for head, v in values.items()}


def like(template: Any, value: Any) -> Any:
    """`value` with the container types of `template` (a Counter comes back as a Counter)."""
    if isinstance(template, Mapping) and isinstance(value, dict):
        inner = {key: like(template.get(key), item) for key, item in value.items()}
        kind: Any = type(template)
        return kind(inner)
    if isinstance(template, list) and isinstance(value, list):
        padded = [*template, *([None] * len(value))]
        return [like(kind, item) for kind, item in zip(padded, value, strict=False)]
    return value


def generator_state(generator: Any) -> Any:
    """The state of a random generator as a nested value, or None if it is not a generator."""
    match generator:
        case torch.Generator():
            return {"torch": generator.get_state()}
        case np.random.Generator():
            return {"numpy": dict(generator.bit_generator.state)}
        case np.random.RandomState():
            return {"numpy": dict(generator.get_state(legacy=False))}
        case random.Random():
            return {"python": generator.getstate()}
        case _:
            return None


def set_generator_state(generator: Any, state: Any) -> None:
    """Puts back what `generator_state` gave."""
    match generator:
        case torch.Generator():
            generator.set_state(state["torch"])
        case np.random.Generator():
            generator.bit_generator.state = state["numpy"]
        case np.random.RandomState():
            generator.set_state(state["numpy"])
        case _:
            generator.setstate(state["python"])


def _flatten(value: Any, path: str, leaves: dict[str, Leaf], where: str) -> None:
    join = f"{path}/" if path else ""
    match value:
        case Tensor() | np.ndarray():
            leaves[path] = clone(value)
        case np.generic():
            leaves[path] = value.item()
        case _ if isinstance(value, _SCALARS):
            leaves[path] = value
        case Mapping() if not value:
            leaves[f"{join}{{}}"] = None
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, int | str) or (isinstance(key, str) and "/" in key):
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


def _guarded(key: str) -> str:
    """A key that cannot be taken for an index or an empty container."""
    return f".{key}" if not key or key[0] in "#[(.{" else key
