"""What functions can reach: the variables of a state, and those that functions use from outside of it.

A script that is resumed is a new process, in which its globals are as the code defines them. Functions that
are called twice in one process share theirs, so `OuterMemory` puts them back before each run.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bygones.attach.discovery import HeldObjects, discover_objects
from bygones.attach.sources.plain_data import copy_plain
from bygones.attach.sources.variables import can_write, write
from bygones.training.generators import generator_state, set_generator_state
from bygones.training.reachable import list_names

Root = tuple[str, Any, Any]  # name, container, value


def state_roots(state: Any) -> list[Root]:
    """Return the variables of a state: the items of a dict, else the attributes of an object.

    >>> [name for name, _, _ in state_roots({"model": 1, "position": 0})]
    ['model', 'position']
    """
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return [(key, state, value) for key, value in state.items()]
    own = getattr(state, "__dict__", None)
    if own is not None and not hasattr(state, "state_dict"):
        return [(name, own, value) for name, value in own.items()]
    return [("state", None, state)]


def function_roots(functions: Mapping[str, Callable[..., Any]]) -> list[Root]:
    """Return the global variables that functions use, then the functions, whose closures hold others."""
    found: dict[str, Root] = {}
    for function in functions.values():
        for name, space in _used_globals(function, set()):
            found.setdefault(name, (name, space, space[name]))
    return [*found.values(), *((name, None, function) for name, function in functions.items())]


def _used_globals(thing: Any, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and module of each global variable that a function, or a class of its module, uses."""
    thing = getattr(thing, "__func__", thing)
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, type):
        for member in list(vars(thing).values()):
            if isinstance(member, types.FunctionType | staticmethod | classmethod):
                yield from _used_globals(getattr(member, "__func__", member), seen)
        return
    if not isinstance(thing, types.FunctionType):
        return
    space = thing.__globals__
    for name in sorted(list_names(thing.__code__) & space.keys()):
        value = space[name]
        if isinstance(value, types.FunctionType | type):
            if value.__module__ == thing.__module__:
                yield from _used_globals(value, seen)
        elif not isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            yield name, space
    for cell in thing.__closure__ or ():
        inner = getattr(cell, "cell_contents", None) if _is_bound(cell) else None
        if isinstance(inner, types.FunctionType | type):
            yield from _used_globals(inner, seen)


def _is_bound(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


class OuterMemory:
    """The memory that functions reach without the state: copied now, and put back by `restore`."""

    def __init__(self, roots: list[Root]) -> None:
        found = discover_objects([], HeldObjects(tuple(roots)), {}, with_data=True)
        places = [place for place in found.data if not place.alias and can_write(place)]
        self._places = [(place, copy_plain(place.value)) for place in places]
        self._streams = {
            name: (one, generator_state(one)) for name, one in found.generators.items()
        }

    def restore(self) -> None:
        """Put every variable and every private generator back to what it held at first."""
        for place, value in self._places:
            write(place, value)
        for generator, state in self._streams.values():
            set_generator_state(generator, state)
