"""Script variables: memory in a script's own variables (a queue, a dict of averaged weights, a counter)."""

from __future__ import annotations

import ctypes
import types
import weakref
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bygones.attach.discovery import Place
from bygones.core.digest import is_array, same_bits
from bygones.core.values import Leaf, Lifetime, Origin, State
from bygones.training.leaves import clone_leaf, is_continuous
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource

_MOST_BYTES = 1 << 28  # larger arrays are taken for data, and not copied to see if they change
_GONE = object()
# Before Python 3.13 `f_locals` of a running function is a copy; this call writes it back.
_to_fast = ctypes.pythonapi.PyFrame_LocalsToFast


class ScriptVariables(AbstractSource):
    """Arrays and plain numbers reachable from one variable of the script: `<path from it>`.

    "New" means as before the first update. Where every array has the name and shape of a trained
    parameter, the variable is an average, and a new one equals today's weights. The lifetime is known to
    the script alone.
    """

    origin: Origin = "auxiliary"
    visibility = "process"

    def __init__(
        self, name: str, places: Mapping[str, Place], weights: Mapping[str, Tensor]
    ) -> None:
        self.name = name
        self.locations = self._places = dict(places)
        self._like = self._averaged(weights)
        self.is_result = not self._like
        if self._like:
            self.origin = "averaging"
        self.baseline = self.capture()
        if not any(is_continuous(leaf) for leaf in self.baseline.values()):
            self.capabilities = frozenset({"resettable"})

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return None: a recipe declares what it carries."""
        return None

    def held(self) -> dict[str, Any]:
        """Return what lies in each place now, by leaf; not a copy."""
        return {leaf: read(place) for leaf, place in self._places.items()}

    def capture(self) -> State:
        return {
            leaf: clone_leaf(np.asarray(value) if isinstance(value, np.generic) else value)
            for leaf, value in self.held().items()
            if is_array(value) or isinstance(value, bool | int | float | np.generic)
        }

    def restore(self, state: State) -> None:
        for leaf, value in state.items():
            write(self._places[leaf], value)

    def imitate(self, state: State) -> None:
        """Restore a state of another run, which may have fewer elements in a list or a dict."""
        self.restore({leaf: value for leaf, value in state.items() if leaf in self._places})
        gone = [place for leaf, place in self._places.items() if leaf not in state]
        for place in reversed(gone):  # from the end, so that earlier indices stay valid
            take_out(place)

    def fresh(self) -> State:
        today = {leaf: clone_leaf(weight) for leaf, weight in self._like.items()}
        return {**self.baseline, **today}

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")

    def _averaged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameter of each array's name and shape; empty unless every array has one."""
        arrays = {leaf: p.value for leaf, p in self._places.items() if is_continuous(p.value)}
        found = {leaf: _namesake(leaf, array, weights) for leaf, array in arrays.items()}
        like = {leaf: weight for leaf, weight in found.items() if weight is not None}
        return like if len(like) == len(arrays) else {}


def _namesake(leaf: str, array: Any, weights: Mapping[str, Tensor]) -> Tensor | None:
    for name, weight in weights.items():
        if (leaf.endswith((f"'{name}']", f".{name}")) or leaf == name) and (
            isinstance(array, Tensor) and array.shape == weight.shape
        ):
            return weight
    return None


def script_variables(
    places: tuple[Place, ...],
    before: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Any],
    expected: Collection[str] | None = None,
    taken: Collection[str] = (),
) -> dict[str, ScriptVariables]:
    """Find the variables that have changed since `before` (values by path, before the first update).

    A variable that is bound anew in each step may be a mere result (a loss, a batch), so arrays that are
    variables themselves count only if they were changed in place. `expected`: paths that count instead,
    results included. `taken`: names that other sources have.
    """
    groups: dict[str, dict[str, Place]] = {}
    for place in places:
        if expected is None:
            counts = place.path in before and _is_memory(place, before[place.path])
        else:
            counts = place.path in expected and can_write(place) and not _is_library_local(place)
        if counts:
            name = "numbers" if place.root in trained else place.root
            leaf = place.path[len(place.root) :].lstrip(".") or "value"
            groups.setdefault(name, {})[leaf] = place
    named: dict[str, ScriptVariables] = {}
    for root, members in groups.items():
        name = free_name(root, {*taken, *named})
        named[name] = ScriptVariables(name, members, weights)
    return named


