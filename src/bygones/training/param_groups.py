"""Parameter groups: which of an optimizer's group entries are settings, and which are state.

torch's optimizers keep their state by parameter, and only settings in `param_groups`. Others count there too:
schedule-free its steps and the sum of its weights (`k`, `weight_sum`), Prodigy its distance `d`, most of
pytorch-optimizer their `step`. Such a number is state: a new optimizer begins it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.optim import Optimizer

# Entries that torch's learning rate schedulers write into a group.
_WRITTEN_BY_SCHEDULERS = {
    "initial_lr", "swa_lr", "max_lr", "min_lr", "max_momentum", "base_momentum",
}  # fmt: skip
# Counters by their usual names: state even where they were in the group from the beginning.
_COUNTERS = {"step", "k", "counter"}


_FOUND: WeakKeyDictionary[Optimizer, frozenset[str]] = WeakKeyDictionary()


def setting_names(optimizer: Optimizer) -> frozenset[str]:
    """Return the names of group entries that are settings of this optimizer.

    These are the arguments of its constructor and of the optimizers in it, what schedulers write, and what
    the caller put into a group himself. The first call decides, and is to be made when the optimizer is
    new: what appears in a group later is state. A constructor that takes any keyword says nothing, so its
    defaults count as its arguments.
    """
    if optimizer not in _FOUND:
        _FOUND[optimizer] = _find_setting_names(optimizer)
    return _FOUND[optimizer]


def _find_setting_names(optimizer: Optimizer) -> frozenset[str]:
    arguments: set[str] = set()
    for one in (optimizer, *dict(inner_optimizers(optimizer)).values()):
        named = {name for kind in type(one).__mro__[:-1] for name in _argument_names(kind)}
        arguments |= named if named & one.defaults.keys() else one.defaults.keys() - _COUNTERS
    given = {
        key for group in optimizer.param_groups for key in group if key not in optimizer.defaults
    }
    return frozenset(
        arguments | (given - _COUNTERS) | _WRITTEN_BY_SCHEDULERS | {"params", "param_names"}
    )


def group_counters(group: Mapping[str, Any], settings: frozenset[str]) -> dict[str, Any]:
    """Return the numbers of a group that are state: no settings, and no flags.

    >>> group_counters({"lr": 0.1, "k": 3, "train_mode": True}, frozenset({"lr"}))
    {'k': 3}
    """
    return {
        key: value
        for key, value in group.items()
        if key not in settings
        and isinstance(value, int | float | Tensor)
        and not isinstance(value, bool)
    }


def inner_optimizers(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    """Yield the optimizers that an optimizer wraps, with the attribute that holds each (Lookahead, SAM)."""
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer) and value is not optimizer:
            yield name, value


def construct_new(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """Construct a new optimizer of the same class and settings for these groups.

    A wrapper is given a new optimizer of the class that it wraps, or that class and its settings.
    """
    kind: Any = type(optimizer)
    accepted = inspect.signature(kind).parameters
    known = {**optimizer.defaults, **vars(optimizer)}
    inner = dict(inner_optimizers(optimizer))
    # AdamW's defaults contain settings that its constructor does not take.
    settings = {
        name: known[name]
        for name in accepted
        if name in (known if inner else optimizer.defaults) and name not in inner
    }
    if not inner:
        return kind(groups, **settings)
    ((name, wrapped),) = inner.items()
    if "params" not in accepted:
        return kind(construct_new(wrapped, groups), **settings)
    theirs = {
        key: value
        for key, value in wrapped.defaults.items()
        if key in inspect.signature(type(wrapped)).parameters
    }
    return kind(groups, **{name: type(wrapped)}, **{**theirs, **settings})


def _argument_names(kind: type) -> list[str]:
    if "__init__" not in vars(kind):
        return []
    return [
        name
        for name, argument in inspect.signature(kind).parameters.items()
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    ]
