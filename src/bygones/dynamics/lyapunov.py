"""Finite-time Lyapunov exponent: the rate at which a run forgets small differences, or blows them up.

    λ(h) = (1/h) log (‖δ(h)‖ / ‖δ(0)‖)            δ(0) → 0; λ > 0: chaotic, λ < 0: contracting
    ‖δ‖² = Σ_weights δ² + Σ_moments (lr·δ)²       memory counts as far as it moves the weights in a step

Two ways. Twins: a second run starts a tiny random difference away, and is brought back to that distance every
few steps. Tangent products: k directions are pushed through the derivative of every step, and made orthogonal
again by QR; λ_i = (1/h) Σ log R_ii gives k exponents, the largest first where h is long.
Benettin et al. 1980 (doi:10.1007/BF02128236, doi:10.1007/BF02128237).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.errors import DesignError, RecipeError, TangentError
from bygones.core.keyed_rng import generator
from bygones.core.text import format_count
from bygones.dynamics.linear.float64 import run_in_float64, snapshot_in_float64
from bygones.dynamics.linear.reverse import push_forward
from bygones.dynamics.linear.vectors import (
    Vector,
    difference,
    each,
    moved,
    replaced,
    transform,
    vector_of,
)
from bygones.study.design import Study
from bygones.training.contract import Contract
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot

# Distance of the twins, of the norm of the state, by precision: far above rounding, far below curvature.
_SIZES = {"float64": 1e-7, "float32": 1e-3}
_NORMED = ("weights", "moments")
Way = Literal["twins", "tangents"]


@dataclass(frozen=True)
class Lyapunov:
    """Finite-time exponents over seeds; `str` is the sentence.

    `exponents`: by horizon, a tuple of the k largest, an interval over seeds each. `by_seed` [R, H, k].
    """

    study: str
    at: int
    horizons: tuple[int, ...]
    exponents: tuple[tuple[Estimate, ...], ...]
    by_seed: np.ndarray
    way: str

    def __str__(self) -> str:
        horizon, largest = self.horizons[-1], self.exponents[-1][0]
        others = [str(one) for one in self.exponents[-1][1:]]
        further = f" The next: {'; '.join(others)}." if others else ""
        return (
            f"{self.study}: largest finite-time Lyapunov exponent from step {self.at} over {horizon} steps: "
            f"{largest} a step, so λ·h = {largest.scaled(horizon)}; "
            f"{format_count(largest.num_pairs, 'seed')}, {largest.method}.{further} By {self.way}; "
            f"norm of the weights, and of the moments times the learning rate."
        )


def lyapunov(
    study: Study,
    *,
    by: Way = "twins",
    num: int = 1,
    every: int = 10,
    settle: int = 0,
    seeds: Iterable[int] | None = None,
    device: str = "cpu",
) -> Lyapunov:
    """Estimate the exponents of a study's control from its fork to each of its horizons above 0.

    `by`: "twins", one more run, in float64 where the recipe allows it; or "tangents", derivatives, for the
    `num` largest exponents. `every`: steps between two renormalisations of the twin. `settle`: steps after
    the fork that are not counted, in which the differences turn to the fastest direction. A run that
    diverges has none. Nothing is stored.

    >>> from bygones.core.values import Window
    >>> from bygones.study.design import Arm
    >>> from bygones.training.interventions import Reset
    >>> from bygones.training.treatment import Treatment
    >>> from bygones.zoo.worlds import heavy_ball
    >>> recipe = Recipe.of(heavy_ball.recipe, momentum=0.0, lr=0.5)
    >>> reset = Arm("reset", Treatment("weights", Reset(), Window(3, 4)))
    >>> study = Study(recipe, [reset], fork_at=3, horizons=(20,), seeds=range(2))
    >>> found = lyapunov(study, settle=100)                              # largest: ln(1 - 0.5 · 0.1)
    >>> bool(abs(found.exponents[0][0].value - np.log(0.95)) < 1e-4)
    True
    """
    horizons = tuple(horizon for horizon in study.horizons if horizon > 0)
    if not horizons or settle < 0 or every < 1 or num < 1 or (by == "twins" and num > 1):
        raise DesignError(
            f"an exponent needs a horizon above 0, settle of 0 or more, every and num of 1 or more, and "
            f"by='tangents' for more than one; got horizons {list(study.horizons)}, settle {settle}, every "
            f"{every}, num {num}, by '{by}'."
        )
    start = max(1, study.fork_at)
    rows: list[np.ndarray] = []
    precision = "float64"
    with Contract.here(device=device).in_force():
        for seed in study.seeds if seeds is None else seeds:
            pair = Twins.at(study.recipe, seed, start, device)
            precision = pair.precision
            if by == "twins":
                growth = pair.log_growth(horizons, every, settle)[:, None]
            else:
                growth = tangent_growth(pair.control, pair.start, horizons, num, settle)
            rows.append(growth / np.array(horizons)[:, None])
    found = np.stack(rows)
    exponents = tuple(
        tuple(by_skewness(found[:, place, i]) for i in range(found.shape[2]))
        for place in range(len(horizons))
    )
    how = "renormalised twins" if by == "twins" else "tangent products"
    return Lyapunov(study.name, start + settle, horizons, exponents, found, f"{how} in {precision}")


@dataclass(frozen=True)
class Twins:
    """Two runs of one recipe and seed, and the boundary from which both start."""

    control: Run
    twin: Run
    start: Snapshot
    precision: str

    @classmethod
    def at(cls, recipe: Recipe, seed: int, step: int, device: str = "cpu") -> Twins:
        """Train a run to a step; then go on in float64, or in the run's own precision if that raises."""
        run = Run(recipe, seed, device)
        run.advance(step)
        own = run.snapshot()
        control, start = run_in_float64(recipe, seed, device), snapshot_in_float64(own)
        try:
            control.restore(start)
            control.advance(step + 1)
        except RecipeError:
            return cls(run, Run(recipe, seed, device), own, "float32")
        return cls(control, run_in_float64(recipe, seed, device), start, "float64")

    def log_growth(self, horizons: Sequence[int], every: int = 10, settle: int = 0) -> np.ndarray:
        """Return log(‖δ(h)‖/‖δ(0)‖) at each horizon, counted from `settle` steps after the start."""
        control, twin, first = self.control, self.twin, self.start.step + settle
        scales = norm_scales(control, self.start)
        size = _SIZES[self.precision] * scaled_norm(vector_of(self.start.states), scales)
        direction = random_direction(self.start, control.seed)
        control.restore(self.start)
        marks = sorted(
            {first, *(first + horizon for horizon in horizons)}
            | set(range(self.start.step, first + max(horizons), every))
        )
        total, found = 0.0, dict[int, float]()
        here = self.start
        for mark in marks:
            if mark > here.step:
                self.twin.restore(_apart(here, direction, size, scales))
                control.advance(mark)
                twin.advance(mark)
                here = control.snapshot()
                direction = difference(twin.snapshot().states, here.states)
                length = scaled_norm(direction, scales)
                diverged = control.diverged_at is not None or twin.diverged_at is not None
                total += math.nan if diverged else _log(length / size)
            total = 0.0 if mark == first else total
            found[mark] = total
        return np.array([found[first + horizon] for horizon in horizons])


