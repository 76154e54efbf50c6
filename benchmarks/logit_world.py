"""A made-up classifier that forgets: do effect, excess, share, ceiling and washout cover what is true there?

    z_s(h)      = base + a_s·u_s + walk_s(h)              the control's logits of a seed s
    treated     = z_s(h) + e^(−h/20)·t_s·v_s              its null: the same with n_s and w_s

u, v, w: standard normal, a fresh one for each seed; log a, log t, log n: normal with standard deviations
.4, .7 and .7. All distances are total variations of the softmax; nothing of the simulation is shared with
the estimators, and the truths are means over 40 000 seeds. A study is put through `all_effects` and
`washout`, as a report does it. The washout's threshold is the true share at step 40: "gone by 40 or earlier"
is an error.

Shapes: R seeds, K arms, H steps, N inputs, C classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import xarray as xr
from scipy.special import softmax

from bygones.analysis.effects import all_effects, washout
from bygones.core.keyed_rng import generator

PAIRS = (3, 5, 8, 16, 32)
STUDIES = 1_000
INPUTS, CLASSES = 48, 5
STEPS = (0, 10, 20, 40, 60, 80)
BORDER = 3  # the step, by its place, at which the effect crosses the threshold
ARMS = (
    {"name": "control", "role": "control", "null_of": None},
    {"name": "treated", "role": "treated", "null_of": None},
    {"name": "null", "role": "null", "null_of": "treated"},
)
COVERING = ("effect", "excess", "share", "ceiling")


def draw_logits(seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Logits of the three arms, [R, K, H, N, C]."""
    base = 1.5 * generator("logit world", "base").standard_normal((INPUTS, CLASSES))
    spread, treated, null = (
        np.exp(sd * rng.standard_normal((seeds, 1, 1, 1))) for sd in (0.4, 0.7, 0.7)
    )
    u, v, w = (rng.standard_normal((seeds, 1, INPUTS, CLASSES)) for _ in range(3))
    walk = np.cumsum(0.09 * rng.standard_normal((seeds, len(STEPS), INPUTS, CLASSES)), axis=1)
    control = base + 0.5 * spread * u + walk
    left = np.exp(-np.asarray(STEPS) / 20.0)[:, None, None]
    return np.stack(
        [control, control + 0.35 * left * treated * v, control + 0.2 * left * null * w], 1
    )


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(p - q).sum(-1).mean(-1)


@cache
def truths() -> Mapping[str, np.ndarray]:
    """The true effect, excess, ceiling and share at each step, each [H]."""
    rng = generator("logit world", "truths")
    found = []
    for _ in range(40):
        p = softmax(draw_logits(1_000, rng), axis=-1)
        between = total_variation(p[1:, 0], p[:-1, 0])
        moved = total_variation(p[:, 1:], p[:, :1])
        found.append([moved[:, 0].mean(0), moved[:, 1].mean(0), between.mean(0)])
    effect, null, ceiling = np.mean(found, axis=0)
    return {
        "effect": effect,
        "excess": effect - null,
        "ceiling": ceiling,
        "share": effect / ceiling,
    }


@dataclass(frozen=True)
class Rates:
    """How often each interval covered its truth, and how often the effect was called gone too early."""

    num_pairs: int
    studies: int
    rates: Mapping[str, float]


def measure_rates(num_pairs: int, studies: int) -> Rates:
    """Judge so many studies of so many seeds."""
    rng, true = generator("logit world", num_pairs), truths()
    counted: dict[str, list[bool]] = {name: [] for name in (*COVERING, "gone too early")}
    for _ in range(studies):
        outcomes = xr.Dataset(
            {"logits": (("seed", "arm", "step", "input", "class"), draw_logits(num_pairs, rng))},
            coords={
                "seed": np.arange(num_pairs),
                "arm": [a["name"] for a in ARMS],
                "step": list(STEPS),
            },
            attrs={"arms": list(ARMS), "fork_at": 0},
        )
        effects = [e for e in all_effects(outcomes, ["tv"]) if e.arm == "treated"]
        for place, e in enumerate(effects):
            intervals = zip(COVERING, (e.estimate, e.excess, e.fraction, e.ceiling), strict=True)
            for name, interval in intervals:
                counted[name].append(interval is not None and interval.covers(true[name][place]))
        gone_by = washout(effects, float(true["share"][BORDER])).gone_by
        counted["gone too early"].append(gone_by is not None and gone_by <= STEPS[BORDER])
    rates = {name: sum(listed) / len(listed) for name, listed in counted.items()}
    return Rates(num_pairs, studies, rates)


def measure_all(scale: float = 1.0) -> list[Rates]:
    """Measure each number of pairs, on all cores."""
    studies = max(20, int(scale * STUDIES))
    asked = [(n, studies) for n in sorted(PAIRS, reverse=True)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(measure_rates, *zip(*asked, strict=True)))[::-1]


def section(
    measured: Iterable[Rates], table: Callable[[list[str], Iterable[list[str]]], str]
) -> str:
    """The part of docs/coverage.md about this world."""
    measured = list(measured)
    names = (*COVERING, "gone too early")
    rows = [[str(one.num_pairs), *(f"{100 * one.rates[n]:.1f}" for n in names)] for one in measured]
    studies = measured[0].studies
    # The steps of a study go together, so the error is that of one look a study: an upper bound.
    points = 100 * math.sqrt(0.95 * 0.05 / studies)
    return f"""## A classifier that forgets

`benchmarks/logit_world.py` shares nothing with the estimators: logits of {INPUTS} inputs in {CLASSES}
classes that differ between seeds, an effect of skewed size that decays by e in 20 steps, and its null. The
truths are means over 40,000 seeds. {studies:,} studies a row, {len(STEPS)} steps each; the Monte-Carlo
standard error is at most {points:.1f} points. Coverage of the default 95% intervals, and how often the effect
is called gone at or before the step at which it crosses the threshold (nominal 2.5):

{table(["pairs", *names], rows)}
"""
