"""Made-up studies whose truths are known, put through the public functions: `all_effects` and what uses it.

    effect, excess, share, ceiling   how often the 95% interval covers the truth
    washout                          how often an effect at exactly the threshold is called gone
    equivalence (TOST)               how often a distance of exactly the margin is called smaller
    Holm                             how often a family of four true nulls has any finding

The probe steps of one dataset are independent studies, so that one call judges hundreds of them. A control's
outputs are a_s · g_s, with g_s standard normal over 16 inputs; those of a treated run differ from them by
exactly the distance that was drawn, in the metric `rms`.

Shapes: H studies (as probe steps), R seeds, N inputs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from scipy import integrate, stats

from bygones.analysis.effects import all_effects, per_seed, washout
from bygones.analysis.equivalence import tost
from bygones.analysis.multiplicity import Family, adjust
from bygones.core.keyed_rng import generator

PAIRS = (3, 5, 8, 16, 32)
STUDIES = 2_000
BAND = (0.93, 0.97)
BLOCK = 250  # studies in one dataset
INPUTS = 16
FAR = 30.0  # a distance from which no draw of an excess reaches below 0
ARMS = 4

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# What a distance may be spread like. Of a few below 0 the size counts: a distance has no sign.
KINDS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: np.abs(4.0 + rng.standard_normal(shape)),
    "t3": lambda rng, shape: np.abs(10.0 + rng.standard_t(3, size=shape)),
    "folded normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "lognormal 0.5": lambda rng, shape: np.exp(0.5 * rng.standard_normal(shape)),
    "lognormal 1": lambda rng, shape: np.exp(rng.standard_normal(shape)),
}


def mean_of(kind: str) -> float:
    """The truth, E |x|; of what is folded at 0, c + 2 E (−x − c)⁺ by quadrature."""
    if kind.startswith("lognormal"):
        return math.exp(0.5 * float(kind.split()[1]) ** 2)
    if kind == "folded normal":
        return math.sqrt(2.0 / math.pi)
    law, centre = {"normal": (stats.norm(), 4.0), "t3": (stats.t(3), 10.0)}[kind]
    folded, _ = integrate.quad(lambda x: (x - centre) * law.pdf(x), centre, math.inf)
    return centre + 2.0 * folded


@cache
def mean_between(amplitude: Draw, name: str) -> float:
    """The true ceiling: mean distance of two controls, over half a million pairs of seeds."""
    rng = generator("made-up studies", "ceiling", name)
    found = []
    for _ in range(5):
        one, other = (
            amplitude(rng, (100_000, 1)) * rng.standard_normal((100_000, INPUTS)) for _ in range(2)
        )
        found.append(np.sqrt(np.mean((one - other) ** 2, axis=-1)).mean())
    return float(np.mean(found))


def a_third(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Amplitudes of seeds that differ by about a third."""
    return np.exp(0.3 * rng.standard_normal(shape))


def make_outcomes(
    distances: Mapping[str, np.ndarray], null_of: Mapping[str, str], amplitude: np.ndarray, rng
) -> xr.Dataset:
    """Outcomes in which each arm lies at these distances from its control, (R, H); see the module."""
    R, H = amplitude.shape
    control = amplitude[..., None] * rng.standard_normal((R, H, INPUTS))
    outputs = [control, *(control + moved[..., None] for moved in distances.values())]
    roles = {"control": "control"}
    roles |= {name: "null" if name in null_of else "treated" for name in distances}
    arms = [{"name": n, "role": role, "null_of": null_of.get(n)} for n, role in roles.items()]
    return xr.Dataset(
        {
            "values": (
                ("seed", "arm", "step", "input", "class"),
                np.stack(outputs, axis=1)[..., None],
            )
        },
        coords={"seed": np.arange(R), "arm": list(roles), "step": np.arange(H)},
        attrs={"arms": arms, "fork_at": 0},
    )


# ------------------------------------------------------------------ one cell


