"""Random number generators: read, seed and restore the states of torch, numpy and python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import digest
from bygones.core.keyed_rng import mix_place
from bygones.core.values import Digest


def global_states() -> dict[str, Digest]:
    """Hash the states of the three global generators; a digest that changed means a draw."""
    return {
        "torch": digest([torch.default_generator.get_state(), *_read_gpu_states()]),
        "numpy": digest(np.random.get_state(legacy=False)),
        "python": digest(random.getstate()),
    }


@contextmanager
def preserve_global_generators() -> Iterator[None]:
    """Restore the global generators to their present states when the block ends."""
    kept_torch, kept_numpy, kept_python = (
        torch.default_generator.get_state(),
        np.random.get_state(),
        random.getstate(),
    )
    kept_gpus = _read_gpu_states()
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
    """Seed the global generators within the block as `seed_global_generators` does, then restore them."""
    with preserve_global_generators():
        seed_global_generators(keys, place)
        yield


def seed_global_generators(keys: Mapping[str, int], place: int) -> None:
    """Seed the three global generators, torch's on each device, for `place` of their streams.

    `keys`: the streams' keys by role. The Mersenne Twisters of torch's CPU generator and of numpy's
    legacy generator use only 32 bits of a seed.
    """
    noise = mix_place(keys["dropout"], place)
    torch.default_generator.manual_seed(noise)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(noise)
    np.random.seed(mix_place(keys["numpy"], place) & 0xFFFFFFFF)
    random.seed(mix_place(keys["python"], place))


def _read_gpu_states() -> list[Tensor]:
    """Read the states of the GPUs' generators; empty if CUDA is not in use."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def generator_state(generator: Any) -> Any:
    """Read the state of a random generator as a nested value; None if the object is no generator."""
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


def generator_kind(generator: Any) -> str:
    """Return the kind of a generator in words.

    >>> generator_kind(random.Random(0))
    'python generator'
    """
    match generator:
        case torch.Generator():
            return "torch generator"
        case np.random.Generator():
            return "numpy generator"
        case np.random.RandomState():
            return "numpy random state"
        case _:
            return "python generator"


def set_generator_state(generator: Any, state: Any) -> None:
    """Restore a generator to a state that `generator_state` returned."""
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
    """Return the three global generator objects, by library."""
    return {
        "python": random._inst,  # type: ignore[attr-defined]
        "numpy": np.random.mtrand._rand,
        "torch": torch.default_generator,
    }


def reseed(generator: Any, key: int) -> None:
    """Seed a generator of any kind, in place."""
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
    """Return torch's global generator of a device, from which dropout draws there."""
    if device == "cpu":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[torch.device(device).index or 0]
