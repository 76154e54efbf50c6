"""Parameter groups: which of an optimizer's group entries are settings, and which are state.

torch's optimizers keep their state by parameter, and only settings in `param_groups`. Others count there too:
schedule-free its steps and the sum of its weights (`k`, `weight_sum`), Prodigy its distance `d`, most of
pytorch-optimizer their `step`. Such a number is state: a new optimizer begins it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.optim import Optimizer

from bygones.core.errors import RecipeError
from bygones.training.leaves import clone_leaf

# Entries that torch's learning rate schedulers write into a group.
_WRITTEN_BY_SCHEDULERS = {
    "initial_lr", "swa_lr", "max_lr", "min_lr", "max_momentum", "base_momentum",
}  # fmt: skip
# Counters by their usual names (schedule-free, D-Adaptation, Prodigy, pytorch-optimizer), as new optimizers
# have them: state even where they were in the group from the beginning. A text names the setting that one
# begins as.
_NEW_COUNTERS: dict[str, float | str] = {
    **{"step": 0, "k": 0, "counter": 0},
    **{"weight_sum": 0.0, "lr_max": -1.0, "scheduled_lr": 0.0},
    **{"d": "d0", "d_max": "d0", "d_hat": "d0", "d_numerator": 0.0, "d_de_nom": 0.0},
    **{"gsq_weighted": 0.0, "numerator_weighted": 0.0, "sk_l1": 0.0},
}


@dataclass(frozen=True)
class _Found:
    """What was found in an optimizer's groups when it was first looked at."""

    settings: frozenset[str]
    counters: tuple[dict[str, Any], ...]  # of a new one, by group


_FOUND: WeakKeyDictionary[Optimizer, _Found] = WeakKeyDictionary()


def setting_names(optimizer: Optimizer) -> frozenset[str]:
    """Return the names of group entries that are settings of this optimizer.

    These are the arguments of its constructor and of the optimizers in it, what schedulers write, and what
    the caller put into a group himself. The first call decides, and is to be made when the optimizer is
    new: what appears in a group later is state. A constructor that takes any keyword says nothing, so its
    defaults count as its arguments.
    """
    return _find(optimizer).settings


def new_counters(optimizer: Optimizer) -> tuple[dict[str, Any], ...]:
    """Return what a new optimizer of this kind counts in its groups, by group.

    These are its defaults, else what is usual by the counter's name, else what it had when it was first
    looked at.
    """
    return _find(optimizer).counters


def _find(optimizer: Optimizer) -> _Found:
    if optimizer not in _FOUND:
        settings = _find_setting_names(optimizer)
        counters = tuple(
            _as_new(group_counters(group, settings), group, optimizer.defaults)
            for group in optimizer.param_groups
        )
        _FOUND[optimizer] = _Found(settings, counters)
    return _FOUND[optimizer]


def _find_setting_names(optimizer: Optimizer) -> frozenset[str]:
    arguments: set[str] = set()
    for one in (optimizer, *dict(inner_optimizers(optimizer)).values()):
        named = {name for kind in type(one).__mro__[:-1] for name in _argument_names(kind)}
        arguments |= (
            named if named & one.defaults.keys() else one.defaults.keys() - _NEW_COUNTERS.keys()
        )
    given = {
        key for group in optimizer.param_groups for key in group if key not in optimizer.defaults
    }
    return frozenset(
        arguments
        | (given - _NEW_COUNTERS.keys())
        | _WRITTEN_BY_SCHEDULERS
        | {"params", "param_names"}
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


def saved_counters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters of a saved group, by their usual names: its class is not known.

    >>> saved_counters({"lr": 0.1, "k": 3, "weight_sum": 0.5})
    {'k': 3, 'weight_sum': 0.5}
    """
    return group_counters(group, frozenset(group.keys() - _NEW_COUNTERS.keys()))


def new_saved_counters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters of a saved group as they are when the optimizer is new.

    >>> new_saved_counters({"lr": 0.1, "k": 3, "lr_max": 0.1, "d": 0.5, "d0": 1e-6})
    {'k': 0, 'lr_max': -1.0, 'd': 1e-06}
    """
    new = _as_new(saved_counters(group), group, {})
    if "d_max" in new and "step" in new:  # pytorch-optimizer's Prodigy begins to count at 1
        new["step"] = 1
    return new


def _as_new(
    counters: Mapping[str, Any], group: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the counters of a group with the values of a new optimizer.

    By the defaults, else by the counter's name; a tensor of such a name is left out, for the first step
    makes it. Others keep their value. Raises `RecipeError` where a counter begins as a setting that the
    group does not have.
    """
    new: dict[str, Any] = {}
    for key, value in counters.items():
        if key in defaults:
            new[key] = defaults[key]
        elif key not in _NEW_COUNTERS:
            new[key] = clone_leaf(value)
        elif not isinstance(value, Tensor):
            first = _NEW_COUNTERS[key]
            if isinstance(first, str) and first not in group:
                raise RecipeError(
                    f"a parameter group counts in '{key}' and does not say as what it began ('{first}' is "
                    f"not there), so it cannot be reset. Reset it in a run, where the optimizer is known."
                )
            new[key] = group[first] if isinstance(first, str) else first
    return new


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