@dataclass(frozen=True)
class Cell:
    """A kind of distance and a number of pairs, and how often each thing happened there."""

    kind: str
    num_pairs: int
    studies: int
    rates: Mapping[str, float]


def measure_cell(kind: str, num_pairs: int, studies: int) -> Cell:
    """Judge so many made-up studies of one kind."""
    counted: dict[str, list[bool]] = {}
    rng = generator("made-up studies", kind, num_pairs)
    for start in range(0, studies, BLOCK):
        shape = (num_pairs, min(BLOCK, studies - start))
        for happened in (
            _references(kind, shape, rng),
            _ceilings(kind, shape, rng),
            _families(kind, shape, rng),
        ):
            for name, listed in happened.items():
                counted.setdefault(name, []).extend(listed)
    rates = {name: sum(listed) / len(listed) for name, listed in counted.items()}
    return Cell(kind, num_pairs, studies, rates)


def _references(
    kind: str, shape: tuple[int, int], rng: np.random.Generator
) -> dict[str, list[bool]]:
    """Effect, excess, share, washout and equivalence."""
    draw, truth = KINDS[kind], mean_of(kind)
    share = truth / mean_between(a_third, "a third")
    moved = draw(rng, shape)
    distances = {
        "moved": moved,
        "pushed": FAR + draw(rng, shape) - truth,
        "null": np.full(shape, FAR),
    }
    outcomes = make_outcomes(distances, {"null": "pushed"}, a_third(rng, shape), rng)
    found = all_effects(outcomes, ["rms"])
    of_moved = [e for e in found if e.arm == "moved"]
    pairs = per_seed(outcomes, "rms", "moved").values.T
    return {
        "effect": [e.estimate.covers(truth) for e in of_moved],
        "excess": [e.excess is not None and e.excess.covers(0.0) for e in found if e.arm == "pushed"],
        "share": [e.fraction is not None and e.fraction.covers(share) for e in of_moved],
        "washout": [washout([e], share).gone_by is not None for e in of_moved],
        "washout, ceiling taken as known": [
            e.ceiling is not None and e.estimate.high < share * e.ceiling.value for e in of_moved
        ],
        "equivalence": [tost(study, truth, distances=True).equivalent for study in pairs],
        "equivalence, by t": [tost(study, truth).equivalent for study in pairs],
        "equivalence at a third": [tost(study, 3.0 * truth, distances=True).equivalent for study in pairs],
    }  # fmt: skip


def _ceilings(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, list[bool]]:
    """The ceiling, of seeds whose amplitudes are of this kind."""
    truth = mean_between(KINDS[kind], kind)
    outcomes = make_outcomes({"moved": np.ones(shape)}, {}, KINDS[kind](rng, shape), rng)
    found = all_effects(outcomes, ["rms"])
    return {"ceiling": [e.ceiling is not None and e.ceiling.covers(truth) for e in found]}


def _families(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, list[bool]]:
    """Four arms that move the function as their nulls do, judged together."""
    draw, truth = KINDS[kind], mean_of(kind)
    distances: dict[str, np.ndarray] = {}
    for arm in range(ARMS):
        distances[f"arm {arm}"] = FAR + draw(rng, shape) - truth
        distances[f"null {arm}"] = np.full(shape, FAR)
    nulls = {f"null {arm}": f"arm {arm}" for arm in range(ARMS)}
    outcomes = make_outcomes(distances, nulls, np.ones(shape), rng)
    at_step: dict[int, list[Any]] = {}
    for effect in all_effects(outcomes, ["rms"]):
        at_step.setdefault(effect.step, []).append(effect)
    arms = tuple(f"arm {arm}" for arm in range(ARMS))
    return {
        "Holm": [
            bool(adjust(effects, Family("made up", arms, ("rms",), (step,))).found)
            for step, effects in at_step.items()
        ]
    }


# ------------------------------------------------------------------ the table

