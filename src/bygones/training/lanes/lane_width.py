"""Whether a recipe's seeds are trained in lanes, and how wide: measured, checked, and said.

    predicted time of n seeds = ⌈⌈n / W⌉ / workers⌉ · W · (time of a step of one of W lanes)

Lanes are chosen only if three things hold of this recipe, here and now:
    agreement   after STEPS steps the losses, and what the study's probe observes, are within TOLERANCE of the
                single runs' (as a share of their norm), and whatever is no array of floats is equal. Weights
                are not compared one by one: where the loss does not depend on one (a bias before BatchNorm),
                its gradient is rounding alone, which Adam makes as large as any other
    place       a run comes to the same bits in whichever lane it is
    gain        they are predicted to be faster than single runs, by more than timing is uncertain by
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import same_bits
from bygones.core.values import Leaf
from bygones.training.generators import preserve_global_generators
from bygones.training.lanes.batched_runs import BatchedRuns, refusal
from bygones.training.lanes.stack import NotBatchable
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot

Width = int | Literal["auto"]  # how many seeds take their steps together
# Multiples of what a vector register holds, so that no lane is a remainder; of four, half of a register.
WIDTHS = (16, 8, 4)
_WIDTHS_ON_GPU = (128, 64, 32, *WIDTHS)
TOLERANCE = 1e-5
STEPS = 4
_COMPARED = 3  # runs
_GAIN = 1.15
_FEWEST = 6  # seeds
_TIMED = 6


@dataclass(frozen=True)
class Choice:
    """How the seeds of a study are trained, and why: a sentence, and what was measured for it.

    `seconds_a_step`: of one seed, as chosen; `seconds_alone`: by itself. `difference`: between lanes and
    single runs, of losses or of what is observed, as a share of their norm.
    """

    lanes: int
    why: str
    seconds_a_step: float | None = None
    seconds_alone: float | None = None
    difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_lanes(
    recipe: Recipe,
    seeds: Sequence[int],
    probe: AbstractProbe,
    *,
    workers: int = 1,
    asked: Width = "auto",
    device: str = "cpu",
) -> Choice:
    """The width that is predicted to be fastest for these seeds, or 1; `asked` for one width, only that.

    Trains a few steps. What cannot be lanes is trained one by one, and the sentence says why; what does not
    fit into the device's memory is tried with fewer lanes.
    """
    if asked == 1:
        return Choice(1, "Seeds are trained one by one.")
    if asked == "auto" and len(seeds) < _FEWEST:
        return Choice(1, f"Seeds are trained one by one: {len(seeds)} are too few for lanes.")
    why_not = refusal(Run(recipe, seeds[0]).parts)
    if why_not:
        return Choice(1, f"Seeds are trained one by one: {why_not}.")
    auto = asked == "auto"
    judge = partial(_judged, recipe, seeds, probe, workers, device, auto)
    first, *others = is_worth_trying(len(seeds), workers, device) if auto else (asked,)
    choice = _fitting(judge, first, device)
    for width in others:
        if choice.lanes == 1:
            choice = _fitting(judge, width, device)
    return choice


def is_worth_trying(num_seeds: int, workers: int, device: str) -> tuple[int, ...]:
    """The width that leaves every worker a job; behind the narrowest, which few recipes take, the next."""
    widths = _widths(device)
    fitting = next((w for w in widths if num_seeds >= w * workers), widths[-1])
    return widths[:-3:-1] if fitting == widths[-1] else (fitting,)


def _fitting(judge: Callable[[int], Choice], width: int, device: str) -> Choice:
    """What is judged of this width, or of the first one below it that fits into the device's memory."""
    too_wide = ""
    while width > 1:
        try:
            choice = judge(width)
            return replace(choice, why=too_wide + choice.why)
        except torch.OutOfMemoryError:
            too_wide = too_large(width)
            width = narrower(width, device)
    return Choice(1, f"{too_wide}Seeds are trained one by one.")


def narrower(width: int, device: str) -> int:
    """The next width below one that does not fit into the device's memory."""
    return next((w for w in _widths(device) if w < width), 1)


