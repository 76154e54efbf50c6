"""Script memory: the attributes and variables of a script that carry memory, each a source of its own.

`trainer.position` is a source, and so are a list that grows and a hidden state that was None at first. What
each round of the training loop assigns before it reads (a batch, a loss) is none.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bygones.attach.discovery import LiveObjects, Place
from bygones.attach.sources.plain_data import is_container, same_plain
from bygones.attach.sources.variables import (
    ScriptVariables,
    can_write,
    is_library_local,
    name_variables,
    source_names,
)
from bygones.core.digest import is_array


def memory_variables(
    found: LiveObjects,
    before: Mapping[str, Any],
    loose_before: Mapping[str, Any],
    carried: Collection[str],
    script: Path,
    weights: Mapping[str, Tensor],
    averages: Collection[str],
    taken: Collection[str],
) -> dict[str, ScriptVariables]:
    """Make a source of each attribute and variable that changed since `before` (values by path).

    carried   variables that cross from one round of the training loop to the next
    averages  paths of averages of the weights, which may be new

    The arrays of a container whose items stayed the same are leaves of their own. The attributes of an object
    of a library are one source, by the name of the variable that leads to it.
    """
    groups: dict[str, dict[str, Place]] = {}
    mine = [p for p in found.data if _is_memory(p, before, carried, averages)]
    by_container = {p.path: p for p in mine if is_container(p.value)}
    inner: dict[str, list[Place]] = {}
    for place in found.loose:
        for path in by_container:
            if place.path.startswith(f"{path}["):
                inner.setdefault(path, []).append(place)
    names = source_names(place.path for place in mine)
    for place in mine:
        whole = names[place.path] if _is_own(place.owner, script) else place.root
        items = [p for p in inner.get(place.path, ()) if can_write(p)]
        fixed = bool(items) and _same_keys(place, before)
        changed = [p for p in items if _changed(p, loose_before)]
        for one in changed if fixed and changed else [place]:
            leaf = one.path[len(whole) :] if one.path.startswith(whole) else one.path
            groups.setdefault(whole, {})[leaf.lstrip(".") or "value"] = one
    return name_variables(groups, weights, taken)


def _is_memory(
    place: Place, before: Mapping[str, Any], carried: Collection[str], averages: Collection[str]
) -> bool:
    if place.alias or not can_write(place) or is_library_local(place):
        return False
    if place.path not in before:
        return place.path in averages
    held, value = before[place.path]
    if same_plain(place.value, value):
        return False
    if place.path != place.root:
        return True
    is_same_array = held is not None and held() is place.value
    return is_same_array or place.root.rpartition(".")[2] in carried


def _changed(place: Place, before: Mapping[str, Any]) -> bool:
    return place.path in before and not same_plain(place.value, before[place.path][1])


def _same_keys(place: Place, before: Mapping[str, Any]) -> bool:
    """Test for a container with as many items, of the same keys, as before the first update."""
    known = before.get(place.path)
    if known is None or not hasattr(known[1], "keys") or len(known[1]) != len(place.value):
        return False
    keys = tuple(place.value) if isinstance(place.value, Mapping) else ()
    return known[1].keys == keys


def _is_own(owner: Any, script: Path) -> bool:
    """Test for a variable, an item of a container, or an attribute of an object of the script's own class."""
    if owner is None or is_container(owner) or isinstance(owner, dict) or is_array(owner):
        return True
    module = sys.modules.get(type(owner).__module__)
    file = str(getattr(module, "__file__", None) or "")
    own = module is sys.modules["__main__"] or file.startswith(f"{script.resolve().parent}/")
    return own or type(owner).__module__ in ("builtins", "types")