COVERING = ("effect", "excess", "share", "ceiling")
ERRORS = {"washout": 0.025, "equivalence": 0.05, "Holm": 0.05}
OTHERS = ("washout, ceiling taken as known", "equivalence, by t", "equivalence at a third")


def measure_cells(scale: float = 1.0) -> list[Cell]:
    """Measure every cell, on all cores."""
    studies = max(20, int(scale * STUDIES))
    asked = [(kind, n, studies) for n in sorted(PAIRS, reverse=True) for kind in KINDS]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(measure_cell, *zip(*asked, strict=True)))


def misses(
    cells: Sequence[Cell],
    covering: Iterable[str] = COVERING,
    errors: Mapping[str, float] = ERRORS,
) -> list[str]:
    """What lies outside its promise at 8 pairs or more, by more than two standard errors."""
    said = []
    for cell in cells:
        if cell.num_pairs < 8:
            continue
        for name in covering:
            rate = cell.rates[name]
            if not BAND[0] - 2 * error(BAND[0], cell) <= rate <= BAND[1] + 2 * error(BAND[1], cell):
                said.append(f"{name}, {cell.kind}, {cell.num_pairs} pairs: {100 * rate:.1f}")
        for name, nominal in errors.items():
            if cell.rates[name] > nominal + 2 * error(nominal, cell):
                said.append(
                    f"{name}, {cell.kind}, {cell.num_pairs} pairs: {100 * cell.rates[name]:.1f}"
                )
    return said


def error(rate: float, cell: Cell) -> float:
    """Monte-Carlo standard error."""
    return math.sqrt(rate * (1.0 - rate) / cell.studies)


def rows(cells: Sequence[Cell], names: Iterable[str]) -> list[list[str]]:
    """One row a name, one column a kind; in a cell the percentages by number of pairs."""
    by_place = {(cell.kind, cell.num_pairs): cell for cell in cells}
    return [
        [
            name,
            *(
                " / ".join(f"{100 * by_place[kind, n].rates[name]:.1f}" for n in PAIRS)
                for kind in KINDS
            ),
        ]
        for name in names
    ]


def section(cells: Sequence[Cell], table: Callable[[list[str], Iterable[list[str]]], str]) -> str:
    """The part of docs/coverage.md about whole studies."""
    outside = misses(cells)
    verdict = "All of this holds at 8 pairs and more, within two standard errors."
    if outside:
        verdict = f"Beyond two standard errors, and so not promised: {'; '.join(outside)}."
    studies = f"{cells[0].studies:,} studies"
    points = f"{100 * error(0.95, cells[0]):.1f} points"
    return f"""## Effects, shares and claims of absence in made-up studies

{studies} a cell, put through `all_effects`, `washout`, `tost` and `adjust` as a report does it; their
Monte-Carlo standard error at 95% is {points}. The column is how the distances of the seeds are spread (of the
ceiling, the amplitudes of the controls; for share and washout the controls differ by about a third). The five
numbers of a cell are for 3 / 5 / 8 / 16 / 32 pairs.

Coverage of the default 95% intervals; asked for at 8 pairs and more: 93 to 97.

{table(["interval", *KINDS], rows(cells, COVERING))}

Error rates where the truth is exactly at the border. Nominal: washout 2.5 (one end of a 95% interval),
equivalence and Holm (four arms with an excess of 0 on average, any of them found) 5.

{table(["claim", *KINDS], rows(cells, ERRORS))}

{verdict}

At 3 and 5 pairs no coverage is promised for skewed pairs.

What the claims would be without their limits (a washout that takes the ceiling for known and the effect for
normal; a t test of a distance), and how often a distance of a third of the margin is found to be smaller:

{table(["claim", *KINDS], rows(cells, OTHERS))}

An effect that stands at exactly 1% of another seed, or a distance of exactly the margin, is not called gone
or smaller more often than was asked, whatever its spread. The price is paid by distances some of which are
near 0 (folded normal): their logarithms vary more than they do, and the limit is high.
"""
