"""Matched null: a random displacement as large as the treatment's, to measure the effect of size alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import add, is_continuous, to_float64, unit_direction


@dataclass(frozen=True)
class MatchedNull(AbstractIntervention):
    """x <- c + d for each leaf, with |d| = |t - c| and a random direction.

    c: the leaf in the control's run at this boundary; t: in the treated arm's, after its treatment. So the
    null is displaced as far from the control as the treated arm is, at every boundary of the window, however
    long that is. Where the treatment acts at one boundary alone, c is the null's own value and t = of(c).

        d = |t - c|·u        u uniform on the leaf's unit sphere
        d = s·c·e            of a leaf that is nonnegative in both (a variance, a second moment):
                             s = |t - c| / |c| up to 1, e random signs, so nothing becomes negative

    E[d] = 0 in both. Where s > 1, no displacement of this size is as likely down as up: a random
    part of the numbers shrinks to c / (1 + s), and the others grow until the norm is met; then E[d] is 0 up
    to the share that the largest number has of |c|. The direction is drawn once for a window. Counters
    stay. A leaf that the treatment removes counts as zero.

    `against`: the treatments of the arm whose displacement is read (see `bygones.study.references`); empty
    where the null acts at one boundary. `draw` numbers independent nulls.
    """

    of: AbstractIntervention
    draw: int = 0
    against: tuple[Any, ...] = ()
    requires: ClassVar[Capability] = "arrays"

    def __str__(self) -> str:
        return f"{self.verb}({self.of}, {self.draw})"

    def __call__(self, state: State, at: Boundary) -> State:
        control = state if at.control is None else at.control
        treated = self.of(state, at) if at.treated is None else at.treated
        kicked = dict(state)
        for name in sorted(state.keys() & control.keys()):
            if is_continuous(state[name]):
                before = to_float64(control[name])
                after = to_float64(treated[name]) if name in treated else np.zeros_like(before)
                draws = [_displace(before, after, at.rng) for _ in range(self.draw + 1)]
                kicked[name] = add(control[name], draws[-1])
        return kicked


def _displace(before: np.ndarray, after: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a displacement as long as after - before; of a nonnegative leaf, one that keeps it so."""
    size = float(np.linalg.norm(after - before))
    direction = unit_direction(
        before.shape, rng
    )  # always drawn, so that leaves do not shift each other
    if before.min() < 0 or after.min() < 0 or not math.isfinite(size):
        return size * direction
    length = float(np.linalg.norm(before))
    if length == 0.0:
        return size * np.abs(direction)  # there is nothing below zero
    if size <= length:
        return size / length * before * np.sign(direction)
    return _lengthen(before, size / length, direction)


def _lengthen(values: np.ndarray, ratio: float, direction: np.ndarray) -> np.ndarray:
    """Draw a displacement of ratio·|values|, ratio > 1: most values shrink, a few grow.

    Factors a = 1 / (1 + s) with probability p = (1 + s)^2 / (1 + (1 + s)^2), else b, of mean 1 and
    variance s^2 if b = 1 + s + s^2; b is then solved for, so that the norm is met in every draw.
    """
    weight = values**2 / np.sum(values**2)
    share_down = (1 + ratio) ** 2 / (1 + (1 + ratio) ** 2)
    # Ranks of Gaussian numbers are uniform: the smallest of them shrink.
    ranks = np.argsort(np.argsort(direction, axis=None)).reshape(values.shape)
    down = ranks < share_down * values.size
    while weight[~down].sum() <= 0.0:  # what grows must not be all zeros
        down = down & (ranks < ranks[down & (weight > 0)].max())
    shrunk = ratio / (1 + ratio)
    grown = math.sqrt((ratio**2 - weight[down].sum() * shrunk**2) / weight[~down].sum())
    return values * np.where(down, -shrunk, grown)


@dataclass(frozen=True)
class Displacement:
    """Distance of a null, and of the arm that it matches, from the control in one source."""

    step: int
    source: str
    treated: float
    null: float

    @classmethod
    def measure(cls, at: Boundary, control: State, treated: State, null: State) -> Displacement:
        """Measure the two distances, over the leaves that a null displaces."""
        return cls(at.step, at.source, _distance(treated, control), _distance(null, control))


def _distance(state: State, control: State) -> float:
    """Return |state - control| over all continuous leaves; a leaf that is missing counts as zero."""
    total = 0.0
    for name, leaf in control.items():
        if is_continuous(leaf):
            before = to_float64(leaf)
            after = to_float64(state[name]) if name in state else np.zeros_like(before)
            total += float(np.sum((after - before) ** 2))
    return math.sqrt(total)
