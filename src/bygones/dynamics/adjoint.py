"""Adjoint map: how much an outcome depends on every source of memory at every boundary of one run.

    λ_t = J_tᵀ λ_{t+1},   λ_h = ∂Y/∂z_h                 one reverse sweep, `linear/reverse.py`
    dependence = √ Σ_leaves (ε‖x‖)²‖λ‖²/n               first-order rms effect on Y of a random nudge by ε

x: a leaf at the boundary, n its size. The nudge is that of `Nudge`: of relative size ε in every leaf, in a
uniform direction; a share ±ε of each number where none is negative, for which the sum is ε² Σ (x_i λ_i)².
A row of the map is a source, or for an optimizer and for BatchNorm one kind of its leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.dynamics.linear.reverse import Outcome, evaluate, sweep
from bygones.dynamics.linear.vectors import Vector, difference, dot, each, vector_of
from bygones.training.interventions import Nudge
from bygones.training.recipe import Parts
from bygones.training.run import Run, Snapshot
from bygones.training.treatment import Treatment

_SPLIT = ("moments", "batchnorm")  # sources that have a row for each kind of leaf
MOST_BYTES = 1_000_000_000  # of snapshots that are kept in memory


@dataclass(frozen=True)
class Cell:
    """A row and a step of a run's map, with the first-order and the true effect of one nudge there."""

    seed: int
    row: str
    step: int
    predicted: float
    measured: float = math.nan


@dataclass(frozen=True)
class AdjointMap:
    """The map of one run. `dependence` [rows, boundaries]: in units of the outcome; `outcome`: Y itself."""

    rows: tuple[str, ...]
    steps: np.ndarray
    dependence: np.ndarray
    outcome: float
    cells: tuple[Cell, ...] = ()


def probe_loss(parts: Parts) -> Tensor:
    """Return the mean cross-entropy on the probe set, in evaluation mode: the default outcome."""
    if not isinstance(parts.probe_set, tuple) or parts.probe_set[1].is_floating_point():
        raise DesignError(
            "the outcome is the loss on a classifier's probe set, and this recipe has none. Give another "
            "outcome: a function of the parts that returns a tensor [] ."
        )
    inputs, labels = parts.probe_set
    parts.model.eval()
    return nn.functional.cross_entropy(parts.model(inputs).double(), labels)


class Boundaries:
    """The snapshots of a run from one boundary to another; those between the kept ones are trained again.

    Every `spacing`-th is kept: each of them where they fit into `MOST_BYTES`, else about √h of them.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> run = Run(heavy_ball.recipe, seed=0)
    >>> run.advance(3)
    >>> boundaries = Boundaries(run, 12, most_bytes=0)
    >>> boundaries.spacing, boundaries[8].step, len(boundaries)
    (3, 8, 10)
    """

    def __init__(self, run: Run, stop: int, most_bytes: int = MOST_BYTES) -> None:
        self._run, self.start, self.stop = run, run.step, stop
        steps = max(1, stop - run.step)
        size = sum(t.numel() * t.element_size() for *_, t in each(vector_of(run.snapshot().states)))
        self.spacing = 1 if size * steps <= most_bytes else math.isqrt(steps)
        self._kept: dict[int, Snapshot] = {}
        self._between: dict[int, Snapshot] = {}
        for step in range(self.start, stop + 1):
            run.advance(step)
            if (step - self.start) % self.spacing == 0 or step == stop:
                self._kept[step] = run.snapshot()

    def __len__(self) -> int:
        return self.stop - self.start + 1

    def __getitem__(self, step: int) -> Snapshot:
        if step in self._kept:
            return self._kept[step]
        if step not in self._between:
            first = step - (step - self.start) % self.spacing
            self._between = {}
            self._run.restore(self._kept[first])
            for between in range(first + 1, min(first + self.spacing, self.stop)):
                self._run.advance(between)
                self._between[between] = self._run.snapshot()
        return self._between[step]

    def backwards(self) -> Iterator[Snapshot]:
        """Yield all snapshots, the last one first."""
        return (self[step] for step in range(self.stop, self.start - 1, -1))


