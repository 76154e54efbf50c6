"""Regime map: over learning rate, dose and horizon, is the memory linear, non-linear but stable, or chaotic?

The rules, stated in advance. All intervals are over seeds, and the first rule that holds decides:

    cannot tell          a seed diverged, or gave no tangent error, cosine or λ
    linear               tangent error ≤ .25 and cosine ≥ .95, whole intervals, and the twins are settled
    chaotic              the interval of λ lies above 0, and the amplitude exponent's below .25 over the two
                         decades up to the dose (or churn is at least .8 of that between seeds)
    non-linear, stable   the whole interval of the error above .25, or of the cosine below .95; and that of λ
                         not above 0
    cannot tell          anything else

A dose α moves the state by α times what the arm moves (1: the arm itself). Effects are seen in the outputs on
the probe set (in the weights where there is none); all runs go on in float64 from the study's fork. The
direction that λ follows starts at random 100 steps before the treatment (or at step 1), so that it has turned
to the fastest one. A random one grows otherwise at first: less, as far as it lies where the run contracts,
and more, as far as it lies in moments that have yet to move the weights.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.text import format_count
from bygones.core.values import Digest
from bygones.dynamics.dose_response import amplitude_exponent
from bygones.dynamics.linear.vectors import norm
from bygones.dynamics.lyapunov import Twins
from bygones.dynamics.tangent import (
    LEAST_COSINE,
    MOST_ERROR,
    SETTLED,
    Outputs,
    boundary_of,
    choose_arm,
    compare,
    displaced,
    follow,
    kicked,
    size_of_treated,
)
from bygones.store import AbstractStore, MemoryStore, pack, unpack
from bygones.study.design import Arm, Study
from bygones.study.executors import AbstractExecutor, Serial
from bygones.study.gather import hold_store
from bygones.training.contract import Contract
from bygones.training.recipe import Recipe, build

Regime = Literal["linear", "non-linear, stable", "chaotic", "cannot tell"]
FLAT, DECADES, LEAST_CHURN = 0.25, 2.0, 0.8
DOSES = tuple(10.0 ** (k / 2) for k in range(-8, 1))  # 1e-4 to 1; mapped from two decades up
SETTLE = 100  # steps before the treatment in which λ's direction turns to the fastest one
_KICK = 1e-6
_UNDECIDED = "the intervals and the twins fulfil no rule"
RULES = (
    (
        "cannot tell",
        "a seed diverged, or gave no tangent error, cosine or exponent: the others are no random sample.",
    ),
    (
        "linear",
        "tangent error at most .25 and cosine at least .95, whole intervals, and settled twins.",
    ),
    (
        "chaotic",
        "the interval of the Lyapunov exponent (growth) lies above 0; and that of the amplitude exponent "
        "over the two decades up to the dose lies below .25, or churn is at least .8 of that between seeds.",
    ),
    (
        "non-linear, stable",
        "the whole interval of the error above .25 or of the cosine below .95, and that of the Lyapunov "
        "exponent not above 0: no growth of small differences was shown.",
    ),
    ("cannot tell", "anything else."),
)


@dataclass(frozen=True)
class MapJob:
    """One seed at one learning rate; what is stored of it is not computed again."""

    recipe: Recipe
    rate: float
    seed: int
    arm: Arm
    at: int
    horizons: tuple[int, ...]
    doses: tuple[float, ...]
    of: str
    contract: Contract
    store: AbstractStore

    def address(self) -> Digest:
        arm = [treatment.digest() for treatment in self.arm.treatments]
        settings = [self.recipe.code(), self.contract.digest(), self.seed, arm, self.of]
        return digest(["bygones.map/2", *settings, self.at, self.horizons, self.doses])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is stored."""
        return unpack(self.store.get(self.store.records(self.address())["map"]["object"]))[0]


@dataclass(frozen=True)
class Cell:
    """One learning rate, dose and horizon: its regime, and what it was judged by."""

    rate: float
    dose: float
    horizon: int
    regime: Regime
    error: Estimate
    cosine: Estimate
    exponent: Estimate
    growth: Estimate  # λ, a step
    churn: Estimate  # of that between seeds
    reason: str = ""  # why it cannot be told


@dataclass(frozen=True)
class RegimeMap:
    """The cells of a map, and how many seeds stand behind it; `str` says what was found."""

    study: str
    arm: str
    seeds: int
    cells: tuple[Cell, ...]

    def sentences(self) -> list[str]:
        """Say the share of each regime at the last horizon, by learning rate."""
        last = max(cell.horizon for cell in self.cells)
        said: list[str] = []
        for rate in dict.fromkeys(cell.rate for cell in self.cells):
            here = [c for c in self.cells if c.rate == rate and c.horizon == last]
            regimes = dict.fromkeys(cell.regime for cell in here)
            parts = [f"{regime} at {_doses(here, regime)}" for regime in regimes]
            parts += dict.fromkeys(c.reason for c in here if c.reason not in ("", _UNDECIDED))
            said.append(
                f"Learning rate {rate:g}, horizon {last}: {'; '.join(parts)}. "
                f"λ·h = {here[0].growth.scaled(last)}."
            )
        head = f"{self.study}, '{self.arm}': {format_count(self.seeds, 'seed')}."
        return [head, *said]

    def __str__(self) -> str:
        return "\n".join(self.sentences())


