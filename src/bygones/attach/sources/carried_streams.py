"""Carried random streams: the states of a script's random generators."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, Leaf, Lifetime, Origin, State, Visibility
from bygones.training.generators import (
    generator_state,
    global_generators,
    reseed,
    set_generator_state,
)
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource


class CarriedStreams(AbstractSource):
    """The global generators of python, numpy and torch, and each private one: `<name>/key`, `<name>/state`.

    Under the *carried* contract a stream's state is where the last draw left it, so it never forgets.
    Each has an integer `key`; writing another one (`reseed`) seeds the generator from it.
    "New" means as before the first update of the weights.
    """

    name = "streams"
    origin: Origin = "randomness"
    visibility: Visibility = "process"
    capabilities: frozenset[Capability] = frozenset({"resettable", "reseedable"})

    def __init__(self, private: Mapping[str, Any], seed: int) -> None:
        self._generators: dict[str, Any] = {**global_generators(), **private}
        self._keys = {name: mix(seed, "stream", name) for name in self._generators}
        self.baseline = self.capture()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return None: a recipe's streams are addressed; see `bygones.training.sources.streams`."""
        return None

    def generators(self) -> dict[str, Any]:
        """Return the generators by name."""
        return dict(self._generators)

    def redraws_alike(self, step: int) -> bool:
        return True

    def capture(self) -> State:
        state: dict[str, Any] = {}
        for name, generator in self._generators.items():
            state |= {f"{name}/key": self._keys[name], f"{name}/state": _state(generator)}
        return state

    def restore(self, state: State) -> None:
        for name, generator in self._generators.items():
            if f"{name}/state" in state:
                _set_state(generator, state[f"{name}/state"])
            key = state.get(f"{name}/key", self._keys[name])
            if key != self._keys[name]:
                self._keys[name] = key
                reseed(generator, key)

    def fresh(self) -> State:
        return self.baseline

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


def but_keys(state: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Return the state without the streams' keys, which follow from the seed and not from the run."""
    return {leaf: value for leaf, value in state.items() if not leaf.endswith("/key")}


def _state(generator: Any) -> Any:
    """Return a generator's state as one opaque leaf: torch's own tensor, else JSON text."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(generator_state(generator), default=_plain)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, numbers, gauss = json.loads(state)["python"]
        generator.setstate((version, tuple(numbers), gauss))
    else:
        set_generator_state(generator, json.loads(state, object_hook=_array))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    return value.item()


def _array(value: dict[str, Any]) -> Any:
    return np.asarray(value["array"], dtype=value["dtype"]) if "array" in value else value
