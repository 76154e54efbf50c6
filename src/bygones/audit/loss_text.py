"""Words for how a state was lost: from what a run held, and what the resumed run holds instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bygones.attach.sources.plain_data import Container, differing_items
from bygones.core.digest import is_array, same_bits
from bygones.core.text import format_count, join_names
from bygones.core.values import State
from bygones.training.nested_state import write_path

_NARROW = (torch.bfloat16, torch.float16)


def describe_loss(
    mine: State, theirs: State, *, as_new: bool, earlier: State = MappingProxyType({})
) -> str:
    """Say what became of a state. `as_new`: whether the run goes on as with a state that was made new.

    `earlier`: the state one epoch before.

    >>> describe_loss({"value": 17}, {"value": 3}, as_new=False)
    'not what was carried: 3 instead of 17'
    """
    seen = _mechanism(mine, theirs)
    if _is_that_of(earlier, mine, theirs):
        seen = ", ".join(filter(None, ("an epoch behind", seen)))
    if not theirs:
        return "lost: the resumed run holds nothing"
    if as_new:
        return "lost: the resumed run goes on with a new one" + (f" ({seen})" if seen else "")
    return "not what was carried" + (f": {seen}" if seen else "")


def _mechanism(mine: State, theirs: State) -> str:
    """Say how the other state came to be, where that can be seen; else nothing."""
    if len(mine) == 1 and len(theirs) == 1:
        (one,), (other,) = mine.values(), theirs.values()
        return _change(one, other)
    pairs = {leaf: (mine[leaf], theirs[leaf]) for leaf in mine if leaf in theirs}
    changed = {leaf: pair for leaf, pair in pairs.items() if not same_bits(*pair)}
    if not changed:
        return ""
    changes = {_change(*pair) for pair in changed.values()}
    if len(changes) == 1 and "" not in changes:
        return changes.pop()
    return _elsewhere(mine, {leaf: pair[1] for leaf, pair in changed.items()})


def _is_that_of(earlier: State, mine: State, theirs: State) -> bool:
    """Test whether all that differs is as it was at an earlier time, when it was not as it is now."""
    changed = [leaf for leaf in theirs if leaf in mine and not same_bits(mine[leaf], theirs[leaf])]
    return bool(changed) and all(
        leaf in earlier and same_bits(earlier[leaf], theirs[leaf]) for leaf in changed
    )


def _change(one: Any, other: Any) -> str:
    """Say how a value became another one."""
    if other is None:
        return "it holds None"
    if isinstance(one, Container) or isinstance(other, Container):
        return _change_of_items(one, other)
    if is_array(one) and is_array(other):
        if str(one.dtype) != str(other.dtype):
            return f"{_type(one)} became {_type(other)}"
        if tuple(one.shape) != tuple(other.shape):
            return f"its shape is {list(other.shape)} instead of {list(one.shape)}"
        return _rounding(one, other)
    if isinstance(one, bool | int | float | str) and isinstance(other, bool | int | float | str):
        words = f"{other!r} instead of {one!r}"
        return words if len(words) < 60 else ""
    return ""


def _change_of_items(one: Any, other: Any) -> str:
    if not isinstance(one, Container) or not isinstance(other, Container) or len(one) == len(other):
        return ""
    if not len(other):
        return f"it is empty; {format_count(len(one), 'item was', 'items were')} carried"
    return f"{format_count(len(other), 'item')} instead of {len(one)}"


def _rounding(one: Any, other: Any) -> str:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == torch.float32):
        return ""
    for narrow in _NARROW:
        if torch.equal(one.to(narrow).float(), other):
            return f"rounded to {str(narrow).replace('torch.', '')}"
    return ""


def _type(array: Any) -> str:
    return str(array.dtype).replace("torch.", "")


def _elsewhere(mine: State, changed: Mapping[str, Any]) -> str:
    """Say that values lie at another name than before: `those of a lie on b`."""
    for leaf, value in changed.items():
        if is_array(value) and value.ndim > 0:
            origin = [name for name in mine if name != leaf and same_bits(mine[name], value)]
            if origin and bool((value != 0).any()):
                return f"that of {write_path(origin[0])} lies on {write_path(leaf)}"
    return ""


def name_leaves(mine: Mapping[str, Any], other: Mapping[str, Any], *, whole_source: bool) -> str:
    """Name the leaves that differ, by the last part of their names where that is enough."""
    if not whole_source:
        return ""
    if list(mine) == ["value"]:
        items = differing_items(mine["value"], other.get("value"))
        return join_names(items, limit=4)
    names = sorted(
        leaf
        for leaf in mine.keys() | other.keys()
        if leaf not in mine or leaf not in other or not same_bits(mine[leaf], other[leaf])
    )
    if len(names) == len(mine.keys() | other.keys()) and len(names) > 1:
        return "all of it"
    ends = sorted({name.rpartition("/")[2] for name in names})
    short = [f"*/{end}" for end in ends] if len(names) > len(ends) and len(ends) <= 4 else names
    return join_names(map(write_path, short), limit=4)
