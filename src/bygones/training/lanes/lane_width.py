"""Choose how many seeds to batch into one vmapped step: time it, and check it against single runs.

    predicted time of n seeds = ⌈⌈n / W⌉ / workers⌉ · W · (time of a step of one of W lanes)

Lanes are chosen only if three things hold of this recipe, here and now:
    agreement   after STEPS steps the losses, and what the study's probe observes, are within TOLERANCE of the
                single runs' (as a share of their norm), and whatever is no array of floats is equal. Weights
                are not compared one by one: where the loss does not depend on one (a bias before BatchNorm),
                its gradient is rounding alone, which Adam makes as large as any other
    place       a run comes to the same bits in whichever lane it is
    gain        they are predicted to be faster than single runs, by more than timing is uncertain by

The first two are properties of the arithmetic here. The third is a timing, and the timer is an argument.
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

# The seconds that one step of these runs takes: of all of them, where they take it together.
Timer = Callable[[Callable[[], object], Sequence[Run]], float]
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


def measure_seconds(advance: Callable[[], object], runs: Sequence[Run]) -> float:
    """Time a step of `advance`, which takes `_TIMED` of them; the runs are left where they were."""
    kept = [run.snapshot() for run in runs]
    advance()  # what is made on the first steps is made
    began = time.perf_counter()
    advance()
    seconds = (time.perf_counter() - began) / _TIMED
    for run, snapshot in zip(runs, kept, strict=True):
        run.restore(snapshot)
    return seconds


def choose_lanes(
    recipe: Recipe,
    seeds: Sequence[int],
    probe: AbstractProbe,
    *,
    workers: int = 1,
    asked: Width = "auto",
    device: str = "cpu",
    timer: Timer = measure_seconds,
) -> Choice:
    """Return the width that is predicted to be fastest for these seeds, or 1; if `asked` for one, only that.

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
    judge = partial(_judge_width, recipe, seeds, probe, workers, device, timer, auto)
    first, *others = candidate_widths(len(seeds), workers, device) if auto else (asked,)
    choice = _judge_what_fits(judge, first, device)
    for width in others:
        if choice.lanes == 1:
            choice = _judge_what_fits(judge, width, device)
    return choice


def candidate_widths(num_seeds: int, workers: int, device: str) -> tuple[int, ...]:
    """Return the width that leaves every worker a job; after the narrowest, one width more."""
    widths = _widths(device)
    fitting = next((w for w in widths if num_seeds >= w * workers), widths[-1])
    return widths[:-3:-1] if fitting == widths[-1] else (fitting,)


def _judge_what_fits(judge: Callable[[int], Choice], width: int, device: str) -> Choice:
    """Judge this width, or the first one below it that fits into the device's memory."""
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
    """Return the next width below one that does not fit into the device's memory."""
    return next((w for w in _widths(device) if w < width), 1)


def too_large(width: int) -> str:
    """Say that a width does not fit."""
    return f"{width} seeds in one step did not fit into the device's memory. "


def _widths(device: str) -> tuple[int, ...]:
    return WIDTHS if device == "cpu" else _WIDTHS_ON_GPU


def _judge_width(
    recipe: Recipe,
    seeds: Sequence[int],
    probe: AbstractProbe,
    workers: int,
    device: str,
    timer: Timer,
    may_decline: bool,
    width: int,
) -> Choice:
    """Choose lanes of this width, if they agree and (where one `may_decline`) pay; else 1."""
    runs = [Run(recipe, seed, device) for seed in _extend_seeds(seeds, width)]
    with preserve_global_generators():
        alone = timer(lambda: runs[0].advance(runs[0].step + _TIMED), runs[:1])
        try:
            together, difference = _try_width(runs, width, probe, timer)
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


def _extend_seeds(seeds: Sequence[int], width: int) -> list[int]:
    """Return the study's first seeds, and others after them where it has too few: `width` in all."""
    more = range(max(seeds) + 1, max(seeds) + 1 + width)
    return [*seeds, *more][:width]


def _try_width(
    runs: Sequence[Run], width: int, probe: AbstractProbe, timer: Timer
) -> tuple[float, float]:
    """Return the seconds of a seed's step in lanes of these runs, and how far they end from single ones.

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
    observed = [_observe(run, probe) for run in runs[:_COMPARED]]
    lanes, there = ends(places[::-1])
    seconds = timer(lambda: lanes.advance(runs[0].step + _TIMED), runs) / len(runs)
    difference = 0.0
    for place, run in enumerate(runs[:_COMPARED]):
        run.restore(start[place])
        run.advance(run.step + STEPS)
        odd = _first_unequal_leaf(here[place], run.snapshot())
        if odd:
            raise NotBatchable(f"after {STEPS} steps {odd} is not what it is in a single run")
        difference = max(difference, _distance(observed[place], _observe(run, probe)))
    for run, snapshot in zip(runs, start, strict=True):
        run.restore(snapshot)
    if not difference <= TOLERANCE:
        raise NotBatchable(
            f"after {STEPS} steps lanes are {difference:.2g} away from single runs; {TOLERANCE:g} is allowed"
        )
    if any(here[place].digest() != there[place].digest() for place in places):
        raise NotBatchable("what a run comes to depends on the lane that it is in")
    return seconds, difference


def _observe(run: Run, probe: AbstractProbe) -> list[np.ndarray]:
    """Return the losses of a run's last steps, and what the probe observes of it."""
    seen = [run.observe(one, check=False) for one in (probe, *probe.others().values())]
    return [np.asarray(run.losses[-STEPS:]), *seen]


def _distance(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """max_i ‖one_i - other_i‖ / ‖other_i‖ over two runs' arrays."""
    sizes = [float(np.linalg.norm(there)) or 1.0 for there in other]
    moved = [float(np.linalg.norm(here - there)) for here, there in zip(one, other, strict=True)]
    return max(distance / size for distance, size in zip(moved, sizes, strict=True))


def _first_unequal_leaf(one: Snapshot, other: Snapshot) -> str:
    """Name the first leaf that is missing, of another shape, or no array of floats and not equal."""
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
