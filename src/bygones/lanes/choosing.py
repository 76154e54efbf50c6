"""Whether a recipe's seeds are trained in lanes, and how wide: measured, checked, and said.

    predicted time of n seeds = ⌈⌈n / W⌉ / workers⌉ · W · (time of a step of one of W lanes)

Lanes are chosen only if three things hold of this recipe, here and now:
    agreement   after a few steps each source's floats are where the single runs' are, within TOLERANCE of
                their norm, and everything that is no float is equal
    place       a run comes to the same bits in whichever lane it is
    gain        they are predicted to be faster than single runs, by more than timing is uncertain by
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

from bygones.digest import same
from bygones.lanes.machine import Lanes, refusal
from bygones.lanes.stack import Unlike
from bygones.leaves import is_continuous, numbers
from bygones.recipe import Recipe, kept_globals
from bygones.run import Run, Snapshot
from bygones.values import Leaf

WIDTHS = (16, 8)  # multiples of what a vector register holds, so that no lane is a remainder
TOLERANCE = 1e-5  # of a leaf's norm, after STEPS steps
STEPS = 3
_GAIN = 1.15
_FEWEST = 6  # seeds
_TIMED = 6


@dataclass(frozen=True)
class Choice:
    """How the seeds of a study are trained, and why: a sentence, and what was measured for it.

    `seconds_a_step`: of one seed, as chosen; `seconds_alone`: by itself. `difference`: between lanes and
    single runs, as a share of a leaf's norm, the worst of all leaves.
    """

    lanes: int
    why: str
    seconds_a_step: float | None = None
    seconds_alone: float | None = None
    difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose(
    recipe: Recipe, seeds: Sequence[int], *, workers: int = 1, asked: int | None = None
) -> Choice:
    """The width that is predicted to be fastest for these seeds, or 1; `asked` for one width, only that.

    Trains a few steps. What cannot be lanes is trained one by one, and the sentence says why.
    """
    if asked == 1:
        return Choice(1, "Seeds are trained one by one, as asked.")
    if not asked and len(seeds) < _FEWEST:
        return Choice(1, f"Seeds are trained one by one: {len(seeds)} are too few for lanes.")
    # As wide as leaves every worker a job.
    width = asked or next((w for w in WIDTHS if len(seeds) >= w * workers), WIDTHS[-1])
    why_not = refusal(Run(recipe, seeds[0]).parts)
    if why_not:
        return Choice(1, f"Seeds are trained one by one: {why_not}.")
    runs = [Run(recipe, seed) for seed in _as_many(seeds, width)]
    with kept_globals():
        alone = _seconds(lambda: runs[0].advance(runs[0].step + _TIMED), runs[:1])
        try:
            together, difference = _try(runs, width)
        except Unlike as unlike:
            return Choice(1, f"Seeds are trained one by one: {unlike}.", alone, alone)
    rounds = ceil(ceil(len(seeds) / width) / workers)
    gain = ceil(len(seeds) / workers) * alone / (rounds * width * together)
    if gain < _GAIN and not asked:
        why = (
            f"Seeds are trained one by one: {width} in one step would be {gain:.2g} times as fast "
            f"here, which is not worth another contract."
        )
        return Choice(1, why, alone, alone, difference)
    why = (
        f"{width} seeds take each step together, {gain:.2g} times as fast as one by one here; after "
        f"{STEPS} steps they are within {difference:.1g} of single runs (allowed: {TOLERANCE:g})."
    )
    return Choice(width, why, together, alone, difference)


def _as_many(seeds: Sequence[int], width: int) -> list[int]:
    """The study's first seeds, and others after them where it has too few."""
    more = range(max(seeds) + 1, max(seeds) + 1 + width)
    return [*seeds, *more][:width]


def _try(runs: Sequence[Run], width: int) -> tuple[float, float]:
    """Seconds of a seed's step in lanes of these runs, and how far they end from single ones.

    The runs are left where they were. Raises `Unlike`.
    """
    start = [run.snapshot() for run in runs]

    def ends(order: Sequence[int]) -> tuple[Lanes, dict[int, Snapshot]]:
        lanes = Lanes([runs[place] for place in order], width)
        for run, snapshot in zip(runs, start, strict=True):
            run.restore(snapshot)
        lanes.advance(runs[0].step + STEPS)
        return lanes, {place: runs[place].snapshot() for place in order}

    forwards, backwards = range(len(runs)), range(len(runs) - 1, -1, -1)
    _, one = ends(forwards)
    lanes, other = ends(backwards)
    if any(one[place].digest() != other[place].digest() for place in forwards):
        raise Unlike("what a run comes to depends on the lane that it is in")
    seconds = _seconds(lambda: lanes.advance(runs[0].step + _TIMED), runs) / len(runs)
    difference = 0.0
    for place in range(min(3, len(runs))):
        runs[place].restore(start[place])
        runs[place].advance(start[place].step + STEPS)
        difference = max(difference, apart(one[place], runs[place].snapshot()))
    for run, snapshot in zip(runs, start, strict=True):
        run.restore(snapshot)
    if not difference <= TOLERANCE:
        raise Unlike(
            f"after {STEPS} steps lanes are {difference:.2g} away from single runs; {TOLERANCE:g} is allowed"
        )
    return seconds, difference


def apart(one: Snapshot, other: Snapshot) -> float:
    """The largest distance between two snapshots' leaves, as a share of the leaf's norm; inf if not alike."""
    worst = 0.0
    for source, state in one.states.items():
        there: Mapping[str, Leaf] = other.states[source]
        if state.keys() != there.keys():
            return np.inf
        for name, leaf in state.items():
            if is_continuous(leaf):
                size = float(np.linalg.norm(numbers(there[name])))
                distance = float(np.linalg.norm(numbers(leaf) - numbers(there[name])))
                worst = max(worst, distance / size if size else distance)
            elif not same(leaf, there[name]):
                return np.inf
    return worst


def _seconds(work: Any, runs: Sequence[Run]) -> float:
    """The time of a step of something that takes `_TIMED` of them."""
    kept = [run.snapshot() for run in runs]
    work()  # what is made on the first steps is made
    began = time.perf_counter()
    work()
    seconds = (time.perf_counter() - began) / _TIMED
    for run, snapshot in zip(runs, kept, strict=True):
        run.restore(snapshot)
    return seconds
