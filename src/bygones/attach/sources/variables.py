"""Script variables: memory in a script's own variables (a queue, a dict of averaged weights, a counter)."""

from __future__ import annotations

import ctypes
import re
import types
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bygones.attach.discovery import Place
from bygones.attach.sources.plain_data import (
    Container,
    arrays_in,
    build_plain,
    copy_plain,
    fill,
    same_plain,
)
from bygones.core.digest import is_array
from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, Lifetime, Origin, State
from bygones.training.leaves import clone_leaf, is_continuous
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource
from bygones.training.sources.base import Location

_MOST_BYTES = 1 << 28  # larger arrays are taken for data, and not copied to see if they change
# Where more objects of one list have the same attribute, their attributes are one source.
_MOST_ALIKE = 4
_GONE = object()
# Before Python 3.13 `f_locals` of a running function is a copy; this call writes it back.
_to_fast = ctypes.pythonapi.PyFrame_LocalsToFast


class ScriptVariables(AbstractSource):
    """Values reachable from one variable of the script, or from one attribute: `<path from it>`.

    "New" means as before the first update. Where the arrays have the names or the order, and the shapes, of
    the trained parameters, the variable is an average, and a new one equals today's weights. The lifetime
    is known to the script alone.
    """

    origin: Origin = "auxiliary"
    visibility = "process"

    def __init__(
        self, name: str, places: Mapping[str, Place], weights: Mapping[str, Tensor]
    ) -> None:
        self.name = name
        self.locations = self._places = dict(places)
        self.root = next(iter(places.values())).root
        self.baseline = self.capture()
        self._like = self._averaged(weights)
        self.is_result = not self._like
        if self._like:
            self.origin = "averaging"
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
        state: dict[str, Any] = {}
        for leaf, value in self.held().items():
            try:
                state[leaf] = copy_plain(value)
            except TypeError:  # something else lies there now
                continue
        return state

    def restore(self, state: State) -> None:
        for leaf, value in state.items():
            write(self._places[leaf], value)

    def imitate(self, state: State) -> None:
        """Restore a state of another run, which may lack an attribute, or elements of a list or a dict.

        Raises `RecipeError` for what cannot be taken out.
        """
        self.restore({leaf: value for leaf, value in state.items() if leaf in self._places})
        gone = [place for leaf, place in self._places.items() if leaf not in state]
        for place in reversed(gone):  # from the end, so that earlier indices stay valid
            take_out(place)

    def fresh(self) -> State:
        today = {leaf: _as_today(self.capture()[leaf], like) for leaf, like in self._like.items()}
        return {**self.baseline, **today}

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")

    def _averaged(self, weights: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return by leaf the weight or buffer of each array's name and shape; empty unless each has one.

        An array without a name of its own, in a list, has the parameter of its position.
        """
        found: dict[str, list[Tensor]] = {}
        items = tuple(self.baseline.values())
        if [*self.baseline] == [f"[{index}]" for index in range(len(items))]:  # of one list
            like = _in_order(Container("list", (), items), weights)
            return {leaf: [one] for leaf, one in zip(self.baseline, like, strict=False)}
        for leaf, value in self.baseline.items():
            arrays = [(name, a) for name, a in arrays_in(leaf, value) if is_continuous(a)]
            like = _namesakes(arrays, weights) or _in_order(value, weights)
            if arrays and not like:
                return {}
            if arrays:
                found[leaf] = like
        return found


def _namesakes(arrays: list[tuple[str, Any]], weights: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the parameters of the arrays' names; empty unless every array has one."""
    like = [_namesake(name, array, weights) for name, array in arrays]
    known = [weight for weight in like if weight is not None]
    return known if len(known) == len(like) else []


def _in_order(value: Any, weights: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the trained parameters, if a list of arrays has as many, of their shapes, in order."""
    if not isinstance(value, Container) or value.kind not in {"list", "tuple"}:
        return []
    trained = [weight for weight in weights.values() if weight.requires_grad]
    shapes = [tuple(weight.shape) for weight in trained]
    alike = [tuple(item.shape) if is_array(item) else None for item in value.items] == shapes
    return trained if alike and len(trained) > 1 else []


def _as_today(value: Any, like: list[Tensor]) -> Any:
    """Return the copy of a value with its continuous arrays replaced by today's parameters, in order."""
    waiting = iter(like)

    def replace(item: Any) -> Any:
        if isinstance(item, Container):
            return Container(item.kind, item.keys, tuple(map(replace, item.items)))
        return clone_leaf(next(waiting)) if is_continuous(item) else item

    return replace(value)


def _namesake(leaf: str, array: Any, weights: Mapping[str, Tensor]) -> Tensor | None:
    for name, weight in weights.items():
        if (leaf.endswith((f"'{name}']", f".{name}")) or leaf == name) and (
            isinstance(array, Tensor) and array.shape == weight.shape
        ):
            return weight
    return None


def attribute_variables(
    places: tuple[Place, ...],
    weights: Mapping[str, Tensor],
    expected: Collection[str],
    averages: Collection[str],
    taken: Collection[str] = (),
) -> dict[str, ScriptVariables]:
    """Make a source of each attribute and variable with a path in `expected`, mere results included.

    Those with a path in `averages` are no mere results. Each is named by its path, `trainer.position`, say.
    Elements of a list of objects are one source where they are many: `worlds[*].cell`.
    """
    mine = [p for p in places if p.path in expected and can_write(p) and not is_library_local(p)]
    names = source_names(place.path for place in mine)
    groups: dict[str, dict[str, Place]] = {}
    for place in mine:
        name = names[place.path]
        leaf = "value" if name == place.path else place.path
        groups.setdefault(name, {})[leaf] = place
    named = name_variables(groups, weights, taken)
    for source in named.values():
        source.is_result = not any(p.path in averages for p in source.locations.values())
    return named


def source_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the name of the source that each path belongs to: many elements of one list share it."""
    mine = list(paths)
    alike = Counter(_numberless(path) for path in mine)
    return {
        path: path if alike[_numberless(path)] <= _MOST_ALIKE else _numberless(path)
        for path in mine
    }


def averaged_paths(
    places: tuple[Place, ...], paths: Collection[str], weights: Mapping[str, Tensor]
) -> frozenset[str]:
    """Return those of the paths where an average of the weights lies, or a copy of them."""
    return frozenset(
        place.path
        for place in places
        if place.path in paths and not ScriptVariables("", {place.path: place}, weights).is_result
    )


def _numberless(path: str) -> str:
    return re.sub(r"\[\d+\]", "[*]", path)


def name_variables(
    groups: Mapping[str, Mapping[str, Place]], weights: Mapping[str, Tensor], taken: Collection[str]
) -> dict[str, ScriptVariables]:
    named: dict[str, ScriptVariables] = {}
    for wanted, members in groups.items():
        name = free_name(wanted, {*taken, *named})
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
            copy_plain(place.value),
        )
        for place in places
        if not is_array(place.value) or place.value.nbytes <= _MOST_BYTES
    }


def changed_paths(places: tuple[Place, ...], before: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths that changed since `before` or are new, whether memory or a mere result."""
    return frozenset(
        place.path
        for place in places
        if not place.alias
        and not (is_array(place.value) and place.value.nbytes > _MOST_BYTES)
        and (place.path not in before or not same_plain(place.value, before[place.path][1]))
    )


def is_library_local(place: Place) -> bool:
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
    """Write a value there: into the present array or container if kinds agree, else in its place."""
    held = read(place)
    if same_plain(held, value):
        return
    if isinstance(value, Container):
        if fill(held, value):
            return
        value = build_plain(value)
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
    """Remove an attribute from its object, or an element from its list or dict.

    Raises `RecipeError` for a variable, which cannot be removed.
    """
    owner, step = place.owner, place.step
    if read(place) is _GONE:
        return
    if place.path != place.root:
        if isinstance(owner, MutableSequence):
            del owner[int(step[1:-1])]
            return
        if isinstance(owner, MutableMapping):
            del owner[_key(owner, step)]
            return
        if step.startswith(".") and step[1:] in getattr(owner, "__dict__", {}):
            delattr(owner, step[1:])
            return
    raise RecipeError(f"{place.path} cannot be removed from the run")


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


def closure_cell(place: Location) -> types.CellType | None:
    """Return the cell of a variable that a function closes over; functions may share it. None for others."""
    if isinstance(place, Place) and place.step.startswith(" closing over "):
        return _cell(place.owner, place.step)
    return None


def _cell(function: types.FunctionType, step: str) -> types.CellType:
    index = function.__code__.co_freevars.index(step.removeprefix(" closing over "))
    return (function.__closure__ or ())[index]
