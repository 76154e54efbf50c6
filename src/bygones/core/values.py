"""The small frozen values that everything else passes around. No torch here.

A *leaf* is an array or a plain number; a *state* maps leaf names to leaves. Leaves of an
optimizer are called `<parameter's name>/<torch's own key>`, for example `net.0.weight/exp_avg`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import index
from typing import Any, Literal

from bygones.core.errors import DesignError

# A leaf is a numpy array, a torch tensor, or a plain bool/int/float/str/None. Tensors are meant by
# `Any`: this file must be importable on a machine without torch, where bundles are verified.
Leaf = Any
State = Mapping[str, Leaf]
Digest = str  # 64 hex digits, SHA-256

Origin = Literal[
    "path", "optimizer", "normalisation", "averaging", "auxiliary", "order", "randomness"
]
Visibility = Literal["state_dict", "non-persistent", "process"]
# What a source offers to interventions, and what an intervention needs of a source:
# a meaning of "created now", arrays of floats, an order of batches, a draw that can be made again.
Capability = Literal["anything", "resettable", "arrays", "order", "reseedable"]


def require_integer(value: Any, what: str) -> int:
    """A whole number as Python's own int (numpy's are told apart by digests and by JSON).

    >>> import numpy as np
    >>> require_integer(np.int64(3), "fork_at")
    3
    """
    try:
        return index(value)
    except TypeError:
        raise DesignError(f"{what} must be a whole number; got {value!r}.") from None


@dataclass(frozen=True, order=True)
class Window:
    """A half-open stretch of boundaries, `start <= step < stop`, counted in optimizer steps.

    >>> Window(300, 301).length
    1
    >>> 300 in Window(300, 301), 301 in Window(300, 301)
    (True, False)
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", require_integer(self.start, "a window's start"))
        object.__setattr__(self, "stop", require_integer(self.stop, "a window's stop"))
        if self.start < 0 or self.stop <= self.start:
            raise DesignError(
                f"a window is [start, stop) with 0 <= start < stop, in optimizer steps; "
                f"got [{self.start}, {self.stop})."
            )

    @property
    def length(self) -> int:
        return self.stop - self.start

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.stop

    def __str__(self) -> str:
        if self.length == 1:
            return f"step {self.start}"
        return f"steps {self.start}–{self.stop - 1}"


@dataclass(frozen=True)
class Lifetime:
    """How long a source remembers, in optimizer steps, if nothing else happens to it.

    `e-fold`: a difference shrinks to 1/e in `steps`; half of it is gone after `ln 2 · steps`.
    `exact`: gone after exactly `steps`. `phase`: lasts to the end of a phase of at most `steps`.
    `unbounded`: never goes by itself.

    >>> round(Lifetime.decaying(0.9).half_life, 6)   # BatchNorm at momentum 0.1
    6.578813
    """

    kind: Literal["e-fold", "exact", "phase", "unbounded"]
    steps: float = math.inf

    @staticmethod
    def decaying(factor: float) -> Lifetime:
        """A carrier that keeps the fraction `factor` of a difference at each step."""
        if factor <= 0.0:
            return Lifetime("exact", 1)
        if factor >= 1.0:
            return Lifetime("unbounded")
        return Lifetime("e-fold", -1.0 / math.log(factor))

    @property
    def half_life(self) -> float:
        return math.log(2.0) * self.steps if self.kind == "e-fold" else self.steps

    def __str__(self) -> str:
        match self.kind:
            case "e-fold":
                return f"e-fold {self.steps:.4g} steps (half-life {self.half_life:.4g})"
            case "exact":
                return f"exactly {self.steps:.6g} step{'s' if self.steps != 1 else ''}"
            case "phase":
                return f"at most {self.steps:.6g} steps (to the end of its phase)"
            case _:
                return "unbounded"


def match_leaves(state: State, leaves: str) -> list[str]:
    """Names of the leaves that a pattern selects (`*` alone selects all, `|` separates patterns).

    >>> match_leaves({"w/exp_avg": 0, "w/step": 1}, "*/exp_avg*")
    ['w/exp_avg']
    """
    patterns = [pattern.strip() for pattern in leaves.split("|")]
    return [name for name in state if any(fnmatchcase(name, pattern) for pattern in patterns)]
