"""Random streams: the keys of the run's random number generators."""

from __future__ import annotations

from typing import ClassVar, Self

from bygones.core.values import Capability, Lifetime, Origin, State, Visibility
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, refuse_reset


class RandomStreams(AbstractSource):
    """The key of each role: `augmentation`, `dropout` (torch's global generator in a step), numpy, python.

        generator of a role at a step = generator(SHA-256(key | step))

    Under the addressed contract a stream carries only its key from step to step: it does not decay and
    does not accumulate. To re-draw it from a step on, change its key (`reseed`).
    """

    name = "streams"
    origin: Origin = "randomness"
    visibility: Visibility = "process"
    capabilities: frozenset[Capability] = frozenset({"reseedable", "resampleable"})
    reset_refusal: ClassVar[str] = (
        "an addressed stream accumulates nothing, so it equals a new one. Use reseed to draw it again."
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

    def redraws_alike(self, step: int) -> bool:
        return True

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
