"""Data order: the order policy, its key, the position in it, and any detour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np

from bygones.core.errors import DesignError
from bygones.core.values import Capability, Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.orders.base import AbstractOrder
from bygones.training.orders.cursor import NO_DETOUR
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource


class Order(AbstractSource):
    """The position of a run in its data order.

        batch at a step = policy.rows_given(key, detour[0] if there is a detour else position, memory)

    The lifetime is the policy's: to the end of the epoch when reshuffled, the whole run when shuffled
    once. A new order has the same key at position 0: the epochs start again, as when a loader's position
    is lost on resume. Leaves: `policy` (its hash), `key`, `position`, `detour`; and `redraws`, int64 [n, 2],
    where it has been resampled; and `memory/<name>` of an order that depends on losses or gradients.
    """

    name = "order"
    origin: Origin = "order"
    visibility: Visibility = "process"
    capabilities: frozenset[Capability] = frozenset(
        {"resettable", "order", "reseedable", "resampleable"}
    )

    def __init__(self, parts: Parts) -> None:
        self._cursor = parts.cursor
        self._policies = {parts.order.policy_hash(): parts.order}
        self._key_as_built = parts.cursor.key
        self._policy_as_built = parts.order.policy_hash()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(parts)

    def register_policies(self, policies: Iterable[AbstractOrder]) -> None:
        """Register the policies that treatments switch to, so that snapshots can refer to them by hash."""
        self._policies |= {policy.policy_hash(): policy for policy in policies}

    def capture(self) -> State:
        redraws = np.asarray(self._cursor.redraws, dtype=np.int64)
        return {
            "policy": self._cursor.order.policy_hash(),
            "key": self._cursor.key,
            "position": self._cursor.position,
            "detour": self._cursor.detour.copy(),
            **({"redraws": redraws} if len(redraws) else {}),
            **_memory_leaves(self._cursor.memory),
        }

    def restore(self, state: State) -> None:
        policy = state["policy"]
        if policy not in self._policies:
            raise DesignError(
                f"the snapshot uses an order policy that this run does not know (hash "
                f"{str(policy)[:12]}…). Restore it into a run of the same recipe and treatments."
            )
        self._cursor.order = self._policies[policy]
        self._cursor.key = state["key"]
        self._cursor.position = state["position"]
        self._cursor.detour = np.asarray(state["detour"], dtype=np.int64).copy()
        pairs = np.asarray(state.get("redraws", ()), dtype=np.int64).reshape(-1, 2).tolist()
        self._cursor.redraws = tuple((int(at), int(draw)) for at, draw in pairs)
        self._cursor.memory = {
            name.removeprefix("memory/"): clone_leaf(leaf)
            for name, leaf in state.items()
            if name.startswith("memory/")
        }
        self._cursor.complete_memory()

    def fresh(self) -> State:
        return {
            "policy": self._policy_as_built,
            "key": self._key_as_built,
            "position": 0,
            "detour": NO_DETOUR,
            **_memory_leaves(
                self._policies[self._policy_as_built].fresh_memory(self._key_as_built)
            ),
        }

    def redraws_alike(self, step: int) -> bool:
        """Return True where the order is drawn anew: at the start of a reshuffled epoch."""
        policy = self._cursor.order
        return policy.redraw_period > 0 and step % policy.redraw_period == 0

    def lifetime(self) -> Lifetime:
        return self._cursor.order.lifetime


def _memory_leaves(memory: State) -> State:
    return {f"memory/{name}": clone_leaf(leaf) for name, leaf in memory.items()}