def free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, with underscores appended until it is not taken."""
    while name in taken:
        name += "_"
    return name


def first_values(places: tuple[Place, ...]) -> dict[str, Any]:
    """Copy values by path, each with a weak reference to the array that held it (or None)."""
    return {
        place.path: (
            weakref.ref(place.value) if is_array(place.value) else None,
            clone_leaf(place.value),
        )
        for place in places
        if not is_array(place.value) or place.value.nbytes <= _MOST_BYTES
    }


def changed_paths(places: tuple[Place, ...], before: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths that changed since `before` or are new, whether memory or a mere result."""
    return frozenset(
        place.path
        for place in places
        if not (is_array(place.value) and place.value.nbytes > _MOST_BYTES)
        and (place.path not in before or not same_bits(before[place.path][1], place.value))
    )


def _is_memory(place: Place, before: tuple[Any, Any]) -> bool:
    held, value = before
    if same_bits(value, place.value):
        return False
    is_variable = place.path == place.root
    is_same_array = held is not None and held() is place.value
    return can_write(place) and (not is_variable or is_same_array)


def _is_library_local(place: Place) -> bool:
    """Test for a local variable of a library's running function: its batch, its loss."""
    return not place.own and "." not in place.path[len(place.root) :]


# ------------------------------------------------------------------ reading and writing a place


def read(place: Place) -> Any:
    """Return the value that lies there now."""
    owner, step = place.owner, place.step
    if owner is None:
        return place.value
    if isinstance(owner, types.FrameType):
        return owner.f_locals.get(step, _GONE)
    if place.path == place.root:
        return owner.get(step.rpartition(".")[2], _GONE)
    if isinstance(owner, Mapping):
        return owner.get(_key(owner, step), _GONE)
    if isinstance(owner, MutableSequence):
        index = int(step[1:-1])
        return owner[index] if index < len(owner) else _GONE
    if isinstance(owner, types.FunctionType) and step.startswith(" closing over "):
        return _cell(owner, step).cell_contents
    if isinstance(owner, types.FunctionType) and step.startswith(" using "):
        return owner.__globals__.get(step.removeprefix(" using "), _GONE)
    return getattr(owner, step[1:], _GONE) if step.startswith(".") else place.value


@torch.no_grad()
def write(place: Place, value: Leaf) -> None:
    """Write a value there: into the present array if shape and type agree, else in its place."""
    held = read(place)
    if is_array(held) and is_array(value) and held.shape == value.shape:
        if isinstance(held, Tensor):
            held.copy_(torch.as_tensor(value))
            return
        if isinstance(held, np.ndarray) and held.dtype == value.dtype:
            held[...] = value
            return
    if isinstance(held, np.generic) and isinstance(value, np.ndarray):
        value = value[()]
    owner, step = place.owner, place.step
    value = clone_leaf(value)
    if isinstance(owner, types.FrameType):
        owner.f_locals[step] = value
        _to_fast(ctypes.py_object(owner), ctypes.c_int(0))
    elif place.path == place.root and owner is not None:
        owner[step.rpartition(".")[2]] = value
    elif isinstance(owner, MutableMapping):
        owner[_key(owner, step)] = value
    elif isinstance(owner, MutableSequence):
        owner[int(step[1:-1])] = value
    elif isinstance(owner, types.FunctionType) and step.startswith(" closing over "):
        _cell(owner, step).cell_contents = value
    elif isinstance(owner, types.FunctionType):
        owner.__globals__[step.removeprefix(" using ")] = value
    elif step.startswith("."):
        setattr(owner, step[1:], value)


def take_out(place: Place) -> None:
    """Remove an element from its list or dict; other places are left alone."""
    owner, step = place.owner, place.step
    if place.path == place.root or read(place) is _GONE:
        return
    if isinstance(owner, MutableSequence):
        del owner[int(step[1:-1])]
    elif isinstance(owner, MutableMapping):
        del owner[_key(owner, step)]


def can_write(place: Place) -> bool:
    """Test whether `write` can change it: not in tuples and sets, and no local variable without a frame."""
    if is_array(place.value):
        return True
    if place.owner is None or isinstance(place.owner, tuple | set | frozenset):
        return False
    if isinstance(place.owner, types.FunctionType):
        return place.step.startswith((" closing over ", " using "))
    return isinstance(place.owner, MutableMapping | MutableSequence | types.FrameType) or (
        place.step.startswith(".") and " of class " not in place.step
    )


def _key(owner: Mapping[Any, Any], step: str) -> Any:
    for index, key in enumerate(owner):
        if step == (f"[{key!r}]" if isinstance(key, str | int) else f"[{index}]"):
            return key
    return _GONE


def _cell(function: types.FunctionType, step: str) -> types.CellType:
    index = function.__code__.co_freevars.index(step.removeprefix(" closing over "))
    return (function.__closure__ or ())[index]
