"""Sensitivity of an outcome to every source at every boundary: adjoint maps over seeds, and true effects.

For each seed one reverse sweep from the study's end to its fork (`adjoint`), and `num_cells` true effects of
nudges at rows and steps drawn at random with replacement. The tangent check is passed first. A prediction
is given beside the true effects alone: `rank`, `slope` and `error` say what it is worth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bygones.analysis.estimators import by_skewness
from bygones.analysis.two_phase import TwoPhase, rank_correlation, two_phase_over_seeds
from bygones.core.code_digest import code_digest
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.keyed_rng import generator
from bygones.core.text import format_count, join_names
from bygones.core.values import Digest
from bygones.dynamics.adjoint import (
    AdjointMap,
    Boundaries,
    Cell,
    adjoint,
    measure_cell,
    probe_loss,
    rows_of,
)
from bygones.dynamics.linear import check_tangent
from bygones.dynamics.linear.reverse import Outcome
from bygones.store import AbstractStore, MemoryStore, pack, unpack
from bygones.study.design import Study
from bygones.study.executors import AbstractExecutor, Serial
from bygones.study.gather import hold_store
from bygones.training.contract import Contract
from bygones.training.recipe import Recipe
from bygones.training.run import Run


@dataclass(frozen=True)
class SweepJob:
    """One seed's map and true effects; what is stored of it is not computed again."""

    recipe: Recipe
    seed: int
    start: int
    stop: int
    size: float
    num_cells: int
    outcome: Outcome
    contract: Contract
    store: AbstractStore

    def address(self, seed: int | None) -> Digest:
        """Return where results are stored: by code, contract, steps, size and outcome; not by `num_cells`."""
        outcome = [self.outcome.__module__, self.outcome.__qualname__, code_digest(self.outcome)]
        settings = [self.recipe.code(), self.contract.digest(), self.start, self.stop, self.size]
        return digest(["bygones.sensitivity/1", *settings, outcome, seed])


@dataclass(frozen=True)
class Sensitivity:
    """Maps of several seeds, and true effects at some of their cells.

    `dependence` [seeds, rows, boundaries]: first-order rms effect on the outcome of a random nudge of
    relative size `size`. `left_out`: sources without arrays of floats. `cost`: seconds of a sweep over
    those of a run.
    """

    study: str
    seeds: tuple[int, ...]
    rows: tuple[str, ...]
    steps: np.ndarray
    size: float
    dependence: np.ndarray
    outcomes: np.ndarray
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...]
    check: str
    cost: float

    def intervals(self) -> np.ndarray:
        """Return mean and interval over seeds of every cell: float64 [3, rows, boundaries]."""
        found = np.full((3, *self.dependence.shape[1:]), np.nan)
        for place in np.ndindex(*self.dependence.shape[1:]):
            estimate = by_skewness(self.dependence[(slice(None), *place)])
            low = max(estimate.low, 0.0)  # a root mean square is never below 0
            found[(slice(None), *place)] = estimate.value, low, estimate.high
        return found

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true effects of the measured cells that ended finite."""
        both = np.array([(c.predicted, c.measured) for c in self.cells]).reshape(-1, 2)
        finite = both[np.isfinite(both).all(axis=1)]
        return finite[:, 0], finite[:, 1]

    @property
    def rank(self) -> float:
        """Spearman's correlation of predicted and true effects."""
        predicted, measured = self.pairs
        return rank_correlation(measured, predicted)

    @property
    def slope(self) -> float:
        """Calibration: the slope of true on predicted effects through 0; 1 is calibrated."""
        predicted, measured = self.pairs
        total = float(predicted @ predicted)
        return float(predicted @ measured) / total if total else math.nan

    @property
    def error(self) -> float:
        """The tangent error: the root of Σ(true − predicted)² over that of Σ true²."""
        predicted, measured = self.pairs
        total = float(measured @ measured)
        return math.sqrt(float(((measured - predicted) ** 2).sum()) / total) if total else math.nan

    def mean_square(self) -> TwoPhase:
        """Estimate the mean squared true effect over all cells, the map's square being the prediction."""
        measured: list[np.ndarray] = []
        predicted: list[np.ndarray] = []
        for place, seed in enumerate(self.seeds):
            own = [c for c in self.cells if c.seed == seed and math.isfinite(c.measured)]
            at = [(self.rows.index(c.row), c.step - int(self.steps[0])) for c in own]
            measured.append(np.array([c.measured**2 for c in own]))
            predicted.append(np.array([self.dependence[(place, *one)] ** 2 for one in at]))
        grid = self.dependence[:, :, :-1].reshape(len(self.seeds), -1) ** 2
        return two_phase_over_seeds(measured, predicted, grid)

    def sentences(self) -> list[str]:
        """Say what the map shows, what its predictions are worth, and what it leaves out."""
        by_row = np.sqrt(np.nanmean(self.dependence**2, axis=(0, 2)))
        most = [f"{self.rows[i]} {by_row[i]:.2g}" for i in np.argsort(-by_row)]
        num = len(self.pairs[0])
        return [
            f"{self.study}: rms first-order effect of a random nudge of {100 * self.size:g}% on the outcome, "
            f"over steps {self.steps[0]} to {self.steps[-1]} and {format_count(len(self.seeds), 'seed')}: "
            f"{join_names(most)}. The outcome itself is {by_skewness(self.outcomes)}.",
            f"Measured at {format_count(num, 'random cell')}: tangent error {self.error:.2g}, rank "
            f"correlation of predicted and true effects {self.rank:.2f}, slope {self.slope:.2f}.",
            f"Not in the map, for they hold no arrays of floats: {join_names(self.left_out) or 'none'}.",
            f"Before it, {self.check}. A sweep took {self.cost:.1f} times as long as the run forward.",
        ]

    def __str__(self) -> str:
        return "\n".join(self.sentences())


