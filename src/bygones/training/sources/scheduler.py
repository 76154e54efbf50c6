"""Learning rate schedule: the scheduler's counters and the optimizer's current settings."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, Self

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bygones.core.values import Capability, Leaf, Lifetime, Origin, State, Visibility
from bygones.training.nested_state import flatten, like, unflatten
from bygones.training.param_groups import group_counters, setting_names
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource


class Scheduler(AbstractSource):
    """The schedulers' `state_dict`, and the settings of each parameter group (lr, betas, …).

    It counts its steps to the end of its phase. Without a scheduler only the settings are captured: they
    are memory too if anything changes them. A reset returns to the state at construction: the phase
    starts again, with its first learning rate.
    """

    name = "scheduler"
    origin: Origin = "optimizer"
    visibility: Visibility = "state_dict"
    capabilities: frozenset[Capability] = frozenset({"resettable"})

    def __init__(
        self, optimizers: dict[str, Optimizer], schedulers: dict[str, LRScheduler]
    ) -> None:
        self._optimizers = optimizers
        self._settings = {label: setting_names(o) for label, o in optimizers.items()}
        self._schedulers = {
            _counters_name(label): scheduler for label, scheduler in schedulers.items()
        }
        self.baseline = self.capture()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(dict(parts.optimizers), dict(parts.schedulers))

    def capture(self) -> State:
        state: dict[str, Leaf] = {}
        for head, scheduler in self._schedulers.items():
            counters = flatten(scheduler.state_dict(), "the scheduler")
            state |= {f"{head}/{path}": leaf for path, leaf in counters.items()}
        for label, optimizer in self._optimizers.items():
            groups = group_settings(
                optimizer.param_groups, partial(group_counters, settings=self._settings[label])
            )
            settings = flatten(groups, "an optimizer's settings")
            state |= {f"{label or 'optimizer'}/{path}": leaf for path, leaf in settings.items()}
        return state

    def restore(self, state: State) -> None:
        nested = split_heads(state)
        for head, scheduler in self._schedulers.items():
            scheduler.load_state_dict(like(scheduler.state_dict(), unflatten(nested[head])))
        for label, optimizer in self._optimizers.items():
            settings = unflatten(nested[label or "optimizer"])
            for group, values in zip(optimizer.param_groups, settings, strict=True):
                group.update(values)

    def fresh(self) -> State:
        return self.baseline

    def lifetime(self) -> Lifetime:
        """Return the longest phase that a scheduler declares; unbounded where none does."""
        declared = [
            getattr(scheduler, "T_max", None) or getattr(scheduler, "total_steps", None)
            for scheduler in self._schedulers.values()
        ]
        phases = [float(phase) for phase in declared if phase]
        return Lifetime("phase", max(phases)) if phases else Lifetime("unbounded")


def _counters_name(label: str) -> str:
    """Return the first part of the leaf names of a scheduler's counters; a single one has no label."""
    return f"counters of {label}" if label else "counters"


def split_heads(state: State) -> dict[str, dict[str, Leaf]]:
    """Split a state's leaves by scheduler or optimizer, then by path: what `unflatten` takes.

    >>> split_heads({"counters/last_epoch": 3, "optimizer/[0/lr": 0.1})
    {'counters': {'last_epoch': 3}, 'optimizer': {'[0/lr': 0.1}}
    """
    parts: dict[str, dict[str, Leaf]] = {}
    for name, leaf in state.items():
        head, _, path = name.partition("/")
        parts.setdefault(head, {})[path] = leaf
    return parts


def group_settings(
    groups: Sequence[Mapping[str, Any]], counters: Callable[[Mapping[str, Any]], Container[str]]
) -> list[dict[str, Any]]:
    """Return the settings of each parameter group (lr, betas, …), without its parameters and their names.

    `counters`: a function of the group that returns what in it is state.
    """
    return [
        {
            key: value
            for key, value in group.items()
            if key not in ("params", "param_names") and key not in counters(group)
        }
        for group in groups
    ]
