"""Tangent: is the effect of a treatment what its first-order prediction says, and up to which horizon?

    δ(h) = z_treated(h) − z_control(h)         ż = δ(0), what the treatment moved
    T(h) = J_h … J_1 ż                         the tangent: what it would have moved if steps were linear
    error = ‖δ − T‖ / ‖δ‖,   cosine = ⟨δ, T⟩ / ‖δ‖‖T‖

J_t: the derivative of training step t. T is found by twins, two more runs that start at z ± ε·ż: T =
(z₊ − z₋)/2ε. All four runs start from one snapshot of the run itself and go on in float64. Both numbers are
taken of the weights, and of the outputs on the probe set. Error 0 is a linear memory; an error near 1 says
that the first-order prediction is worthless. Where the twins' own second difference is not small beside
T, there is no tangent to speak of, and the error is not counted (`settled`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError
from bygones.core.text import format_count, join_names
from bygones.dynamics.linear.float64 import run_in_float64, snapshot_in_float64
from bygones.dynamics.linear.vectors import (
    Vector,
    difference,
    is_float,
    moved,
    norm,
    replaced,
    vector_of,
)
from bygones.study.design import Arm, Study, check_design
from bygones.training.contract import Contract
from bygones.training.probes.base import model_of
from bygones.training.run import Run, Snapshot

MOST_ERROR, LEAST_COSINE = 0.25, 0.95  # within which a horizon counts as linear
# Sizes of the twins' kicks, of the norm of what is treated. The second is for runs in which a kink of the
# loss (ReLU) lies between the first two: it is met less often, and its tangent is good to fewer digits.
_KICKS = (1e-6, 1e-9)
_MOST_KICK = 1e-3  # of the treatment
SETTLED = 1e-2

Outputs = dict[str, np.ndarray]  # by space


@dataclass(frozen=True)
class Tangent:
    """How well the first-order prediction of one arm holds, at each horizon; `str` says it in sentences.

    `error`, `cosine`: by space ("weights", "outputs"), an interval over seeds for each horizon. `settled`:
    by space, the largest relative second difference of the twins over seeds [H].
    """

    arm: str
    at: int
    horizons: tuple[int, ...]
    error: Mapping[str, tuple[Estimate, ...]]
    cosine: Mapping[str, tuple[Estimate, ...]]
    settled: Mapping[str, tuple[float, ...]]

    def validated(self, space: str = "weights") -> int | None:
        """Return the largest horizon up to which the treatment acts linearly; None if there is none.

        At it and at all observed horizons before it (but those without an effect), the whole interval of
        the error lies within .25, that of the cosine within .95 to 1, and the twins are settled.
        """
        found = None
        rows = zip(
            self.horizons, self.error[space], self.cosine[space], self.settled[space], strict=True
        )
        for horizon, error, cosine, unsettled in rows:
            if not error.num_pairs:  # no effect in this space yet
                continue
            within = error.high <= MOST_ERROR and cosine.low >= LEAST_COSINE
            if not within or not unsettled <= SETTLED:
                break
            found = horizon
        return found

    def __str__(self) -> str:
        return "\n".join(self._sentence(space) for space in self.error)

    def _sentence(self, space: str) -> str:
        last = len(self.horizons) - 1
        error, cosine = self.error[space][last], self.cosine[space][last]
        reach = self.validated(space)
        bounds = f"error at most {MOST_ERROR:g}, cosine at least {LEAST_COSINE:g}, whole intervals"
        said = (
            f"linear up to horizon {reach} of those observed"
            if reach is not None
            else "linear at none of the horizons observed"
        )
        return (
            f"First-order prediction of '{self.arm}' at step {self.at}, {space}: {said} ({bounds}). At "
            f"horizon {self.horizons[last]}: error {error}, cosine {cosine}; "
            f"{format_count(error.num_pairs, 'seed')}, {error.method}."
        )


def tangent(
    study: Study, arm: str | None = None, *, seeds: Iterable[int] | None = None, device: str = "cpu"
) -> Tangent:
    """Measure how well the first-order prediction of an arm holds, at the study's horizons.

    `arm`: the first one unless named; its treatments act at one boundary and move arrays of floats alone.
    `seeds`: the study's. Nothing is stored. Cost: one run to the treatment and four in float64 from there,
    each seed. Raises `DesignError` for an arm that has no tangent.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> from bygones.training.interventions import Reset
    >>> from bygones.training.treatment import Treatment
    >>> from bygones.core.values import Window
    >>> reset = Arm("reset", Treatment("moments", Reset(), Window(3, 4)))
    >>> study = Study(heavy_ball.recipe, [reset], fork_at=3, horizons=(1, 20), seeds=range(2))
    >>> tangent(study).validated()
    20
    """
    chosen = choose_arm(study, arm)
    at = boundary_of(chosen)
    horizons = tuple(step - at for step in study.steps if step >= at)
    rows: list[list[dict[str, tuple[float, float, float]]]] = []
    with Contract.here(device=device).in_force():
        for seed in study.seeds if seeds is None else seeds:
            rows.append(_one_seed(study, chosen, at, horizons, seed, device))
    spaces = list(rows[0][0])
    found = {space: np.array([[step[space] for step in row] for row in rows]) for space in spaces}

    def over_seeds(of: int) -> dict[str, tuple[Estimate, ...]]:
        return {
            space: tuple(by_skewness(values[:, place, of]) for place in range(len(horizons)))
            for space, values in found.items()
        }

    unsettled = {
        space: tuple(
            float(np.nanmax(np.append(values[:, i, 2], 0.0))) for i in range(len(horizons))
        )
        for space, values in found.items()
    }
    return Tangent(chosen.name, at, horizons, over_seeds(0), over_seeds(1), unsettled)


def choose_arm(study: Study, name: str | None) -> Arm:
    """Return an arm of a study by its name; the first one for None."""
    names = [arm.name for arm in study.arms]
    if name is None:
        return study.arms[0]
    if name not in names:
        raise unknown_name("arm", name, names)
    return study.arms[names.index(name)]


def boundary_of(arm: Arm) -> int:
    """Return the one boundary at which an arm acts; raise `DesignError` if there are several."""
    boundaries = {step for treatment in arm.treatments for step in treatment.boundaries}
    donors = [treatment for treatment in arm.treatments if treatment.needs_donor]
    if len(boundaries) > 1 or donors:
        why = f"it needs another seed's run ({donors[0]})" if donors else "it acts at several steps"
        raise DesignError(
            f"the arm '{arm.name}' has no tangent here: {why}. A tangent is that of one displacement at one "
            f"step; choose an arm whose window is one step long."
        )
    return boundaries.pop()


def displaced(run: Run, arm: Arm, start: Snapshot) -> tuple[Snapshot, Vector]:
    """Apply an arm to a run at a boundary; return its state, and what the arm moved in arrays of floats.

    Raises `DesignError` for an arm that changes anything else (a count, an order), or nothing.
    """
    run.register_policies(arm.treatments)
    run.restore(start)
    before = run.snapshot()
    run.intervene(arm.treatments)
    after = run.snapshot()
    counts = [
        f"{source}/{name}"
        for source, state in before.states.items()
        for name, leaf in state.items()
        if not is_float(name, leaf) and not _equal(leaf, after.states[source].get(name))
    ]
    try:
        moves = difference(after.states, before.states)
    except ValueError as leaf:
        counts.append(str(leaf))
        moves = {}
    if counts:
        raise DesignError(
            f"the arm '{arm.name}' has no tangent: besides arrays of floats it changes "
            f"{join_names(counts, limit=3)}. Select leaves, for example "
            f"'*/exp_avg*' of Adam's moments, or '*/running*' of BatchNorm."
        )
    if norm(moves) == 0.0:
        raise DesignError(
            f"the arm '{arm.name}' moves nothing at step {start.step}, seed {run.seed}."
        )
    return after, moves


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    return one == other


def _one_seed(
    study: Study, arm: Arm, at: int, horizons: Sequence[int], seed: int, device: str
) -> list[dict[str, tuple[float, float, float]]]:
    """Return error, cosine and second difference by space, for each horizon of one seed."""
    run = Run(study.recipe, seed, device)
    run.advance(at)
    check_design(study, run)
    exact = run_in_float64(study.recipe, seed, device)
    start = snapshot_in_float64(run.snapshot())
    treated, moves = displaced(exact, arm, start)
    of = getattr(study.probe, "of", "model")
    control, effect = (follow(exact, one, at, horizons, of) for one in (start, treated))
    found: list[dict[str, tuple[float, float, float]]] = []
    for kick in _KICKS:
        size = min(_MOST_KICK, kick * size_of_treated(start, moves) / norm(moves))
        twins = [kicked(start, moves, sign * size) for sign in (1.0, -1.0)]
        above, below = (follow(exact, one, at, horizons, of) for one in twins)
        rows = [
            {
                space: compare([one[i][space] for one in (control, effect, above, below)], size)
                for space in control[i]
            }
            for i in range(len(horizons))
        ]
        found = [_more_settled(*pair) for pair in zip(found or rows, rows, strict=True)]
        if all(not space[2] > SETTLED / 10 for row in found for space in row.values()):
            break
    return found


def kicked(start: Snapshot, moves: Vector, size: float) -> Snapshot:
    """Return a state moved by `size` times a vector."""
    return replaced(start, moved(vector_of(start.states), moves, size))


def _more_settled(
    one: dict[str, tuple[float, float, float]], other: dict[str, tuple[float, float, float]]
) -> dict[str, tuple[float, float, float]]:
    """Choose, by space, the twins whose second difference is smaller."""
    return {space: other[space] if other[space][2] < one[space][2] else one[space] for space in one}


def size_of_treated(start: Snapshot, moves: Vector) -> float:
    """Return the norm of the leaves that are moved; where these are zeros, the norm of the move."""
    states = vector_of(start.states)
    held = {
        source: {name: states[source][name] for name in leaves if name in states.get(source, {})}
        for source, leaves in moves.items()
    }
    return norm(held) or norm(moves)


def follow(run: Run, start: Snapshot, at: int, horizons: Sequence[int], of: str) -> list[Outputs]:
    """Train from a state; return the weights and the outputs on the probe set at each horizon."""
    run.restore(replace(start, entries={}))
    found: list[Outputs] = []
    for horizon in horizons:
        run.advance(at + horizon)
        found.append(_spaces(run, of))
    return found


def _spaces(run: Run, of: str) -> Outputs:
    """Return the weights, and the outputs on the probe set where there is one, as vectors of float64."""
    weights = vector_of({"weights": run.sources["weights"].capture()})["weights"]
    found = {"weights": torch.cat([leaf.double().flatten() for leaf in weights.values()])}
    if run.parts.probe_set is not None:
        module = model_of(run.parts, of)
        flags = [(one, one.training) for one in module.modules()]
        module.eval()
        with torch.no_grad():
            found["outputs"] = module(run.parts.probe_set[0]).double().flatten()
        for one, training in flags:
            one.training = training
    return {space: vector.cpu().numpy() for space, vector in found.items()}


def compare(vectors: Sequence[np.ndarray], size: float) -> tuple[float, float, float]:
    """Return error, cosine and second difference of control, treated and the two twins of one space."""
    control, treated, above, below = vectors
    effect, first = treated - control, (above - below) / (2.0 * size)
    second = (above - 2.0 * control + below) / (2.0 * size)
    length, predicted = float(np.linalg.norm(effect)), float(np.linalg.norm(first))
    if not length > 0.0 or not math.isfinite(length):
        return math.nan, math.nan, math.nan
    cosine = float(effect @ first) / (length * predicted) if predicted else 0.0
    unsettled = float(np.linalg.norm(second)) / predicted if predicted else math.inf
    return float(np.linalg.norm(effect - first)) / length, cosine, unsettled
