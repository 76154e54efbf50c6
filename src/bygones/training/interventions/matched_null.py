"""Matched null: a random displacement as large as the treatment's, to measure the effect of size alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bygones.core.checks import require_instance
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
                             s = |t - c| / |c| up to 1/2, e random signs, so nothing comes near 0

    E[d] = 0 in both. Where s > 1/2, as many numbers down as up would send half of them close to 0 or below,
    and an update that divides by a second moment of 0 is no random change any more: most shrink and a few
    grow, so that the sum of d is 0 in every draw. Where that cannot be (very few numbers, or one far above
    the others), random signs are used up to s = 1. Beyond that, and for a leaf of zeros, there is no room
    below, and d points upward. The direction is drawn once for a window. Counters stay. A leaf that the
    treatment removes counts as zero.

    `against`: the treatments of the arm whose displacement is read (see `bygones.study.other_runs`); empty
    where the null acts at one boundary. `draw` numbers independent nulls.
    """

    of: AbstractIntervention
    draw: int = 0
    against: tuple[Any, ...] = ()
    requires: ClassVar[Capability] = "arrays"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_instance(self.of, AbstractIntervention, "MatchedNull(of=…)", "Reset()")

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
    # Drawn in every case, so that one leaf's case does not shift the directions of the next.
    direction = unit_direction(before.shape, rng)
    if before.min() < 0 or after.min() < 0 or not math.isfinite(size):
        return size * direction
    length = float(np.linalg.norm(before))
    if length == 0.0:
        return size * np.abs(direction)  # there is nothing below zero
    ratio = size / length
    if ratio <= 0.5:
        return ratio * before * np.sign(direction)
    balanced = _balance(before, ratio, direction)
    if balanced is not None:
        return balanced
    if ratio <= 1.0:
        return ratio * before * np.sign(direction)
    return _lengthen(before, ratio, direction)


def _balance(values: np.ndarray, ratio: float, direction: np.ndarray) -> np.ndarray | None:
    """Draw a displacement of ratio·|values| with sum 0, of nonnegative values: most shrink, a few grow.

    Values shrink to (1 - a)·x in a random part D and grow to (1 + b)·x in the rest U; a·sum_D x = b·sum_U x
    balances them, and a follows from the norm. U begins with a share 1 / (1 + (1 + s)^2) of the values, which
    gives a = s / (1 + s) where they are alike, and is halved until a is at most midway between this and 1.
    None where that cannot be: of few values, or where one is far above the others.
    """
    flat, most = values.reshape(-1), (1 + ratio / (1 + ratio)) / 2
    candidates = _in_order_of_growth(flat, direction)
    num_grown = max(1, round(flat.size / (1 + (1 + ratio) ** 2)))
    for count in (num_grown >> shift for shift in range(num_grown.bit_length())):
        grown = np.zeros(flat.size, dtype=bool)
        grown[candidates[:count]] = True
        up, down = flat[grown], flat[~grown]
        odds = down.sum() / up.sum()
        length = math.hypot(float(np.linalg.norm(down)), odds * float(np.linalg.norm(up)))
        shrink = ratio * float(np.linalg.norm(flat)) / length if length > 0.0 else math.inf
        if shrink <= most:
            return np.where(grown, shrink * odds, -shrink).reshape(values.shape) * values
    return None


def _lengthen(values: np.ndarray, ratio: float, direction: np.ndarray) -> np.ndarray:
    """Draw a displacement of ratio·|values|, ratio > 1: one value grows, and the others shrink to 0."""
    flat = values.reshape(-1)
    one = _in_order_of_growth(flat, direction)[0]
    moved = -flat
    moved[one] = math.sqrt((ratio**2 - 1) * np.sum(flat**2) + flat[one] ** 2)
    return moved.reshape(values.shape)


def _in_order_of_growth(flat: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the places of the values above 0, those first that the direction points most upward in.

    So a value that grows at one boundary of a window, by its sign, grows at the next one too.
    """
    order = np.argsort(-direction, axis=None)
    return order[flat[order] > 0]


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