def classify(
    error: Estimate,
    cosine: Estimate,
    unsettled: float,
    growth: Estimate,
    exponent: Estimate,
    churn: Estimate,
    diverged: int = 0,
) -> tuple[Regime, str]:
    """Apply the rules; return the regime, and the reason if it cannot be told.

    An interval that does not exist (NaN) fulfils none. `diverged`: the number of seeds that did.
    """
    lost = _lost({"tangent error": error, "cosine": cosine, "exponent λ": growth}, diverged)
    if lost:
        return "cannot tell", lost
    if error.high <= MOST_ERROR and cosine.low >= LEAST_COSINE and unsettled <= SETTLED:
        return "linear", ""
    flat = exponent.high < FLAT and not exponent.num_dropped
    flat |= churn.low >= LEAST_CHURN and not churn.num_dropped
    if growth.low > 0 and flat:
        return "chaotic", ""
    departs = error.low > MOST_ERROR or cosine.high < LEAST_COSINE
    if departs and growth.low <= 0:
        return "non-linear, stable", ""
    return "cannot tell", _UNDECIDED


def _lost(judged: Mapping[str, Estimate], diverged: int) -> str:
    """Say which seeds are missing, and from what; "" if none is."""
    for what, one in judged.items():
        num = one.num_pairs + one.num_dropped
        if diverged:
            return f"{diverged} of {format_count(num, 'seed')} diverged"
        if one.num_dropped:
            return f"{one.num_dropped} of {format_count(num, 'seed')} gave no {what}"
    return ""


def jobs_of(
    study: Study,
    store: AbstractStore,
    *,
    rates: Sequence[float],
    arm: str | None = None,
    doses: Sequence[float] = DOSES,
) -> list[MapJob]:
    """Return a job for each learning rate and seed. Nothing is trained.

    Raises `DesignError` where the recipe takes no `lr`, or the arm has no displacement at one step.
    """
    chosen = choose_arm(study, arm)
    at = boundary_of(chosen)
    horizons = tuple(step - at for step in study.steps if step > at)
    recipe = study.recipe
    if not isinstance(recipe, Recipe) or "lr" not in inspect.signature(recipe.load()).parameters:
        raise DesignError(
            f"a map varies the learning rate, as the setting `lr` of a recipe, and {recipe} has none. Write "
            f"recipe(seed, lr=…) and give it to the optimizer."
        )
    if not horizons or not rates or any(not 0 < rate < math.inf for rate in rates):
        raise DesignError(
            f"a map needs a horizon after the treatment and learning rates above 0; got horizons "
            f"{list(study.horizons)}, rates {list(rates)}."
        )
    if not 0 < min(doses) <= max(doses) or not _mapped(doses):
        raise DesignError(
            f"a map's doses span {DECADES:g} decades or more above 0, for an exponent; got {list(doses)}."
        )
    contract, of = Contract.here(), getattr(study.probe, "of", "model")
    return [
        MapJob(
            Recipe.of(recipe, lr=float(rate)), float(rate), seed, chosen, at, horizons,
            tuple(sorted(map(float, doses))), of, contract, store,
        )
        for rate in rates
        for seed in study.seeds
    ]  # fmt: skip


def default_rates(study: Study) -> list[float]:
    """Return learning rates from an eighth to eight times the recipe's own."""
    if not isinstance(study.recipe, Recipe):
        raise DesignError("a map varies the setting `lr` of a recipe, and a script has none.")
    optimizer = next(iter(build(study.recipe, study.seeds[0]).optimizers.values()))
    return [float(optimizer.param_groups[0]["lr"]) * 2.0**k for k in range(-3, 4)]


def is_done(job: MapJob) -> bool:
    """Return whether a job's result is stored."""
    return job.store.has_record(job.address(), "map")


def run_job(job: MapJob) -> int:
    """Measure one seed at one learning rate, store it, and return the seed."""
    with job.contract.in_force():
        pair = Twins.at(job.recipe, job.seed, job.at, job.contract.device)
        start = pair.start
        if pair.precision != "float64":
            raise DesignError(
                f"a map is made in float64, in which {job.recipe} cannot take a step."
            )
        _, moves = displaced(pair.control, job.arm, start)
        size = min(1e-3, _KICK * size_of_treated(start, moves) / norm(moves))

        def at_horizons(dose: float) -> list[np.ndarray]:
            state = kicked(start, moves, dose) if dose else start
            found = follow(pair.control, state, job.at, job.horizons, job.of)
            end = pair.control.diverged_at
            lost = [end is not None and job.at + horizon > end for horizon in job.horizons]
            return [
                _space(one) * (math.nan if gone else 1.0)
                for one, gone in zip(found, lost, strict=True)
            ]

        control, above, below = (at_horizons(dose) for dose in (0.0, size, -size))
        treated = {dose: at_horizons(dose) for dose in job.doses}
        places = range(len(job.horizons))
        judged = np.array(
            [
                [compare([control[i], treated[a][i], above[i], below[i]], size / a) for i in places]
                for a in job.doses
            ]
        )  # [D, H, 3]
        sizes = np.array(
            [[np.linalg.norm(treated[a][i] - control[i]) for i in places] for a in job.doses]
        )
        shape = _rows(pair), -1
        labels = [_labels(one.reshape(shape)) for one in control]
        churn = [
            [np.mean(_labels(treated[a][i].reshape(shape)) != labels[i]) for i in places]
            for a in job.doses
        ]
        begin = max(min(1, job.at), job.at - SETTLE)
        earlier = Twins.at(job.recipe, job.seed, begin, job.contract.device)
        growth = earlier.log_growth(job.horizons, settle=job.at - begin) / np.array(job.horizons)
        arrays = {
            "judged": judged, "sizes": sizes, "churn": np.array(churn),
            "labels": np.stack(labels), "growth": growth,
        }  # fmt: skip
        stored = job.store.put(pack(arrays, {}))
        job.store.write_record(job.address(), "map", {"object": stored})
    return job.seed


