"""Tangent check: prove the derivative of a run's training steps against finite differences.

    ⟨λ_t, u⟩  =  (Y(z_t + εu) − Y(z_t − εu)) / 2ε          in float64, for a random u in each source

λ_t: the gradient by a reverse sweep over a few steps. Y: a random linear function of everything that the
run holds after them, so that no path can be left out unseen; then the outcome itself, if one is given. A
derivative that is dropped on the way (a fused update, a number taken out of a tensor) makes the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bygones.core.errors import RecipeError, TangentError
from bygones.core.keyed_rng import generator
from bygones.core.text import format_count, join_names
from bygones.dynamics.linear.float64 import run_in_float64, snapshot_in_float64
from bygones.dynamics.linear.reverse import (
    Gradient,
    Outcome,
    evaluate,
    gradient_of,
    pull_back,
)
from bygones.dynamics.linear.rules import RULES, Operation, Rule
from bygones.dynamics.linear.vectors import (
    Vector,
    dot,
    each,
    moved,
    norm,
    replaced,
    transform,
    vector_of,
)
from bygones.training.recipe import Recipe, RecipeFunction
from bygones.training.run import Run, Snapshot

TOLERANCE = 1e-5
_SIZES = (
    1e-5,
    1e-6,
    1e-7,
)  # ε: a kink (ReLU) that lies between the two runs of one lies beyond the next
_ROUNDING = 1e-15  # of the terms that Y is a sum of

Measure = Callable[[Run], float]


@dataclass(frozen=True)
class TangentCertificate:
    """The result of a passed tangent check.

    `at`: the boundary. `steps`: how many were differentiated. `errors`: by source, the relative difference of
    derivative and finite difference. `left_out`: sources that hold no arrays of floats.
    """

    at: int
    steps: int
    errors: Mapping[str, float]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        worst = max(self.errors.values(), default=0.0)
        return (
            f"derivatives over {format_count(self.steps, 'step')} from step {self.at} equal finite "
            f"differences to {worst:.0e} in {join_names(self.errors)}; no arrays of floats in "
            f"{join_names(self.left_out)}"
        )


def check_tangent(
    recipe: Recipe | RecipeFunction | str,
    at: int,
    steps: int = 2,
    seed: int = 0,
    outcome: Outcome | None = None,
    rules: Mapping[Operation, Rule] = RULES,
) -> TangentCertificate:
    """Differentiate a run's steps from the boundary `at`, and require what finite differences give.

    Raises `TangentError`, which names the sources and leaves whose derivative differs, and what was dropped
    on the way; `RecipeError` where the recipe cannot be run in float64. Cost: about eight steps a source
    and step.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> print(check_tangent(heavy_ball.recipe, at=3).left_out)
    ('scheduler', 'gradients', 'order', 'streams')
    """
    recipe = Recipe.of(recipe)
    run = Run(recipe, seed)
    run.advance(at)
    start = snapshot_in_float64(run.snapshot())
    exact = run_in_float64(recipe, seed)
    end = _train(exact, start, steps)
    functional = _random_functional(end, seed)
    scale = sum(float((w * x).abs().sum()) for w, x in _paired(functional, end))
    check = _Check(recipe, exact, start, steps, seed)
    gradient = Gradient(at + steps, functional)
    errors = check(gradient, rules, lambda run: dot(functional, _state(run)), scale)
    if outcome is not None:
        value, gradient = gradient_of(exact, end, outcome, rules)
        more = check(gradient, rules, lambda run: float(evaluate(run, outcome)), abs(value))
        errors = {source: max(error, more[source]) for source, error in errors.items()}
    return TangentCertificate(
        at, steps, errors, tuple(name for name in run.sources if name not in errors)
    )


def _train(exact: Run, start: Snapshot, steps: int) -> Snapshot:
    try:
        exact.restore(start)
        exact.advance(start.step + steps)
    except RecipeError as error:
        raise RecipeError(
            f"a tangent is taken in float64, and there {error} What the recipe makes of its own (constants, "
            f"casts) has to follow the type of its parameters."
        ) from error
    return exact.snapshot()


@dataclass(frozen=True)
class _Check:
    """One run and boundary at which gradients are compared with finite differences."""

    recipe: Recipe
    run: Run
    start: Snapshot
    steps: int
    seed: int

    def __call__(
        self, gradient: Gradient, rules: Mapping[Operation, Rule], measure: Measure, scale: float
    ) -> dict[str, float]:
        """Return the relative difference by source; raise `TangentError` where it is too large."""
        dropped = list(gradient.dropped)
        before = _boundaries(self.run, self.start, self.steps)
        for snapshot in reversed(before):
            gradient = pull_back(self.run, snapshot, gradient.vector, rules)
            dropped += [what for what in gradient.dropped if what not in dropped]
        errors: dict[str, float] = {}
        wrong: list[
            tuple[float, str]
        ] = []  # the worst leaf of each source, and what is wrong with it
        for source, leaves in vector_of(self.start.states).items():
            along = _random_direction({source: leaves}, self.seed)
            errors[source], said = self._compare(gradient, along, measure, scale)
            if errors[source] <= TOLERANCE:
                continue
            found = [(errors[source], f"{source} ({said})")]
            for name in leaves:
                alone = {source: {name: along[source][name]}}
                error, of_leaf = self._compare(gradient, alone, measure, scale)
                if error > TOLERANCE:
                    found.append((error, f"{source}/{name} ({of_leaf})"))
            wrong.append(max(found[1:] or found))
        if wrong:
            named = [said for _, said in sorted(wrong, reverse=True)]
            raise TangentError(
                f"the derivative of {self.recipe} over {format_count(self.steps, 'step')} from step "
                f"{self.start.step} is not what a finite difference gives in {join_names(named)}. "
                f"{_suspects(dropped)}"
            )
        return errors

    def _compare(
        self, gradient: Gradient, along: Vector, measure: Measure, scale: float
    ) -> tuple[float, str]:
        """Return the relative difference along a direction, at the size where it is least, and in words."""
        exact = dot(gradient.vector, along)
        best = (np.inf, "")
        for size in _SIZES:
            ends = [self._measure(along, sign * size, measure) for sign in (1.0, -1.0)]
            finite = (ends[0] - ends[1]) / (2.0 * size)
            resolved = _ROUNDING * scale / size / TOLERANCE  # less cannot be told from rounding
            error = abs(finite - exact) / max(abs(finite), abs(exact), resolved, 1e-300)
            best = min(best, (error, f"{exact:.6g}, finite difference {finite:.6g}"))
            if best[0] <= TOLERANCE:
                break
        return best

    def _measure(self, along: Vector, size: float, measure: Measure) -> float:
        self.run.restore(replaced(self.start, moved(vector_of(self.start.states), along, size)))
        self.run.advance(self.start.step + self.steps)
        return measure(self.run)


def _boundaries(run: Run, start: Snapshot, steps: int) -> list[Snapshot]:
    run.restore(start)
    found: list[Snapshot] = []
    for _ in range(steps):
        found.append(run.snapshot())
        run.advance(run.step + 1)
    return found


def _state(run: Run) -> Vector:
    return vector_of({name: source.capture() for name, source in run.sources.items()})


def _paired(weights: Vector, snapshot: Snapshot) -> list[tuple[Tensor, Tensor]]:
    here = vector_of(snapshot.states)
    return [(weight, here[source][name]) for source, name, weight in each(weights)]


def _random_functional(end: Snapshot, seed: int) -> Vector:
    """Draw normal weights for every leaf, over its norm, so that large leaves do not hide small ones.

    A leaf that is rounding error alone (the momentum of a bias before BatchNorm) is not blown up.
    """
    leaves = vector_of(end.states)

    def draw(source: str, name: str, leaf: Tensor) -> Tensor:
        drawn = generator(seed, "functional", source, name).standard_normal(tuple(leaf.shape))
        least = 1e-2 * norm({source: leaves[source]}) + 1e-9
        return torch.as_tensor(drawn, device=leaf.device) / (leaf.norm() + least)

    return transform(leaves, draw)


def _random_direction(leaves: Vector, seed: int) -> Vector:
    """Draw a direction with the norm of each leaf; where no number is negative, a share of each number."""

    def draw(source: str, name: str, leaf: Tensor) -> Tensor:
        rng = generator(seed, "direction", source, name)
        signs = torch.as_tensor(rng.standard_normal(tuple(leaf.shape)), device=leaf.device)
        if bool((leaf >= 0).all()):
            return leaf * signs.sign()
        return signs * leaf.norm() / leaf.numel() ** 0.5

    return transform(leaves, draw)


def _suspects(dropped: list[str]) -> str:
    if not dropped:
        return (
            "No operation of torch dropped it on the way, so the step leaves torch (numpy, another library), "
            "or its derivative is defined wrongly."
        )
    fused = any("_fused_" in what for what in dropped)
    advice = "Build the optimizer without fused=True. " if fused else ""
    return (
        f"On the way: {'; '.join(dropped)}. {advice}No tangent or adjoint of this run can be used."
    )
