"""Optimizer state: momentum buffers, moment estimates and step counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, Lifetime, Origin, State, Visibility, match_leaves
from bygones.training.leaves import clone_leaf
from bygones.training.moment_lifetimes import decay_of_leaf, is_counter, slowest_decay
from bygones.training.nested_state import flatten, unflatten
from bygones.training.param_groups import (
    construct_new,
    group_counters,
    inner_optimizers,
    new_counters,
    setting_names,
)
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, named_parameters, overwrite

# Keys that torch's optimizers create on first use, as zeros of the parameter's shape or as 0.
_ZERO_AT_FIRST_USE = {
    "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "acc_delta", "exp_inf",
}  # fmt: skip
# Keys that are not there before the first use, and then are what they would be if they had been zeros.
_ACTS_AS_ZERO = _ZERO_AT_FIRST_USE | {"momentum_buffer", "prev"}

# Keys between which an inequality holds after every update, which random changes of one would break.
_LINKED = {
    ("square_avg", "grad_avg"): "square_avg is never below grad_avg squared (centered RMSprop), and a "
    "random change of either would break that",
    ("exp_avg_sq", "max_exp_avg_sq"): "max_exp_avg_sq is never below exp_avg_sq (AMSGrad), and a random "
    "change of either would break that",
}  # fmt: skip

# By class: keys that mean something only together, and why. A list's are those of its first entry.
_COMPOUNDS = {
    "SOAP": (
        ("exp_avg", "exp_avg_sq", "Q/[0"),
        "SOAP keeps exp_avg and exp_avg_sq in the basis Q, and either without the other is in no basis",
    ),
    "Shampoo": (
        ("pre_cond_0", "inv_pre_cond_0"),
        "Shampoo uses inv_pre_cond, which is computed from pre_cond now and then",
    ),
}


class Moments(AbstractSource):
    """The state of any torch optimizer: `<parameter>/<its own key>`, and what it counts in `group0/<key>`.

        heavy ball:  b <- mu·b + g                     e-fold -1/ln(mu), about 1/(1-mu) steps
        Adam:        m <- b1·m + (1-b1)·g,  v <- b2·v + (1-b2)·g²,  step <- step + 1

    A new optimizer is empty, so a reset of all leaves restarts Adam's bias correction. To zero the
    moments and keep the count is another treatment: `leaves="*/exp_avg*"`. An optimizer that wraps others
    (Lookahead, SAM) has their state too, labelled by the attribute that holds them.
    `restore` writes in place and casts nothing, unlike `Optimizer.load_state_dict`, which casts to the
    parameter's dtype and matches parameters by position. Polyak 1964 (doi:10.1016/0041-5553(64)90137-5),
    Kingma & Ba 2015 (arXiv:1412.6980).
    """

    name = "moments"
    origin: Origin = "optimizer"
    visibility: Visibility = "state_dict"

    def __init__(self, optimizers: dict[str, Optimizer], names: dict[int, str]) -> None:
        self._given = optimizers
        self._optimizers = dict(_with_inner(optimizers))
        self._names = names
        self._settings = {label: setting_names(o) for label, o in optimizers.items()}
        # Labels of optimizers with state before the first step; the others are empty when new.
        self._eager = {label for label, o in optimizers.items() if any(o.state.values())}

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(dict(parts.optimizers), named_parameters(parts))

    def linked_leaves(self) -> str:
        keys = {name.rpartition("/")[2] for name in self.capture()}
        linked = [why for pair, why in _LINKED.items() if keys.issuperset(pair)]
        return linked[0] if linked else ""

    def torn_by(self, leaves: str) -> str:
        for name, optimizer, _ in self._members():
            keys, why = _COMPOUNDS.get(type(optimizer).__name__, ((), ""))
            together: State = {f"{name}/{key}": 0 for key in keys}
            if 0 < len(match_leaves(together, leaves)) < len(together):
                return why
        return ""

    def _members(self) -> Iterator[tuple[str, Optimizer, Any]]:
        """Yield name, optimizer and parameter; among several optimizers, the name begins with the label."""
        for label, optimizer in self._optimizers.items():
            index = 0
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self._names.get(id(parameter), f"parameter{index}")
                    yield (f"{label}:{name}" if label else name), optimizer, parameter
                    index += 1

    def _counters(self) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
        """Yield the numbers that lie in parameter groups: leaf, group, key and value."""
        for label, optimizer in self._given.items():
            for number, group in enumerate(optimizer.param_groups):
                for key, value in group_counters(group, self._settings[label]).items():
                    yield counter_leaf(label, number, key), group, key, clone_leaf(value)

    def capture(self) -> State:
        state: dict[str, Leaf] = {name: value for name, _, _, value in self._counters()}
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
            present = optimizer.state[parameter] if parameter in optimizer.state else {}
            keys = wanted.get(name, {})
            if not keys:
                optimizer.state.pop(parameter, None)
                continue
            new = {}
            for key, leaves in keys.items():
                value, old = unflatten(leaves), present.get(key)
                if isinstance(old, Tensor) and isinstance(value, Tensor) and _match(old, value):
                    overwrite(old, value, f"{name}/{key}")
                    value = old
                # pickle writes equal strings that are one object once, so intern them: the bytes of a
                # checkpoint stay the same.
                new[sys.intern(key)] = value
            optimizer.state[parameter] = new
        self._restore_counters(wanted)

    def _restore_counters(self, wanted: Mapping[str, Mapping[str, Mapping[str, Leaf]]]) -> None:
        for name, group, key, _ in list(self._counters()):
            if key not in wanted.get(name.rpartition("/")[0], {}):
                del group[key]
        for label, optimizer in self._given.items():
            for number, group in enumerate(optimizer.param_groups):
                head = counter_leaf(label, number, "").rstrip("/")
                for key, leaves in wanted.get(head, {}).items():
                    group[sys.intern(key)] = unflatten(leaves)

    def fresh(self) -> State:
        """Return the state of a new optimizer: empty, or zeros where torch creates zeros on first use.

        Both train alike, bit by bit. For optimizers that fill their state at construction, such as
        Adagrad, a new one is constructed on copies of the parameters. Numbers in parameter groups are what
        they are in a new optimizer.
        """
        state: dict[str, Leaf] = {
            counter_leaf(label, number, key): clone_leaf(value)
            for label, optimizer in self._given.items()
            for number, counters in enumerate(new_counters(optimizer))
            for key, value in counters.items()
        }
        eager: dict[str, list[dict[str, Any]]] = {}
        for label, optimizer in self._given.items():
            within = dict(_with_inner({label: optimizer}))
            if self._eager & within.keys():
                eager |= _construct_states(label, optimizer)
        position = dict.fromkeys(self._optimizers, 0)
        for name, optimizer, parameter in self._members():
            label = name.partition(":")[0] if ":" in name else ""
            initial = eager[label][position[label]] if label in self._eager else {}
            position[label] += 1
            present = optimizer.state.get(parameter, {})
            if initial:
                state |= {f"{name}/{key}": clone_leaf(value) for key, value in initial.items()}
            elif present and _is_from_torch(optimizer) and set(present) <= _ZERO_AT_FIRST_USE:
                state |= {
                    f"{name}/{key}": torch.zeros_like(value) if isinstance(value, Tensor) else 0
                    for key, value in present.items()
                }
        return state

    def unborn(self, leaves: str = "*") -> State:
        """Return zeros for the buffers that an optimizer's next step creates.

        Which these are is read off a new optimizer that takes one step on copies of the parameters. Raises
        `RecipeError` for an empty optimizer that cannot do so (its step takes a closure), or that creates
        what does not begin as zeros (Rprop's step sizes).
        """
        missing: dict[str, Leaf] = {}
        for label, optimizer in self._optimizers.items():
            begun = any(optimizer.state.values())
            if begun and all(optimizer.state.get(p) for p in _parameters(optimizer)):
                continue
            mine = [(name, p) for name, one, p in self._members() if one is optimizer]
            try:
                created = _construct_states(label, optimizer, steps=1)[label]
            except RecipeError:
                if not begun:
                    raise
                created = []  # what the others lack after its first step, they will not get
            for (name, parameter), values in zip(mine, created, strict=False):
                present = optimizer.state.get(parameter, {})
                new = {
                    k: v for k, v in values.items() if isinstance(v, Tensor) and k not in present
                }
                zeros = {f"{name}/{key}": torch.zeros_like(value) for key, value in new.items()}
                named = match_leaves(zeros, leaves)
                unknown = [leaf for leaf in named if leaf.rpartition("/")[2] not in _ACTS_AS_ZERO]
                if unknown and not begun:
                    raise RecipeError(
                        f"'{unknown[0]}' is not there before the first step of {label or 'the optimizer'}, "
                        f"and no zeros then. Choose other leaves, or observe it from one step on."
                    )
                missing |= {leaf: zeros[leaf] for leaf in named if leaf not in unknown}
        return missing

    def lifetime(self) -> Lifetime:
        """Return the slowest decay among the groups; unbounded where a sum or a maximum is kept."""
        decays = [slowest_decay(g, o) for o in self._optimizers.values() for g in o.param_groups]
        return Lifetime.decaying(max(decays, default=0.0))

    def lifetime_of(self, leaves: str) -> Lifetime:
        """Return the slowest decay among the selected leaves; of counters only where nothing else is."""
        decays: dict[str, float] = {}
        for _, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                keys = {key for p in group["params"] for key in optimizer.state.get(p, {})}
                for key in keys:
                    found = decay_of_leaf(key, group, optimizer)
                    decays[key] = max(found, decays.get(key, 0.0))
        chosen = {
            name.split("/")[1] for name in match_leaves(self.capture(), leaves) if "/" in name
        }
        averaged = [decays[key] for key in chosen & decays.keys() if not is_counter(key)]
        if leaves == "*" or not chosen:
            return self.lifetime()
        return Lifetime.decaying(max(averaged, default=1.0))


def counter_leaf(label: str, number: int, key: str) -> str:
    """Name the leaf of a number in a parameter group: `group0/k`, of one of several optimizers `D:group0/k`.

    >>> counter_leaf("", 0, "k"), counter_leaf("D", 1, "k")
    ('group0/k', 'D:group1/k')
    """
    return f"{label}:group{number}/{key}" if label else f"group{number}/{key}"


def moment_leaves(parameter: str, key: str, value: Any) -> dict[str, Leaf]:
    """Name the leaves of one entry of an optimizer's state: `<parameter>/<key>`, then `/<path>` if nested."""
    leaves = flatten(value, f"moments of {parameter}/{key}")
    return {f"{parameter}/{key}/{path}".rstrip("/"): leaf for path, leaf in leaves.items()}


def split_moments(state: State) -> dict[str, dict[str, dict[str, Leaf]]]:
    """Split a state's leaves by parameter, then by torch's key, then by path: what `unflatten` takes.

    >>> split_moments({"w/step": 1, "w/sums/[0": 2.0})
    {'w': {'step': {'': 1}, 'sums': {'[0': 2.0}}}
    """
    parts: dict[str, dict[str, dict[str, Leaf]]] = {}
    for name, leaf in state.items():
        parameter, key, path = (*name.split("/", 2), "")[:3]
        parts.setdefault(parameter, {}).setdefault(key, {})[path] = leaf
    return parts


def _parameters(optimizer: Optimizer) -> Iterator[Any]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _is_from_torch(optimizer: Optimizer) -> bool:
    """Return True for torch's own optimizers: of others, the initial state is not known."""
    return type(optimizer).__module__.startswith("torch.")


def _match(one: Tensor, other: Tensor) -> bool:
    """Return True if shape, dtype and device agree."""
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device


def _with_inner(optimizers: Mapping[str, Optimizer]) -> Iterator[tuple[str, Optimizer]]:
    """Yield each optimizer by its label, and those that it wraps if they have state of their own."""
    for label, optimizer in optimizers.items():
        yield label, optimizer
        for name, inner in inner_optimizers(optimizer):
            known = any(inner is one for one in optimizers.values())
            if inner.state is not optimizer.state and not known:
                yield f"{label}.{name}".lstrip("."), inner


def _construct_states(
    label: str, optimizer: Optimizer, steps: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Construct a new optimizer of the same class and settings; return its state by label and parameter.

    `steps`: that it takes first, with gradients of zero. Raises `RecipeError` if the constructor does not
    take groups and the settings in `defaults`, or a step raises.
    """
    groups = [
        {**group, "params": [p.detach().clone().requires_grad_() for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind = type(optimizer).__name__
    try:
        new = construct_new(optimizer, groups)
        for parameter in _parameters(new):
            parameter.grad = torch.zeros_like(parameter)
        for _ in range(steps):
            new.step()
    except Exception as error:
        raise RecipeError(
            f"cannot construct a new {kind} to read its initial state: {error}. Its constructor "
            f"must take parameter groups and the settings in its `defaults`, and its step no closure."
        ) from error
    return {
        name: [dict(one.state.get(p, {})) for p in _parameters(one)]
        for name, one in _with_inner({label: new})
    }
