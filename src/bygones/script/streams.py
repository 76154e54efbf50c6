"""The random generators of a script: its memory of how much was drawn so far."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from bygones.recipe import Parts
from bygones.sources import AbstractSource
from bygones.sources.trees import flatten, generator_state, set_generator_state, unflatten
from bygones.streams import mix
from bygones.values import Lifetime, Offer, Origin, State, Visibility


class CarriedStreams(AbstractSource):
    """The global generators of python, numpy and torch, and each private one: `<name>/key`, `<name>/…`.

    Under the *carried* contract a stream's state is where the last draw left it, so it never forgets.
    `key` is an integer of its own beside each: changing it (`reseed`) seeds the generator from it.
    "New" means as before the first update of the weights.
    """

    name = "streams"
    origin: Origin = "randomness"
    visibility: Visibility = "process"
    offers: frozenset[Offer] = frozenset({"new", "draws"})

    def __init__(self, private: Mapping[str, Any], seed: int) -> None:
        self._generators: dict[str, Any] = {**global_generators(), **private}
        self._keys = {name: mix(seed, "stream", name) for name in self._generators}
        self.as_built = self.capture()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """A recipe's streams are addressed; see `bygones.sources.streams`."""
        return None

    def capture(self) -> State:
        state: dict[str, Any] = {}
        for name, generator in self._generators.items():
            state[f"{name}/key"] = self._keys[name]
            held = flatten(_state(generator), f"the generator {name}")
            state |= {f"{name}/{path}": leaf for path, leaf in held.items()}
        return state

    def restore(self, state: State) -> None:
        for name, generator in self._generators.items():
            mine = {
                path.removeprefix(f"{name}/"): leaf
                for path, leaf in state.items()
                if path.startswith(f"{name}/")
            }
            if not mine:
                continue
            key = mine.pop("key")
            if mine:
                _set_state(generator, unflatten(mine))
            if key != self._keys[name]:
                self._keys[name] = key
                reseed(generator, key)

    def fresh(self) -> State:
        return self.as_built

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


def global_generators() -> dict[str, Any]:
    """The generators that the process shares, as objects."""
    return {
        "python": random._inst,  # type: ignore[attr-defined]
        "numpy": np.random.mtrand._rand,
        "torch": torch.default_generator,
    }


def reseed(generator: Any, key: int) -> None:
    """Seeds a generator of any kind, in place."""
    match generator:
        case torch.Generator():
            generator.manual_seed(key)
        case np.random.Generator():
            kind: Any = type(generator.bit_generator)
            generator.bit_generator.state = kind(key).state
        case np.random.RandomState():
            generator.seed(key & 0xFFFFFFFF)
        case _:
            generator.seed(key)


def _state(generator: Any) -> Any:
    """The state as a nested value; python's 625 numbers as one array."""
    if not isinstance(generator, random.Random):
        return generator_state(generator)
    version, numbers, gauss = generator.getstate()
    return {"version": version, "numbers": np.asarray(numbers, dtype=np.uint32), "gauss": gauss}


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        numbers = tuple(int(number) for number in state["numbers"])
        generator.setstate((state["version"], numbers, state["gauss"]))
    else:
        set_generator_state(generator, state)
