"""Other settings for a while: order policy, queue length, teacher decay, augmentation stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bygones.core.catalogue import unknown_name
from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.orders.base import AbstractOrder


@dataclass(frozen=True, eq=False)
class Replace(AbstractIntervention):
    """leaf <- given value, throughout the window; at its end the leaf goes back to what it was.

    `with_` maps leaf names to values; for the order, `{"policy": another order}`. Settings that a recipe
    wants to be replaceable are kept in a dict in `Parts.others` and read in every step.
    """

    with_: Mapping[str, Any]
    restores_at_end: ClassVar[bool] = True

    def __call__(self, state: State, at: Boundary) -> State:
        for name in self.with_:
            if name not in state:
                raise unknown_name(f"leaf of {at.source}", name, state)
        values = {
            name: value.policy_hash() if isinstance(value, AbstractOrder) else value
            for name, value in self.with_.items()
        }
        return {**state, **values}
