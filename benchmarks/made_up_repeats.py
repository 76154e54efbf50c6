"""Made-up studies whose arms are repeated within seeds, and antithetic pairs, whose truths are known.

    siblings    a distance d_s · w_sk in each of four continuations: d_s of the kind, w lognormal with mean 1
    forks       the same at three forks, times 1.5, 1 and 0.5: the truth is the mean over them
    antithetic  a score whose odd part is d_s less its mean, plus 1, under noise of its own in every arm

How often the 95% interval covers the truth, by the public functions: `all_effects` and `antithetic`.

Shapes: H studies (as probe steps), R seeds, K repeats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import xarray as xr
from benchmarks.made_up_studies import (
    BLOCK,
    KINDS,
    PAIRS,
    Cell,
    a_third,
    error,
    make_outcomes,
    mean_between,
    mean_of,
    misses,
    rows,
)

from bygones.analysis.antithetic import antithetic
from bygones.analysis.effects import all_effects
from bygones.core.keyed_rng import generator

STUDIES = 1_000
SIBLINGS = 4
LEVELS = (1.5, 1.0, 0.5)  # of the forks
WITHIN = 0.5  # standard deviation of log w
SCORE = 50.0  # a baseline of the score that no draw falls below
REPEATED = ("effect", "share", "ceiling")


def repeated_outcomes(
    kind: str, shape: tuple[int, int], levels: Sequence[float], rng: np.random.Generator
) -> xr.Dataset:
    """Outcomes with one repeat a level, in which d_s is shared by the repeats and w_sk is not."""
    d, amplitude = KINDS[kind](rng, shape), a_third(rng, shape)
    whole: xr.Dataset | None = None
    for k, level in enumerate(levels):
        w = np.exp(WITHIN * rng.standard_normal(shape) - 0.5 * WITHIN**2)
        found = make_outcomes({"moved": level * d * w}, {}, amplitude, rng)
        if whole is None:
            whole = found
        else:
            whole[f"values@{k}"] = found["values"]
    assert whole is not None
    return whole


def told(forks: Sequence[int]) -> list[dict[str, int]]:
    """The repeats, as outcomes record them: one a step of a fork, siblings counted within a fork."""
    return [{"fork_at": at, "sibling": forks[:k].count(at)} for k, at in enumerate(forks)]


def _repeated(
    kind: str, shape: tuple[int, int], design: str, rng: np.random.Generator
) -> dict[str, list[bool]]:
    """What is covered in one block of studies."""
    levels = LEVELS if design == "forks" else (1.0,) * SIBLINGS
    forks = [10_000 * k for k in range(len(levels))] if design == "forks" else [0] * SIBLINGS
    outcomes = repeated_outcomes(kind, shape, levels, rng)
    outcomes.attrs["repeats"] = told(forks)
    truth, between = float(np.mean(levels)) * mean_of(kind), mean_between(a_third, "a third")
    moved = all_effects(outcomes, ["rms"])
    return {
        f"{design}: effect": [e.estimate.covers(truth) for e in moved],
        f"{design}: share": [
            e.fraction is not None and e.fraction.covers(truth / between) for e in moved
        ],
        f"{design}: ceiling": [e.ceiling is not None and e.ceiling.covers(between) for e in moved],
    }


def pair_outcomes(odd: np.ndarray, noise: np.ndarray) -> xr.Dataset:
    """A classifier of one input whose NLL is the baseline, ± the odd part, plus noise: (R, H), (R, 3, H)."""
    nll = SCORE + noise + np.stack([0.0 * odd, odd, -odd], axis=1)
    above = nll + np.log(-np.expm1(-nll))  # log(exp(nll) − 1)
    logits = np.stack([np.zeros_like(nll), above], axis=-1)
    arms = [
        {"name": "control", "role": "control"},
        {"name": "kick", "role": "treated"},
        {"name": "opposite", "role": "treated", "opposite_of": "kick"},
    ]
    return xr.Dataset(
        {
            "logits": (("seed", "arm", "step", "input", "class"), logits[:, :, :, None, :]),
            "labels": (("input",), np.array([0])),
        },
        coords={
            "seed": np.arange(len(odd)),
            "arm": [arm["name"] for arm in arms],
            "step": np.arange(odd.shape[1]),
        },
        attrs={"arms": arms, "fork_at": 0},
    )


def _pairs(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, list[bool]]:
    """The odd part, and the effect of the arm alone, whose even part is 0 here."""
    odd = np.clip(KINDS[kind](rng, shape) - mean_of(kind) + 1.0, -0.8 * SCORE, 0.8 * SCORE)
    noise = 0.3 * rng.standard_normal((shape[0], 3, shape[1]))
    outcomes = pair_outcomes(odd, noise)
    found = [antithetic(outcomes, "kick", step=h, metric="nll") for h in range(shape[1])]
    return {
        "antithetic: odd part": [one.odd.covers(1.0) for one in found],
        "antithetic: even part": [one.even.covers(0.0) for one in found],
    }


def measure_cell(kind: str, num_pairs: int, studies: int) -> Cell:
    """Judge so many made-up studies of one kind."""
    counted: dict[str, list[bool]] = {}
    rng = generator("made-up repeats", kind, num_pairs)
    for start in range(0, studies, BLOCK):
        shape = (num_pairs, min(BLOCK, studies - start))
        for happened in (
            _repeated(kind, shape, "siblings", rng),
            _repeated(kind, shape, "forks", rng),
            _pairs(kind, shape, rng),
        ):
            for name, listed in happened.items():
                counted.setdefault(name, []).extend(listed)
    rates = {name: float(np.mean(listed)) for name, listed in counted.items()}
    return Cell(kind, num_pairs, studies, rates)


NAMES = (
    *(f"{design}: {name}" for design in ("siblings", "forks") for name in REPEATED),
    "antithetic: odd part",
    "antithetic: even part",
)


def measure_cells(scale: float = 1.0) -> list[Cell]:
    """Measure every cell, on all cores."""
    studies = max(20, int(scale * STUDIES))
    asked = [(kind, n, studies) for n in sorted(PAIRS, reverse=True) for kind in KINDS]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(measure_cell, *zip(*asked, strict=True)))


def table_of(cells: Sequence[Cell]) -> Mapping[str, Mapping[str, Mapping[int, float]]]:
    """The coverage by row, kind and number of seeds, for analysis/coverage.json."""
    return {
        name: {
            kind: {cell.num_pairs: cell.rates[name] for cell in cells if cell.kind == kind}
            for kind in KINDS
        }
        for name in NAMES
    }


def section(cells: Sequence[Cell], table: Callable[[list[str], Iterable[list[str]]], str]) -> str:
    """The part of docs/coverage.md about repeats within seeds and antithetic pairs."""
    outside = misses(cells, NAMES, {})
    verdict = "All of this lies within 93 to 97 at 8 seeds and more, within two standard errors."
    if outside:
        verdict = f"Beyond two standard errors, and so not promised: {'; '.join(outside)}."
    studies, points = f"{cells[0].studies:,}", f"{100 * error(0.95, cells[0]):.1f}"
    levels = ", ".join(f"{level:g}" for level in LEVELS)
    return f"""
## Repeats within seeds, and antithetic pairs

{studies} made-up studies a cell; Monte-Carlo standard error at 95%: {points} points. Each seed has
{SIBLINGS} siblings, or {len(LEVELS)} forks with effects of {levels} times the size. What the repeats of a
seed share is spread as the column says; each repeat multiplies it by a draw of its own (lognormal
{WITHIN:g}). Effects take the rule `by_skewness` over the means of the seeds. Of antithetic pairs the odd part
of a score is spread as the column says.

{table(["interval", *KINDS], rows(cells, NAMES))}

{verdict}
"""
