"""Random generators: read, seed, restore and re-draw the global ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import digest
from bygones.core.keyed_rng import mix
from bygones.core.values import Digest


def global_states() -> dict[str, Digest]:
    """Digests of the states of the process's three generators, to see which of them is drawn from."""
    return {
        "torch": digest([torch.default_generator.get_state(), *_gpu_states()]),
        "numpy": digest(np.random.get_state(legacy=False)),
        "python": digest(random.getstate()),
    }


@contextmanager
def preserve_global_generators() -> Iterator[None]:
    """Gives the process's global generators back as they were: what runs inside leaves no trace."""
    kept_torch, kept_numpy, kept_python = (
        torch.default_generator.get_state(),
        np.random.get_state(),
        random.getstate(),
    )
    kept_gpus = _gpu_states()
    try:
        yield
    finally:
        torch.default_generator.set_state(kept_torch)
        if kept_gpus:
            torch.cuda.set_rng_state_all(kept_gpus)
        np.random.set_state(kept_numpy)
        random.setstate(kept_python)


@contextmanager
def with_seeded_generators(keys: Mapping[str, int], place: int) -> Iterator[None]:
    """The global generators at an address, and as they were before once it is over."""
    with preserve_global_generators():
        seed_global_generators(keys, place)
        yield


def seed_global_generators(keys: Mapping[str, int], place: int) -> None:
    """Puts the three global generators, torch's on each device, at `place` of their streams.

    torch's CPU generator and numpy's legacy one take 32 bits of the address (theirs, not ours).
    """
    torch.default_generator.manual_seed(mix(keys["dropout"], place))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mix(keys["dropout"], place))
    np.random.seed(mix(keys["numpy"], place) & 0xFFFFFFFF)
    random.seed(mix(keys["python"], place))


def _gpu_states() -> list[Tensor]:
    """The states of the GPUs' generators, where a GPU is in use."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def generator_state(generator: Any) -> Any:
    """The state of a random generator as a nested value, or None if it is not a generator."""
    match generator:
        case torch.Generator():
            return {"torch": generator.get_state()}
        case np.random.Generator():
            return {"numpy": dict(generator.bit_generator.state)}
        case np.random.RandomState():
            return {"numpy": dict(generator.get_state(legacy=False))}
        case random.Random():
            return {"python": generator.getstate()}
        case _:
            return None


def set_generator_state(generator: Any, state: Any) -> None:
    """Puts back what `generator_state` gave."""
    match generator:
        case torch.Generator():
            generator.set_state(state["torch"])
        case np.random.Generator():
            generator.bit_generator.state = state["numpy"]
        case np.random.RandomState():
            generator.set_state(state["numpy"])
        case _:
            generator.setstate(state["python"])


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


def device_generator(device: str) -> torch.Generator:
    """The generator that dropout draws from on this device."""
    if device == "cpu":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[torch.device(device).index or 0]
