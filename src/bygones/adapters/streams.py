"""The random streams of a trainer's process, and those that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bygones.script.streams import CarriedStreams, reseed
from bygones.streams import mix
from bygones.values import State


class GivenStreams(CarriedStreams):
    """Exactly the generators that are given: `<name>/key`, `<name>/…`.

    A key that has changed says all: the generator is seeded from it, and the rest of its leaves, which a
    `reseed` of everything may have mixed too, are not looked at.
    """

    def __init__(self, generators: Mapping[str, Any], seed: int) -> None:
        self._generators = dict(generators)
        self._keys = {name: mix(seed, "stream", name) for name in self._generators}
        self.as_built = self.capture()

    def restore(self, state: State) -> None:
        for name, generator in self._generators.items():
            key = state.get(f"{name}/key", self._keys[name])
            if key == self._keys[name]:
                super().restore({n: leaf for n, leaf in state.items() if n.startswith(f"{name}/")})
            else:
                self._keys[name] = key
                reseed(generator, key)
