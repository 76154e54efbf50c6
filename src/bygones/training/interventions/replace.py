"""Replace: temporary settings, such as another order policy, queue length or teacher decay."""

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
    """leaf <- given value throughout the window; at its end the leaf returns to its value at the start.

    `with_` maps leaf names to values; for the order, `{"policy": another order}`. To make settings
    replaceable, a recipe keeps them in a dict in `Parts.others` and reads them in every step. Raises
    `UnknownName` for a leaf that the source does not have.
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