def jobs_of(
    study: Study,
    store: AbstractStore,
    *,
    num_cells: int,
    size: float,
    outcome: Outcome = probe_loss,
    start: int | None = None,
) -> list[SweepJob]:
    """Return the job of each seed, from the study's fork (or `start`) to its end. Nothing is trained."""
    start = max(1, study.fork_at) if start is None else start
    if not 1 <= start < study.end:
        raise DesignError(
            f"a map begins at a boundary from 1 to {study.end - 1}, before the study's end; got {start}."
        )
    if not 0 < size < 1:
        raise DesignError(f"the relative size of a nudge lies between 0 and 1; got {size:g}.")
    contract = Contract.here()
    return [
        SweepJob(study.recipe, seed, start, study.end, size, num_cells, outcome, contract, store)
        for seed in study.seeds
    ]


def sensitivity(
    study: Study,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    *,
    num_cells: int = 8,
    size: float = 0.01,
    outcome: Outcome = probe_loss,
    start: int | None = None,
    on_job: Callable[[int], None] | None = None,
) -> Sensitivity:
    """Map how much a study's outcome depends on every source at every boundary; what is stored is kept.

    `num_cells`: true effects a seed. `size`: of the nudges, relative. `outcome`: a function of the parts at
    the study's end, at the top level of a module. Raises `TangentError` where the recipe cannot be
    differentiated.
    """
    store = store or MemoryStore()
    jobs = jobs_of(study, store, num_cells=num_cells, size=size, outcome=outcome, start=start)
    with hold_store(store):
        check = _certify(jobs[0])
        left = [job for job in jobs if not is_done(job)]
        for done in (executor or Serial()).map(sweep_seed, left):
            if on_job is not None:
                on_job(done)
        return _gather(study, jobs, check)


def _certify(job: SweepJob) -> dict[str, Any]:
    known = job.store.records(job.address(None)).get("check")
    if known is None:
        with job.contract.in_force():
            passed = check_tangent(job.recipe, job.start, seed=job.seed, outcome=job.outcome)
        known = {"text": str(passed), "left_out": list(passed.left_out)}
        job.store.write_record(job.address(None), "check", known)
    return known


