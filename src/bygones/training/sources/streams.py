"""The random streams of a run."""

from __future__ import annotations

from typing import ClassVar, Self

from bygones.core.values import Capability, Lifetime, Origin, State, Visibility
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, refuse_reset


class RandomStreams(AbstractSource):
    """One key per role: `augmentation`, `dropout` (torch's global generator in a step), numpy, python.

        generator of a role at a step = generator(SHA-256(key | step))

    Under the addressed contract a stream carries nothing from step to step but its key, so it never
    forgets and never accumulates; re-drawing it from a step on is to change the key (`reseed`).
    """

    name = "streams"
    origin: Origin = "randomness"
    visibility: Visibility = "process"
    capabilities: frozenset[Capability] = frozenset({"reseedable"})
    reset_refusal: ClassVar[str] = (
        "an addressed stream accumulates nothing; new is what it is. Use reseed to draw it again."
    )

    def __init__(self, keys: dict[str, int]) -> None:
        self._keys = keys

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(parts.keys)

    def capture(self) -> State:
        return dict(self._keys)

    def restore(self, state: State) -> None:
        self._keys.update(state)

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
