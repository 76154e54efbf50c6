"""Tracked run: what an experiment tracker is told of a study, a ledger or a resume check."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Points = tuple[tuple[int, float], ...]  # step and value, by rising steps


@dataclass(frozen=True)
class TrackedRun:
    """One run: `settings` and `tags` by name, and `curves`, the points of each number by its name.

    Numbers that are not finite are left out of the curves, since trackers refuse or hide them.
    """

    name: str
    settings: Mapping[str, str | int | float]
    tags: Mapping[str, str]
    curves: Mapping[str, Points]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Tracker:
    """An experiment tracker: `write` writes a run to a place, and returns where it is to be looked at."""

    name: str
    default_place: str
    write: Callable[[TrackedRun, str], str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.write.__doc__)


def make_points(steps: list[int], values: list[float]) -> Points:
    """Return the points whose value is finite.

    >>> make_points([1, 2], [0.5, float("nan")])
    ((1, 0.5),)
    """
    pairs = zip(steps, values, strict=True)
    return tuple((int(step), float(value)) for step, value in pairs if math.isfinite(value))


def plain_name(text: str) -> str:
    """Replace what not every tracker takes in the name of a number.

    >>> plain_name("re-draw torch's stream")
    're-draw torch-s stream'
    """
    return re.sub(r"[^\w .:/-]", "-", text)
