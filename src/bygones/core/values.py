"""Value types: State, Leaf, Window, Lifetime, Digest and Capability. Imports no torch.

A *leaf* is an array or a plain number; a *state* maps leaf names to leaves. Leaves of an
optimizer are named `<parameter's name>/<torch's own key>`, for example `net.0.weight/exp_avg`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from bygones.core.checks import refuse, require_integer, require_number
from bygones.core.errors import DesignError

# A leaf is a numpy array, a torch tensor, or a plain bool/int/float/str/None. The type is `Any`
# because this file must be importable without torch: bundles are verified on machines that lack it.
Leaf = Any
State = Mapping[str, Leaf]
Digest = str  # 64 hex digits, SHA-256

Origin = Literal[
    "path", "optimizer", "normalisation", "averaging", "auxiliary", "order", "randomness"
]
Visibility = Literal["state_dict", "non-persistent", "process"]
# What an intervention requires and a source provides: "resettable" has a state as if created now,
# "arrays" holds arrays of floats, "order" is an order of batches, "reseedable" can be drawn again,
# "resampleable" can be drawn again by its law given the past.
Capability = Literal["anything", "resettable", "arrays", "order", "reseedable", "resampleable"]


@dataclass(frozen=True, order=True)
class Window:
    """A half-open interval of boundaries, `start <= step < stop`, in optimizer steps.

    Raises `DesignError` unless 0 <= start < stop.

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
        """The number of boundaries in the window."""
        return self.stop - self.start

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.stop

    def __str__(self) -> str:
        if self.length == 1:
            return f"step {self.start}"
        return f"steps {self.start}–{self.stop - 1}"


@dataclass(frozen=True)
class Lifetime:
    """The memory time constant of a source, in optimizer steps, if nothing else acts on it.

    `e-fold`: a difference shrinks to 1/e in `steps`, and to one half in `ln 2 · steps`.
    `exact`: a difference is gone after exactly `steps`. `phase`: it lasts to the end of a phase of at
    most `steps`. `unbounded`: it does not decay.

    >>> round(Lifetime.decaying(0.9).half_life, 6)   # BatchNorm at momentum 0.1
    6.578813
    """

    kind: Literal["e-fold", "exact", "phase", "unbounded"]
    steps: float = math.inf

    def __post_init__(self) -> None:
        if type(self.kind) is not str or self.kind not in (
            "e-fold",
            "exact",
            "phase",
            "unbounded",
        ):
            raise refuse("a lifetime's kind", "e-fold, exact, phase or unbounded", self.kind)
        if not (isinstance(self.steps, float) and self.steps == math.inf):
            require_number(self.steps, "a lifetime's steps")
        if not self.steps >= 0:
            raise refuse("a lifetime's steps", "0 or more", self.steps)

    @staticmethod
    def decaying(factor: float) -> Lifetime:
        """Return the lifetime of a source that keeps the fraction `factor` of a difference each step."""
        if factor <= 0.0:
            return Lifetime("exact", 1)
        if factor >= 1.0:
            return Lifetime("unbounded")
        return Lifetime("e-fold", -1.0 / math.log(factor))

    @property
    def half_life(self) -> float:
        """The half-life in steps; for all but `e-fold`, the lifetime itself."""
        return math.log(2.0) * self.steps if self.kind == "e-fold" else self.steps

    def __str__(self) -> str:
        match self.kind:
            case "e-fold":
                return f"e-fold {self.steps:.4g} steps (half-life {self.half_life:.4g})"
            case "exact":
                return f"exactly {self.steps:.6g} {'step' if self.steps == 1 else 'steps'}"
            case "phase":
                return f"at most {self.steps:.6g} steps (to the end of its phase)"
            case _:
                return "unbounded"


def match_leaves(state: State, leaves: str) -> list[str]:
    """List the leaves whose names match a shell pattern (`*` selects all, `|` separates patterns).

    >>> match_leaves({"w/exp_avg": 0, "w/step": 1}, "*/exp_avg*")
    ['w/exp_avg']
    """
    patterns = [pattern.strip() for pattern in leaves.split("|")]
    return [name for name in state if any(fnmatchcase(name, pattern) for pattern in patterns)]
