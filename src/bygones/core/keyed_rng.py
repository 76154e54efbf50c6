"""Addressed randomness: what is drawn depends on who draws and where, never on what came before.

    key(seed, role)        = SHA-256("bygones.streams/1" | seed | role)          first 64 bits
    draws at a place       = a generator seeded with SHA-256(key | place)

so an arm that draws one number more does not shift the other arm's data, and neighbouring seeds
share nothing (with `seed + epoch`, the second epoch of seed 0 is the first epoch of seed 1).

This is the *addressed* RNG contract. Its whole state is one integer per role, which is why a
stream can be captured, restored into another seed's run, and re-drawn on its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from operator import index

import numpy as np

_DOMAIN = "bygones.streams/1"

# Who draws. `dropout` is torch's global generator inside a step: dropout and any noise the step makes.
ROLES = ("init", "order", "augmentation", "dropout", "numpy", "python")


def mix(*address: int | str) -> int:
    """64 bits that depend on every part of an address, and on its order.

    >>> mix(0, "order", 1) == mix(0, "order", 1), mix(0, "order", 1) == mix(1, "order", 0)
    (True, False)
    """
    named = (f"str:{p}" if isinstance(p, str) else f"int:{index(p)}" for p in (_DOMAIN, *address))
    text = "\x1f".join(named)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(*address: int | str) -> np.random.Generator:
    """A numpy generator of its own for this address."""
    return np.random.Generator(np.random.Philox(key=mix(*address)))


@dataclass(frozen=True)
class Streams:
    """The streams of one seed.

    >>> Streams(0).at("order", 1).permutation(8).tolist() == Streams(1).at("order", 0).permutation(8).tolist()
    False
    """

    seed: int

    def key(self, role: str) -> int:
        """The integer that stands for a role's whole stream; the only thing it carries."""
        return mix(self.seed, role)

    def at(self, role: str, place: int) -> np.random.Generator:
        """The generator for a role at a place (a step, an epoch, an example)."""
        return generator(self.key(role), place)
