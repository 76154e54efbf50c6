"""Counter-based (keyed) random numbers: each draw is a function of its address alone.

    key(seed, role)        = SHA-256("bygones.streams/1" | seed | role)          first 64 bits
    draws at a place       = a generator seeded with SHA-256(key | place)

A draw does not depend on the draws before it. So an arm that draws one number more does not shift the
data of the other arm, and neighbouring seeds share nothing (with `seed + epoch`, the second epoch of
seed 0 would be the first epoch of seed 1).

This is the *addressed* RNG contract. The whole state of a stream is one integer, its key, so a stream
can be captured, restored into another seed's run, and re-drawn separately. The generator at a place is
Philox (Salmon et al. 2011, doi:10.1145/2063384.2063405).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from operator import index

import numpy as np

_DOMAIN = "bygones.streams/1"
_BLOCK = 64  # places that are hashed at once

# `dropout` is torch's global generator within a step: dropout, and any other noise of the step.
ROLES = ("init", "order", "augmentation", "dropout", "numpy", "python")


def mix(*address: int | str) -> int:
    """Hash an address to 64 bits; every part counts, and so does their order.

    >>> mix(0, "order", 1) == mix(0, "order", 1), mix(0, "order", 1) == mix(1, "order", 0)
    (True, False)
    """
    named = (f"str:{p}" if isinstance(p, str) else f"int:{index(p)}" for p in (_DOMAIN, *address))
    text = "\x1f".join(named)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def mix_place(key: int, place: int) -> int:
    """Return `mix(key, place)`, where places are visited one after another: hashed a block at a time.

    >>> mix_place(7, 100) == mix(7, 100)
    True
    """
    return _mix_block(key, place // _BLOCK)[place % _BLOCK]


@lru_cache(maxsize=1024)  # of a few streams and of all lanes; a block takes 3 kB
def _mix_block(key: int, block: int) -> tuple[int, ...]:
    begun = hashlib.sha256("\x1f".join((f"str:{_DOMAIN}", f"int:{key}", "int:")).encode())
    mixed: list[int] = []
    for place in range(block * _BLOCK, (block + 1) * _BLOCK):
        hasher = begun.copy()
        hasher.update(b"%d" % place)
        mixed.append(int.from_bytes(hasher.digest()[:8], "big"))
    return tuple(mixed)


def generator(*address: int | str) -> np.random.Generator:
    """Create the numpy generator of an address.

    >>> int(generator(0, "order", 1).integers(1000)) == int(generator(0, "order", 1).integers(1000))
    True
    """
    return np.random.Generator(np.random.Philox(key=mix(*address)))


@dataclass(frozen=True)
class Streams:
    """The random streams of one seed, one for each role.

    >>> Streams(0).at("order", 1).permutation(8).tolist() == Streams(1).at("order", 0).permutation(8).tolist()
    False
    """

    seed: int

    def key(self, role: str) -> int:
        """Return the key of a role's stream: the only state that the stream has."""
        return mix(self.seed, role)

    def at(self, role: str, place: int) -> np.random.Generator:
        """Create the generator of a role at a place (a step, an epoch or an example)."""
        return generator(self.key(role), place)