def tangent_growth(
    run: Run, start: Snapshot, horizons: Sequence[int], num: int = 1, settle: int = 0
) -> np.ndarray:
    """Return Σ log R_ii of `num` directions at each horizon, [H, num], by QR after every step.

    Raises `TangentError` where the step has no derivative.
    """
    first, scales = start.step + settle, norm_scales(run, start)
    vectors: list[Vector] = [random_direction(start, run.seed, i) for i in range(num)]
    vectors, _ = _orthogonal(vectors, scales)
    total = np.zeros(num)
    found: dict[int, np.ndarray] = {}
    here = start
    while here.step < first + max(horizons):
        pushed = [push_forward(run, here, vector) for vector in vectors]
        dropped = [what for one in pushed for what in one.dropped]
        if dropped:
            raise TangentError(
                f"the training step of {run.recipe} has no derivative at step {here.step}: {dropped[0]}. "
                f"Use by='twins', which needs none."
            )
        run.restore(here)
        run.advance(here.step + 1)
        here = run.snapshot()
        vectors, logs = _orthogonal([one.vector for one in pushed], scales)
        total = total + logs if here.step > first else np.zeros(num)
        found[here.step] = total
    return np.stack([found[first + horizon] for horizon in horizons])


def norm_scales(run: Run, start: Snapshot) -> dict[tuple[str, str], float]:
    """Return by leaf the factor of the norm: 1 for weights, the learning rate for moments, 0 elsewhere."""
    by_id = {id(p): name for name, p in run.parts.model.named_parameters()}
    rates = {
        by_id.get(id(parameter), ""): float(group["lr"])
        for optimizer in run.parts.optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    default = next(iter(rates.values()))

    def scale(source: str, name: str) -> float:
        if source != "moments":
            return 1.0 if source in _NORMED else 0.0
        return rates.get(name.rpartition("/")[0], default)

    return {
        (source, name): scale(source, name) for source, name, _ in each(vector_of(start.states))
    }


def scaled_norm(vector: Vector, scales: Mapping[tuple[str, str], float]) -> float:
    """Return the norm of a vector on the state, by the factors of `norm_scales`."""
    return math.sqrt(
        math.fsum(
            scales.get((source, name), 0.0) ** 2 * float(leaf.double().square().sum())
            for source, name, leaf in each(vector)
        )
    )


def random_direction(start: Snapshot, seed: int, number: int = 0) -> Vector:
    """Draw a direction with the norm of each leaf; where no number is negative, a share of each number."""

    def draw(source: str, name: str, leaf: Tensor) -> Tensor:
        rng = generator(seed, "lyapunov", source, name, number)
        drawn = torch.as_tensor(rng.standard_normal(tuple(leaf.shape)), device=leaf.device)
        if bool((leaf >= 0).all()):
            return leaf.double() * drawn.sign()
        return drawn * leaf.double().norm() / leaf.numel() ** 0.5

    return transform(vector_of(start.states), draw)


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio != 0 else -math.inf


def _apart(
    here: Snapshot, direction: Vector, size: float, scales: Mapping[tuple[str, str], float]
) -> Snapshot:
    """Return a state at a distance from here; numbers of leaves without negative ones stay so."""
    length = scaled_norm(direction, scales)
    if not length > 0:
        return here
    there = moved(vector_of(here.states), direction, size / length)
    before = vector_of(here.states)

    def hold(source: str, name: str, leaf: Tensor) -> Tensor:
        known = before.get(source, {}).get(name)
        nonnegative = known is not None and bool((known >= 0).all())
        return leaf.clamp(min=0) if nonnegative else leaf

    return replaced(here, transform(there, hold))


def _orthogonal(
    vectors: Sequence[Vector], scales: Mapping[tuple[str, str], float]
) -> tuple[list[Vector], np.ndarray]:
    """Make vectors orthonormal in the scaled norm; return them, and the logs of the diagonal of R."""
    keys = [(source, name) for source, name, _ in each(vectors[0])]
    flat = np.stack(
        [
            np.concatenate([v[s][n].double().cpu().numpy().ravel() for s, n in keys])
            for v in vectors
        ],
        axis=1,
    )
    factors = np.concatenate(
        [np.full(vectors[0][s][n].numel(), scales.get((s, n), 0.0)) for s, n in keys]
    )
    if len(vectors) > np.count_nonzero(factors):
        raise DesignError(
            f"{len(vectors)} exponents are more than the {np.count_nonzero(factors)} numbers that the "
            f"weights and moments have; ask for fewer."
        )
    _, upper = np.linalg.qr(factors[:, None] * flat)
    diagonal = np.abs(np.diag(upper))
    if not (diagonal > 0).all():
        raise DesignError(
            f"{len(vectors)} exponents are more than there are: a direction is forgotten exactly in one "
            f"step. Ask for fewer."
        )
    made = np.linalg.solve(upper.T, flat.T)  # rows: the columns of flat · R⁻¹
    return [_unflat(row, vectors[0]) for row in made], np.log(diagonal)


def _unflat(row: np.ndarray, like: Vector) -> Vector:
    place = 0

    def take(source: str, name: str, leaf: Tensor) -> Tensor:
        nonlocal place
        piece = torch.as_tensor(row[place : place + leaf.numel()], device=leaf.device)
        place += leaf.numel()
        return piece.reshape(leaf.shape)

    return transform(like, take)
