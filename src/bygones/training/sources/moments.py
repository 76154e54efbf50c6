"""What an optimizer remembers of past gradients."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.nested_state import flatten, unflatten
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, named_parameters, overwrite

# Keys that torch's optimizers create, on first use, as zeros of the parameter's shape (or as 0).
_ZERO_AT_FIRST_USE = {
    "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "acc_delta", "exp_inf",
}  # fmt: skip


class Moments(AbstractSource):
    """The optimizer's per-parameter state, for any torch optimizer: `<parameter>/<torch's own key>`.

        heavy ball:  b <- mu·b + g                     e-fold -1/ln(mu), about 1/(1-mu) steps
        Adam:        m <- b1·m + (1-b1)·g,  v <- b2·v + (1-b2)·g²,  step <- step + 1

    A new optimizer is empty, so resetting all of it restarts Adam's bias correction. Zeroing the
    moments while keeping the count is another treatment: `leaves="*/exp_avg*"`.
    Restoring writes in place and casts nothing (`Optimizer.load_state_dict` casts to the parameter's
    type and matches by position).
    """

    name = "moments"
    origin: Origin = "optimizer"
    visibility: Visibility = "state_dict"

    def __init__(self, optimizers: dict[str, Optimizer], names: dict[int, str]) -> None:
        self._optimizers = optimizers
        self._names = names
        # Optimizers that hold state before the first step; the others are empty when they are new.
        self._eager = {label for label, o in optimizers.items() if any(o.state.values())}

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(dict(parts.optimizers), named_parameters(parts))

    def _members(self) -> Iterator[tuple[str, Optimizer, Any]]:
        """Each parameter with its optimizer and its name (with the optimizer's, if there are several)."""
        for label, optimizer in self._optimizers.items():
            index = 0
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self._names.get(id(parameter), f"parameter{index}")
                    yield (f"{label}:{name}" if label else name), optimizer, parameter
                    index += 1

    def capture(self) -> State:
        state: dict[str, Leaf] = {}
        for name, optimizer, parameter in self._members():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    state[f"{name}/{key}"] = clone_leaf(value)
                else:
                    state |= moment_leaves(name, key, value)
        return state

    def restore(self, state: State) -> None:
        wanted = split_moments(state)
        for name, optimizer, parameter in self._members():
            kept = optimizer.state[parameter] if parameter in optimizer.state else {}
            mine = wanted.get(name, {})
            if not mine:
                optimizer.state.pop(parameter, None)
                continue
            new = {}
            for key, leaves in mine.items():
                value, old = unflatten(leaves), kept.get(key)
                if isinstance(old, Tensor) and isinstance(value, Tensor) and _alike(old, value):
                    overwrite(old, value, f"{name}/{key}")
                    value = old
                new[sys.intern(key)] = (
                    value  # one string for all, or a pickled checkpoint has other bytes
                )
            optimizer.state[parameter] = new

    def fresh(self) -> State:
        """Empty, or zeros where torch would create zeros on first use: the two train alike to the bit.

        Optimizers that fill their state at construction (Adagrad, say) are made anew on copies.
        """
        state: dict[str, Leaf] = {}
        eager = {label: _eager_state(self._optimizers[label]) for label in self._eager}
        position = dict.fromkeys(self._optimizers, 0)
        for name, optimizer, parameter in self._members():
            label = name.partition(":")[0] if ":" in name else ""
            made = eager[label][position[label]] if label in eager else {}
            position[label] += 1
            held = optimizer.state.get(parameter, {})
            if made:
                state |= {f"{name}/{key}": clone_leaf(value) for key, value in made.items()}
            elif held and _is_torchs(optimizer) and set(held) <= _ZERO_AT_FIRST_USE:
                state |= {
                    f"{name}/{key}": torch.zeros_like(value) if isinstance(value, Tensor) else 0
                    for key, value in held.items()
                }
        return state

    def lifetime(self) -> Lifetime:
        """The slowest decay among the groups; unbounded where a sum or a maximum is kept."""
        groups = [group for o in self._optimizers.values() for group in o.param_groups]
        return Lifetime.decaying(max((_slowest_decay(group) for group in groups), default=0.0))


def moment_leaves(parameter: str, key: str, value: Any) -> dict[str, Leaf]:
    """The leaves of one entry of an optimizer's state: `<parameter>/<key>`, or `…/<key>/<path>` if nested."""
    leaves = flatten(value, f"moments of {parameter}")
    return {f"{parameter}/{key}/{path}".rstrip("/"): leaf for path, leaf in leaves.items()}


def split_moments(state: State) -> dict[str, dict[str, dict[str, Leaf]]]:
    """A state's leaves by parameter, then by torch's key, then by path: what `unflatten` takes.

    >>> split_moments({"w/step": 1, "w/sums/[0": 2.0})
    {'w': {'step': {'': 1}, 'sums': {'[0': 2.0}}}
    """
    parts: dict[str, dict[str, dict[str, Leaf]]] = {}
    for name, leaf in state.items():
        parameter, key, path = (*name.split("/", 2), "")[:3]
        parts.setdefault(parameter, {}).setdefault(key, {})[path] = leaf
    return parts


def _slowest_decay(group: dict[str, Any]) -> float:
    """The largest factor by which a group's memory decays in a step; 1 where something never does."""
    factors = [float(factor) for factor in group.get("betas", ())]
    factors += [float(group[key]) for key in ("momentum", "rho") if key in group]
    if "centered" in group:  # RMSprop's alpha is a decay; ASGD's is a power
        factors.append(float(group["alpha"]))
    return 1.0 if group.get("amsgrad") else max(factors, default=1.0)


def _is_torchs(optimizer: Optimizer) -> bool:
    """Only of torch's own optimizers is it known what they create on first use."""
    return type(optimizer).__module__.startswith("torch.")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device


def _eager_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What a new optimizer of this kind holds before its first step, a parameter each.

    Only optimizers that already hold state when they are made come out non-empty.
    """
    groups = [
        {**group, "params": [p.detach().clone().requires_grad_() for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind = type(optimizer)
    accepted = inspect.signature(
        kind
    ).parameters  # AdamW's defaults hold what AdamW() does not take
    settings = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    try:
        new = kind(groups, **settings)
    except Exception as error:
        raise RecipeError(
            f"cannot make a new {kind.__name__} to see what it holds: {error}. Its constructor must take "
            f"parameter groups and the settings in its `defaults`."
        ) from error
    return [dict(new.state.get(p, {})) for group in new.param_groups for p in group["params"]]