def is_done(job: SweepJob) -> bool:
    """Return whether a seed's map and as many true effects as are asked for are stored."""
    records = job.store.records(job.address(job.seed))
    return f"map-{job.num_cells}" in records and all(
        f"cell-{place}" in records for place in range(job.num_cells)
    )


def sweep_seed(job: SweepJob) -> int:
    """Compute what the store lacks of one seed, and return the seed."""
    address = job.address(job.seed)
    with job.contract.in_force():
        run = Run(job.recipe, job.seed, job.contract.device)
        run.advance(job.start)
        forward = time.process_time()
        boundaries = Boundaries(run, job.stop)
        forward = time.process_time() - forward
        drawn = list(_draw_cells(job, rows_of(boundaries[job.stop])))
        record = job.store.records(address).get(f"map-{job.num_cells}")
        if record is None:
            began = time.process_time()
            found = adjoint(
                run, job.stop, job.outcome, size=job.size, cells=drawn, boundaries=boundaries
            )
            cost = (time.process_time() - began) / max(forward, 1e-9)
            content = pack({"dependence": found.dependence}, _meta(found, cost))
            record = {"object": job.store.put(content)}
            job.store.write_record(address, f"map-{job.num_cells}", record)
        for place, cell in enumerate(_predicted(job)):
            if not job.store.has_record(address, f"cell-{place}"):
                control = unpack(job.store.get(record["object"]))[1]["outcome"]
                effect = measure_cell(run, boundaries, cell, job.outcome, job.size, control)
                job.store.write_record(address, f"cell-{place}", {"measured": effect})
    return job.seed


def _draw_cells(job: SweepJob, rows: list[str]) -> Iterator[tuple[str, int]]:
    """Draw rows and steps, each alike, with replacement; more of them begin with the same ones."""
    rng = generator(job.seed, "sensitivity cells")
    for _ in range(job.num_cells):
        yield rows[int(rng.integers(len(rows)))], int(rng.integers(job.start, job.stop))


def _meta(found: AdjointMap, cost: float) -> dict[str, Any]:
    cells = [[cell.row, cell.step, cell.predicted] for cell in found.cells]
    return {"rows": list(found.rows), "outcome": found.outcome, "cost": cost, "cells": cells}


def _predicted(job: SweepJob) -> list[Cell]:
    """Return the cells of a stored map in the order in which they were drawn."""
    meta = _stored(job)[1]
    found = {(row, step): value for row, step, value in meta["cells"]}
    drawn = _draw_cells(job, meta["rows"])
    return [Cell(job.seed, row, step, found[row, step]) for row, step in drawn]


def _stored(job: SweepJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    record = job.store.records(job.address(job.seed))[f"map-{job.num_cells}"]
    return unpack(job.store.get(record["object"]))


def _gather(study: Study, jobs: Iterable[SweepJob], check: dict[str, Any]) -> Sensitivity:
    maps: list[np.ndarray] = []
    metas: list[dict[str, Any]] = []
    cells: list[Cell] = []
    jobs = list(jobs)
    for job in jobs:
        arrays, meta = _stored(job)
        maps.append(arrays["dependence"])
        metas.append(meta)
        records = job.store.records(job.address(job.seed))
        for place, cell in enumerate(_predicted(job)):
            cells.append(replace(cell, measured=records[f"cell-{place}"]["measured"]))
    return Sensitivity(
        study.name,
        tuple(job.seed for job in jobs),
        tuple(metas[0]["rows"]),
        np.arange(jobs[0].start, jobs[0].stop + 1),
        jobs[0].size,
        np.stack(maps),
        np.array([meta["outcome"] for meta in metas]),
        tuple(cells),
        tuple(check["left_out"]),
        check["text"],
        float(np.median([meta["cost"] for meta in metas])),
    )
