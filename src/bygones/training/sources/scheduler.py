"""Where the schedule stands: the scheduler's counters and the optimizer's current settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bygones.core.values import Capability, Leaf, Lifetime, Origin, State, Visibility
from bygones.training.nested_state import flatten, like, unflatten
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource


class Scheduler(AbstractSource):
    """The scheduler's `state_dict`, and the settings of each parameter group (lr, betas, …).

    Remembers how many times it was stepped, to the end of its phase. Without a scheduler the
    settings alone are kept: they are memory too, as soon as anything changes them.
    "New" means as at construction: the phase starts again, with its first learning rate.
    """

    name = "scheduler"
    origin: Origin = "optimizer"
    visibility: Visibility = "state_dict"
    capabilities: frozenset[Capability] = frozenset({"resettable"})

    def __init__(
        self, optimizers: dict[str, Optimizer], schedulers: dict[str, LRScheduler]
    ) -> None:
        self._optimizers = optimizers
        self._schedulers = {_head(label): scheduler for label, scheduler in schedulers.items()}
        self.as_built = self.capture()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(dict(parts.optimizers), dict(parts.schedulers))

    def capture(self) -> State:
        state: dict[str, Leaf] = {}
        for head, scheduler in self._schedulers.items():
            counters = flatten(scheduler.state_dict(), "the scheduler")
            state |= {f"{head}/{path}": leaf for path, leaf in counters.items()}
        for label, optimizer in self._optimizers.items():
            settings = flatten(group_settings(optimizer.param_groups), "an optimizer's settings")
            state |= {f"{label or 'optimizer'}/{path}": leaf for path, leaf in settings.items()}
        return state

    def restore(self, state: State) -> None:
        nested = split_heads(state)
        for head, scheduler in self._schedulers.items():
            scheduler.load_state_dict(like(scheduler.state_dict(), unflatten(nested[head])))
        for label, optimizer in self._optimizers.items():
            settings = unflatten(nested[label or "optimizer"])
            for group, kept in zip(optimizer.param_groups, settings, strict=True):
                group.update(kept)

    def fresh(self) -> State:
        return self.as_built

    def lifetime(self) -> Lifetime:
        """The longest phase that a scheduler names; unbounded where none does."""
        named = [
            getattr(scheduler, "T_max", None) or getattr(scheduler, "total_steps", None)
            for scheduler in self._schedulers.values()
        ]
        phases = [float(phase) for phase in named if phase]
        return Lifetime("phase", max(phases)) if phases else Lifetime("unbounded")


def _head(label: str) -> str:
    """Where a scheduler's counters lie; a single one has no name of its own."""
    return f"counters of {label}" if label else "counters"


def split_heads(state: State) -> dict[str, dict[str, Leaf]]:
    """A state's leaves by scheduler or optimizer, then by path: what `unflatten` takes.

    >>> split_heads({"counters/last_epoch": 3, "optimizer/[0/lr": 0.1})
    {'counters': {'last_epoch': 3}, 'optimizer': {'[0/lr': 0.1}}
    """
    parts: dict[str, dict[str, Leaf]] = {}
    for name, leaf in state.items():
        head, _, path = name.partition("/")
        parts.setdefault(head, {})[path] = leaf
    return parts


def group_settings(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings of each parameter group (lr, betas, …), without its parameters and their names."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for group in groups
    ]