def adjoint(
    run: Run,
    stop: int,
    outcome: Outcome = probe_loss,
    *,
    size: float = 0.01,
    cells: Sequence[tuple[str, int]] = (),
    boundaries: Boundaries | None = None,
) -> AdjointMap:
    """Map the dependence of the outcome at `stop` on all arrays of floats at each boundary from here on.

    `size`: ε. `cells`: rows and steps at which the effect of one nudge is predicted, ⟨λ_t, Δ⟩. Cost: one run
    forward, and one backward whose steps take several times as long.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> run = Run(heavy_ball.recipe, seed=0)
    >>> run.advance(2)
    >>> found = adjoint(run, 10, lambda parts: parts.model.w.square().sum())
    >>> found.rows, found.dependence.shape
    (('weights', 'moments/momentum_buffer'), (2, 9))
    """
    boundaries = boundaries or Boundaries(run, stop)
    rows = rows_of(boundaries[stop])
    steps = np.arange(boundaries.start, stop + 1)
    dependence = np.full((len(rows), len(steps)), np.nan)
    predicted: list[Cell] = []
    value = math.nan
    snapshots = boundaries.backwards()
    last = next(snapshots)
    run.restore(last)
    value = float(evaluate(run, outcome))
    for gradient in sweep(run, last, snapshots, outcome):
        snapshot = boundaries[gradient.step]
        here = vector_of(snapshot.states)
        place = gradient.step - boundaries.start
        for number, row in enumerate(rows):
            dependence[number, place] = _dependence(here, gradient.vector, row, size)
        for row, step in cells:
            if step == gradient.step:
                moves = nudged(run, snapshot, row, size)
                predicted.append(Cell(run.seed, row, step, dot(gradient.vector, moves)))
    return AdjointMap(tuple(rows), steps, dependence, value, tuple(predicted))


def rows_of(snapshot: Snapshot) -> list[str]:
    """List the rows of the map of a run, in the order of its sources."""
    return list(
        dict.fromkeys(_row(source, name) for source, name, _ in each(vector_of(snapshot.states)))
    )


def treatment_of(row: str, step: int, size: float) -> Treatment:
    """Return the nudge of a row at a step.

    >>> print(treatment_of("moments/exp_avg", 7, 0.01))
    nudging moments (*/exp_avg) (0.01) at step 7
    """
    source, _, kind = row.partition("/")
    leaves = f"*/{kind}" if source in _SPLIT and kind else "*"
    return Treatment(
        source if source in _SPLIT else row, Nudge(size), Window(step, step + 1), leaves
    )


def nudged(run: Run, snapshot: Snapshot, row: str, size: float) -> Vector:
    """Nudge a row of a run at a boundary, where it is left; return what moved."""
    run.restore(snapshot)
    run.intervene([treatment_of(row, snapshot.step, size)])
    after = {name: source.capture() for name, source in run.sources.items()}
    return difference(after, snapshot.states)


def measure_cell(
    run: Run, boundaries: Boundaries, cell: Cell, outcome: Outcome, size: float, control: float
) -> float:
    """Return the true effect on the outcome of a cell's nudge: one run from there to the end."""
    nudged(run, boundaries[cell.step], cell.row, size)
    run.advance(boundaries.stop)
    return float(evaluate(run, outcome)) - control


def _row(source: str, name: str) -> str:
    return f"{source}/{name.rpartition('/')[2]}" if source in _SPLIT else source


def _dependence(here: Vector, gradient: Vector, row: str, size: float) -> float:
    total, found = 0.0, False
    for source, name, leaf in each(here):
        if _row(source, name) != row or not leaf.ndim:
            continue
        found = True
        x, slope = leaf.double(), gradient[source][name].double()
        if bool(torch.all(x >= 0)):
            total += float((x * slope).square().sum())
        else:
            total += float(x.square().sum() * slope.square().sum()) / x.numel()
    return size * math.sqrt(total) if found else math.nan