def regime_map(
    study: Study,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    *,
    rates: Sequence[float] | None = None,
    arm: str | None = None,
    doses: Sequence[float] = DOSES,
    on_job: Callable[[int], None] | None = None,
) -> RegimeMap:
    """Map the regimes of an arm over learning rates, doses and the study's horizons; stored parts are kept.

    `rates`: an eighth to eight times the recipe's own unless given. `doses`: those with two decades below
    them are mapped. Cost: for each rate and seed two runs to the fork, and then one for each dose and six
    more, in float64.
    """
    store = store or MemoryStore()
    chosen = default_rates(study) if rates is None else rates
    jobs = jobs_of(study, store, rates=chosen, arm=arm, doses=doses)
    with hold_store(store):
        for done in (executor or Serial()).map(run_job, [j for j in jobs if not is_done(j)]):
            if on_job is not None:
                on_job(done)
    cells: list[Cell] = []
    for rate in dict.fromkeys(job.rate for job in jobs):
        cells += _cells([job for job in jobs if job.rate == rate])
    return RegimeMap(study.name, jobs[0].arm.name, len(study.seeds), tuple(cells))


def _cells(jobs: Sequence[MapJob]) -> Iterator[Cell]:
    """Yield the cells of one learning rate."""
    first, found = jobs[0], [job.arrays() for job in jobs]
    judged, sizes, churn, labels, growth = (
        np.stack([one[name] for one in found])
        for name in ("judged", "sizes", "churn", "labels", "growth")
    )
    for place, horizon in enumerate(first.horizons):
        between = _between_seeds(labels[:, place])
        rate_of_growth = by_skewness(growth[:, place])
        for dose in _mapped(first.doses):
            d = first.doses.index(dose)
            window = [
                i for i, a in enumerate(first.doses) if dose / 10**DECADES <= a * 1.001 and i <= d
            ]
            exponents = [
                amplitude_exponent(
                    [first.doses[i] for i in window], row[window, place], None, DECADES
                )
                for row in sizes
            ]
            error, cosine = (by_skewness(judged[:, d, place, i]) for i in (0, 1))
            worst = float(np.max(np.nan_to_num(judged[:, d, place, 2], nan=math.inf)))
            exponent = by_skewness(exponents)
            of_seeds = by_skewness(
                churn[:, d, place] / between if between else churn[:, d, place] * np.nan
            )
            lost = ~np.isfinite(sizes[:, d, place]) | np.isnan(growth[:, place])
            judged_by = error, cosine, worst, rate_of_growth, exponent, of_seeds
            regime, reason = classify(*judged_by, int(lost.sum()))
            intervals = error, cosine, exponent, rate_of_growth, of_seeds
            yield Cell(first.rate, dose, horizon, regime, *intervals, reason)


def _mapped(doses: Sequence[float]) -> list[float]:
    """Return the doses that have two decades of others below them."""
    return [dose for dose in sorted(doses) if min(doses) <= dose / 10**DECADES * 1.001]


def _between_seeds(labels: np.ndarray) -> float:
    """Return the mean share of inputs on which two seeds' controls differ; 0 for fewer than two seeds."""
    pairs = [np.mean(one != other) for i, one in enumerate(labels) for other in labels[i + 1 :]]
    return float(np.mean(pairs)) if pairs else 0.0


def _space(one: Outputs) -> np.ndarray:
    return one.get("outputs", one["weights"])


def _rows(pair: Twins) -> int:
    """Return the number of inputs that are observed; 1 where the weights are."""
    probe_set = pair.control.parts.probe_set
    return 1 if probe_set is None else len(probe_set[0])


def _labels(outputs: np.ndarray) -> np.ndarray:
    """Return the predicted classes; of one output alone, zeros."""
    return np.nan_to_num(outputs).argmax(axis=-1)


def _doses(cells: Sequence[Cell], regime: str) -> str:
    doses = [cell.dose for cell in cells if cell.regime == regime]
    return f"dose {doses[0]:.2g}" if len(doses) == 1 else f"doses {doses[0]:.2g} to {doses[-1]:.2g}"