def too_large(width: int) -> str:
    """What is said of a width that does not fit."""
    return f"{width} seeds in one step did not fit into the device's memory. "


def _widths(device: str) -> tuple[int, ...]:
    return WIDTHS if device == "cpu" else _WIDTHS_ON_GPU


def _judged(
    recipe: Recipe,
    seeds: Sequence[int],
    probe: AbstractProbe,
    workers: int,
    device: str,
    may_decline: bool,
    width: int,
) -> Choice:
    """Lanes of this width, if they agree and (where one `may_decline`) pay; else 1."""
    runs = [Run(recipe, seed, device) for seed in _as_many(seeds, width)]
    with preserve_global_generators():
        alone = _seconds(lambda: runs[0].advance(runs[0].step + _TIMED), runs[:1])
        try:
            together, difference = _try(runs, width, probe)
        except NotBatchable as unlike:
            return Choice(1, f"Seeds are trained one by one: {unlike}.", alone, alone)
    rounds = ceil(ceil(len(seeds) / width) / workers)
    gain = ceil(len(seeds) / workers) * alone / (rounds * width * together)
    if gain < _GAIN and may_decline:
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


def _try(runs: Sequence[Run], width: int, probe: AbstractProbe) -> tuple[float, float]:
    """Seconds of a seed's step in lanes of these runs, and how far they end from single ones.

    The runs are left where they were. Raises `NotBatchable`.
    """
    start = [run.snapshot() for run in runs]

    def ends(order: Sequence[int]) -> tuple[BatchedRuns, dict[int, Snapshot]]:
        lanes = BatchedRuns([runs[place] for place in order], width)
        for run, snapshot in zip(runs, start, strict=True):
            run.restore(snapshot)
        lanes.advance(runs[0].step + STEPS)
        return lanes, {place: runs[place].snapshot() for place in order}

    places = range(len(runs))
    _, here = ends(places)
    shown = [_shown(run, probe) for run in runs[:_COMPARED]]
    lanes, there = ends(places[::-1])
    seconds = _seconds(lambda: lanes.advance(runs[0].step + _TIMED), runs) / len(runs)
    difference = 0.0
    for place, run in enumerate(runs[:_COMPARED]):
        run.restore(start[place])
        run.advance(run.step + STEPS)
        odd = _unlike(here[place], run.snapshot())
        if odd:
            raise NotBatchable(f"after {STEPS} steps {odd} is not what it is in a single run")
        difference = max(difference, _distance(shown[place], _shown(run, probe)))
    for run, snapshot in zip(runs, start, strict=True):
        run.restore(snapshot)
    if not difference <= TOLERANCE:
        raise NotBatchable(
            f"after {STEPS} steps lanes are {difference:.2g} away from single runs; {TOLERANCE:g} is allowed"
        )
    if any(here[place].digest() != there[place].digest() for place in places):
        raise NotBatchable("what a run comes to depends on the lane that it is in")
    return seconds, difference


def _shown(run: Run, probe: AbstractProbe) -> list[np.ndarray]:
    """What a run shows of itself here: the losses of its last steps, and what is observed of it."""
    return [np.asarray(run.losses[-STEPS:]), run.observe(probe, check=False)]


def _distance(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The largest distance between two runs' arrays, as a share of the second's norm."""
    sizes = [float(np.linalg.norm(there)) or 1.0 for there in other]
    moved = [float(np.linalg.norm(here - there)) for here, there in zip(one, other, strict=True)]
    return max(distance / size for distance, size in zip(moved, sizes, strict=True))


def _unlike(one: Snapshot, other: Snapshot) -> str:
    """The first leaf that is missing, of another shape, or no array of floats and not equal."""
    for source, state in one.states.items():
        there = other.states[source]
        for name in sorted(state.keys() | there.keys()):
            if not _alike(state.get(name), there.get(name)):
                return f"{source}/{name}"
    return ""


def _alike(one: Leaf, other: Leaf) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.is_floating_point():
        return one.shape == other.shape and one.dtype == other.dtype
    return same_bits(one, other)


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
