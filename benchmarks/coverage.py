"""Coverage of the intervals and error rates of the tests, measured on simulated studies.

    python -m benchmarks.coverage

writes docs/coverage.md and src/bygones/analysis/coverage.json, in about ten minutes on two cores.
Every number comes from the public functions; whole studies are made up in `benchmarks/made_up_studies.py`.
Equal seeds give equal tables. `--studies 0.05` does a twentieth of the work, `--dry` writes nothing.

Shapes: S studies, R seed pairs, K repeats.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks import logit_world
from benchmarks.made_up_studies import BAND, PAIRS, measure_cells, section
from scipy import special

from bygones.analysis.equivalence import tost
from bygones.analysis.estimators import ESTIMATORS, Estimate, half_width_in_spreads
from bygones.analysis.meta_analysis import pool
from bygones.analysis.power import detectable_effect, pairs_for_half_width, power
from bygones.analysis.statsmodels_bridge import adjusted
from bygones.core.keyed_rng import generator

ROOT = Path(__file__).parent.parent
REPEATS = 4
ALL = 5_000

# Studies a cell, and settings, of the default, and of those that cost more than a tenth of a millisecond.
STUDIES = {
    "by_skewness": 10_000,
    "bootstrap_bca": 500,
    "bootstrap_t": 500,
    "hierarchical_bootstrap": 500,
    "sign_flip": 2_000,
    "jackknife": 2_000,
}
SETTINGS = {
    "bootstrap_bca": {"num_resamples": 999},
    "bootstrap_t": {"num_resamples": 999},
    "hierarchical_bootstrap": {"num_resamples": 999},
    "sign_flip": {"num_flips": 1_999},
}


# ------------------------------------------------------------------ kinds of pairs


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape)


def folded(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """|z| less its mean: skewness 1.0."""
    return np.abs(rng.standard_normal(shape)) - math.sqrt(2.0 / math.pi)


def mildly_lognormal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """exp(z/2) less its mean: skewness 1.8."""
    return np.exp(0.5 * rng.standard_normal(shape)) - math.exp(0.125)


def lognormal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """exp(z) less its mean: skewness 6.2."""
    return np.exp(rng.standard_normal(shape)) - math.exp(0.5)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t with 3 degrees of freedom: no fourth moment."""
    return rng.standard_t(3, size=shape)


def clustered(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Four repeats a seed, half of the variance between seeds: (S, R, K)."""
    between = rng.standard_normal((*shape, 1))
    return between + rng.standard_normal((*shape, REPEATS))


KINDS = {
    "normal": normal,
    "t3": heavy_tailed,
    "folded normal": folded,
    "lognormal 0.5": mildly_lognormal,
    "lognormal 1": lognormal,
    "clustered": clustered,
}


def truth(name: str, kind: str) -> float:
    """What the estimator estimates: a mean, trimmed mean or median of the kind. All 0 if symmetric."""
    if kind in ("normal", "t3", "clustered") or name not in ("trimmed", "median"):
        return 0.0
    if kind == "folded normal":
        median, mean = special.ndtri(0.75), math.sqrt(2.0 / math.pi)
        low, high = special.ndtri(0.6), special.ndtri(0.9)  # the 20% and the 80% point of |z|
        middle = mean * (math.exp(-0.5 * low**2) - math.exp(-0.5 * high**2)) / 0.6
    else:
        sigma = float(kind.split()[1])
        median, mean = 1.0, math.exp(0.5 * sigma**2)
        z = float(special.ndtri(0.8))
        middle = mean * (special.ndtr(z - sigma) - special.ndtr(-z - sigma)) / 0.6
    return float(median if name == "median" else middle) - mean


# ------------------------------------------------------------------ wrong on purpose


def _interval(study: np.ndarray, quantile: float, error: float) -> Estimate:
    mean, half = float(study.mean()), quantile * error
    return Estimate(mean, mean - half, mean + half, 0.95, study.size, "wrong on purpose")


def normal_quantile(study: np.ndarray) -> Estimate:
    """1.96 instead of Student's t."""
    return _interval(study, 1.959964, study.std(ddof=1) / math.sqrt(study.size))


def repeats_as_seeds(study: np.ndarray) -> Estimate:
    """Student's t over all repeats, as if each were a seed."""
    return ESTIMATORS["paired_t"](study.ravel())


# ------------------------------------------------------------------ the measurements


def fed(name: str, study: np.ndarray) -> np.ndarray:
    """Repeats go to those that take them; the others get the seeds' averages, as effects do."""
    return study if study.ndim == 1 or name.startswith("hierarchical") else study.mean(axis=1)


def measure_estimators(scale: float) -> dict:
    """Coverage, the share of p-values at most 0.05 under a true null, share without bounds, length."""
    names = list(ESTIMATORS)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(partial(_measure_estimator, scale), names), strict=True))


def _measure_estimator(scale: float, name: str) -> dict:
    studies = max(20, int(scale * STUDIES.get(name, ALL)))
    keys = ("coverage", "type_one", "unbounded", "length")
    entry: dict = {"studies": studies, **{key: {kind: {} for kind in KINDS} for key in keys}}
    settings = SETTINGS.get(name, {})
    seeded = "num_resamples" in settings or "num_flips" in settings
    for kind, draw in KINDS.items():
        for num_pairs in PAIRS:
            rng = generator("coverage", name, kind, num_pairs)
            simulated = draw(rng, (studies, num_pairs)) - truth(name, kind)
            estimates = [
                ESTIMATORS[name](fed(name, study), **settings, **({"seed": s} if seeded else {}))
                for s, study in enumerate(simulated)
            ]
            entry["method"] = estimates[0].method
            lengths = [e.high - e.low for e in estimates]
            entry["coverage"][kind][num_pairs] = share(e.covers(0.0) for e in estimates)
            entry["unbounded"][kind][num_pairs] = share(not math.isfinite(x) for x in lengths)
            tested = [rejects(e) for e in estimates if e.p_value is not None]
            entry["type_one"][kind][num_pairs] = share(tested)
            student = [
                ESTIMATORS["paired_t"](fed("paired_t", study)) for study in simulated[:1_000]
            ]
            entry["length"][kind][num_pairs] = float(
                np.mean([x / (t.high - t.low) for x, t in zip(lengths, student, strict=False)])
            )
    if name == "by_skewness":
        entry["method"] = "t by skewness"
    return entry


def measure_wrong(scale: float) -> list[tuple[str, str, list[float]]]:
    rows = []
    for label, estimator, kind in (
        ("1.96 instead of t", normal_quantile, "normal"),
        ("repeats taken for seeds", repeats_as_seeds, "clustered"),
    ):
        shares = []
        for num_pairs in PAIRS:
            rng = generator("coverage", label, num_pairs)
            simulated = KINDS[kind](rng, (int(scale * ALL), num_pairs))
            shares.append(share(estimator(study).covers(0.0) for study in simulated))
        rows.append((label, kind, shares))
    return rows


LOOKS = 500


def measure_looking(scale: float) -> list[tuple[str, str, float]]:
    """The share of runs, looked at after every pair from 2 to 500, whose interval *ever* missed."""
    widths = np.array([half_width_in_spreads(n) for n in range(2, LOOKS + 1)])
    # With the spread's n − 1 below the line, as `paired_t` has it.
    fixed = np.array([special.stdtrit(n - 1, 0.975) / math.sqrt(n) for n in range(2, LOOKS + 1)])
    rows = []
    for kind in ("normal", "lognormal 1", "t3"):
        rng = generator("coverage", "looking", kind)
        pairs = KINDS[kind](rng, (int(scale * ALL), LOOKS))
        n = np.arange(1, LOOKS + 1)
        means = np.cumsum(pairs, axis=1) / n
        spread = np.sqrt(np.maximum(np.cumsum(pairs**2, axis=1) / n - means**2, 0.0))
        means, spread, n = means[:, 1:], spread[:, 1:], n[1:]
        _same_as_the_library(pairs[0], means[0] - widths * spread[0])
        ever = np.any(np.abs(means) > widths * spread, axis=1).mean()
        rows.append(("confidence_sequence", kind, float(ever)))
        peeking = np.any(np.abs(means) > fixed * spread * np.sqrt(n / (n - 1.0)), axis=1).mean()
        rows.append(("paired_t, looked at all the same", kind, float(peeking)))
    return rows


def _same_as_the_library(pairs: np.ndarray, low: np.ndarray) -> None:
    """The one place with arithmetic of its own is held against the estimator at every n."""
    said = [ESTIMATORS["confidence_sequence"](pairs[:n]).low for n in range(2, LOOKS + 1)]
    np.testing.assert_allclose(low, said, rtol=1e-7)


def measure_families(scale: float) -> list[tuple[str, str, float, int]]:
    """Holm's chance of any false finding, and Benjamini–Hochberg's share of false findings."""
    studies, num_pairs, num_tests = max(50, int(scale * 3_000)), 16, 20
    t, rows = ESTIMATORS["paired_t"], []
    for label, correlation in (("independent", 0.0), ("correlated 0.8", 0.8)):
        rng = generator("coverage", "families", label)
        any_none, any_plain, any_holm, discovered = [], [], [], []
        for _ in range(studies):
            noise = math.sqrt(1.0 - correlation) * rng.standard_normal((num_tests, num_pairs))
            noise = noise + math.sqrt(correlation) * rng.standard_normal(num_pairs)
            p_values = np.array([t(pairs).p_value for pairs in noise])
            any_plain.append(p_values.min() <= 0.05)
            any_holm.append(adjusted(p_values, "holm").min() <= 0.05)
            any_none.append(adjusted(p_values, "bh").min() <= 0.05)
            half = num_tests // 2
            moved = np.array([t(pairs + 1.0).p_value for pairs in noise[:half]])
            kept = adjusted(np.concatenate([moved, p_values[half:]]), "bh") <= 0.05
            discovered.append(kept[half:].sum() / max(1, kept.sum()))
        rows += [
            (f"{num_tests} nulls, {label}: any false finding, unadjusted", "",
             float(np.mean(any_plain)), studies),
            (f"{num_tests} nulls, {label}: any false finding, Holm", "≤ 5%",
             float(np.mean(any_holm)), studies),
            (f"{num_tests} nulls, {label}: any false finding, Benjamini–Hochberg", "≤ 5%",
             float(np.mean(any_none)), studies),
            (f"10 nulls among 20, {label}: share of false findings, Benjamini–Hochberg", "≤ 2.5%",
             float(np.mean(discovered)), studies),
        ]  # fmt: skip
    return rows


def measure_equivalence(scale: float) -> list[tuple[str, int, float, float, int]]:
    """TOST at a true effect of exactly the margin (an error), and of 0 (a finding)."""
    studies, rows = max(50, int(scale * 4_000)), []
    for num_pairs in PAIRS:
        rng = generator("coverage", "equivalence", num_pairs)
        noise = rng.standard_normal((studies, num_pairs))
        wrong = share(tost(pairs + 1.0, 1.0).equivalent for pairs in noise)
        right = share(tost(pairs, 1.0).equivalent for pairs in noise)
        rows.append((num_pairs, wrong, right, tost_power(num_pairs, 1.0), studies))
    return rows


def tost_power(num_pairs: int, margin: float) -> float:
    """Power of TOST at a true effect of 0, spread 1: mean and spread of a sample are independent.

    P(|mean| ≤ margin − t s/√n) = E over s of [2 Φ(√n · margin − t s) − 1]⁺
    """
    degrees = num_pairs - 1
    ranks = (np.arange(200_000) + 0.5) / 200_000
    spread = np.sqrt(special.chdtri(degrees, ranks) / degrees)
    reach = math.sqrt(num_pairs) * margin - special.stdtrit(degrees, 0.95) * spread
    return float(np.mean(np.maximum(0.0, 2.0 * special.ndtr(reach) - 1.0)))


def measure_power(scale: float) -> list[tuple[int, float, float, float, int]]:
    studies, rows = int(scale * ALL), []
    for num_pairs in PAIRS:
        for effect in (0.5, 1.0, detectable_effect(num_pairs, 1.0)):
            rng = generator("coverage", "power", num_pairs, f"{effect:.6f}")
            pairs = effect + rng.standard_normal((studies, num_pairs))
            told = share(rejects(ESTIMATORS["paired_t"](study)) for study in pairs)
            rows.append((num_pairs, effect, told, power(num_pairs, effect, 1.0), studies))
    return rows


def measure_half_widths(scale: float) -> list[tuple[float, float | None, int, float, int]]:
    studies, rows = max(50, int(scale * 4_000)), []
    for target in (0.25, 0.5, 1.0):
        for assurance in (None, 0.8):
            num_pairs = pairs_for_half_width(target, 1.0, assurance=assurance)
            rng = generator("coverage", "half-width", f"{target} {assurance}")
            found = [ESTIMATORS["paired_t"](s) for s in rng.standard_normal((studies, num_pairs))]
            narrow = share(0.5 * (e.high - e.low) <= target for e in found)
            rows.append((target, assurance, num_pairs, narrow, studies))
    return rows


def measure_pooling(scale: float) -> list[tuple[int, float, float, float, int]]:
    """Studies of 8 pairs with error 1, effects spread by τ: pooled mean covered, next study covered."""
    studies, rows = max(50, int(scale * 2_000)), []
    for num_pooled in (3, 5, 10):
        for tau in (0.0, 1.0, 3.0):
            rng = generator("coverage", "pooling", num_pooled, f"{tau}")
            mean, further = [], []
            for _ in range(studies):
                effects = tau * rng.standard_normal(num_pooled)
                pairs = effects[:, None] + math.sqrt(8) * rng.standard_normal((num_pooled, 8))
                found = pool({str(i): ESTIMATORS["paired_t"](p) for i, p in enumerate(pairs)})
                mean.append(found.estimate.covers(0.0))
                another = tau * rng.standard_normal()
                further.append(found.predicted_low <= another <= found.predicted_high)
            rows.append((num_pooled, tau, share(mean), share(further), studies))
    return rows


def rejects(estimate: Estimate) -> bool:
    return estimate.p_value is not None and estimate.p_value <= 0.05


def share(happened: Iterable[bool]) -> float:
    listed = list(happened)
    return sum(map(bool, listed)) / len(listed) if listed else math.nan


# ------------------------------------------------------------------ the page


def percent(number: float) -> str:
    return "–" if math.isnan(number) else f"{100 * number:.1f}"


def error(number: float, studies: int) -> str:
    """Monte-Carlo standard error of a share, in points."""
    return f"{100 * math.sqrt(number * (1 - number) / studies):.1f}"


def table(columns: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def by_pairs(found: dict, key: str) -> str:
    columns = ["estimator", *KINDS, "studies"]
    rows = []
    for name, entry in found.items():
        cells = [[entry[key][kind][n] for n in PAIRS] for kind in KINDS]
        if not all(math.isnan(number) for cell in cells for number in cell):
            written = [" / ".join(map(percent, cell)) for cell in cells]
            rows.append([f"`{name}`", *written, f"{entry['studies']:,}"])
    return table(columns, rows)


def lengths(entry: dict, kind: str) -> str:
    return " / ".join(f"{entry['length'][kind][n]:.2f}" for n in PAIRS)


def default_words(found: dict) -> str:
    """What the default's coverage is at 8 pairs and more, and where it is outside what was asked."""
    rows = found["by_skewness"]["coverage"]
    named = {f"{k}, {n} pairs": rows[k][n] for k in rows for n in PAIRS if n >= 8}
    outside = [name for name, rate in named.items() if not BAND[0] <= rate <= BAND[1]]
    low, high = 100 * min(named.values()), 100 * max(named.values())
    said = f"covers {low:.1f} to {high:.1f} at 8 pairs and more"
    return f"{said}; outside 93 to 97: {', '.join(outside)}." if outside else f"{said}."


def page(scale: float, found: dict) -> str:
    seconds = partial(_timed, time.perf_counter())
    wrong, looking = measure_wrong(scale), measure_looking(scale)
    families, tost = measure_families(scale), measure_equivalence(scale)
    cells, forgetting = measure_cells(scale), logit_world.measure_all(scale)
    powers, widths, pooling = (
        measure_power(scale),
        measure_half_widths(scale),
        measure_pooling(scale),
    )
    seconds()
    unbounded = [
        [
            f"`{name}`",
            *(" / ".join(percent(entry["unbounded"][k][n]) for n in PAIRS) for k in KINDS),
        ]
        for name, entry in found.items()
        if any(entry["unbounded"][kind][n] > 0.0 for kind in KINDS for n in PAIRS)
    ]
    return f"""# How the intervals and tests behave

Written by `make coverage`, which calls the public functions on simulated pairs and studies; not edited by
hand. Numbers are percent of studies. Their Monte-Carlo standard error at 95% is 0.2 points with 10,000
studies, 0.3 with 5,000, 0.5 with 2,000 and 1.0 with 500; the bootstraps have 999 resamples here, and the
sign-flip test 1,999 flips at 32 pairs.

Pairs are *normal*; *t3*: Student's t with 3 degrees of freedom; *folded normal*: |z| (skewness 1.0);
*lognormal 0.5* and *1*: exp(z/2) and exp(z) (1.8 and 6.2), each less its mean; *clustered*: {
        REPEATS
    } repeats a seed, half of the variance between seeds. Clustered pairs
go to `hierarchical` and `hierarchical_bootstrap` as they are and to the others as averages over each seed's
repeats. The truth is the mean, for `trimmed` the trimmed mean and for `median` the median of the kind.
The five numbers of a cell are for 3 / 5 / 8 / 16 / 32 pairs.

{section(cells, table)}
{logit_world.section(forgetting, table)}
## Coverage of nominal 95% intervals

{by_pairs(found, "coverage")}

What to read off it. `by_skewness`, the default for effects, {default_words(found)}

`paired_t` is exact on normal pairs at any number, careful on heavy tails, and short on skewed ones, as
every interval for a mean is that does not pay for it in width; so is `jackknife` without another interval.
`bootstrap_bca` and `hierarchical_bootstrap` (with one repeat, the percentile bootstrap) are short at few
pairs of any kind. `sign_flip` and `median` cover in the steps that counting allows, never less than asked
where they assume rightly (symmetry; nothing). `confidence_sequence` covers more than 95% at any one number
of pairs, since it has to hold at all of them together.

What the default pays, as the average length of its intervals over Student's:

{
        table(
            ["interval", *KINDS],
            [["`by_skewness`", *(lengths(found["by_skewness"], kind) for kind in KINDS)]],
        )
    }

Some intervals are unbounded at few pairs, and cover because of that (percent of studies):

{table(["estimator", *KINDS], unbounded)}

## The same harness on estimators that are wrong on purpose

{
        table(
            ["mistake", "kind", *(f"{n} pairs" for n in PAIRS)],
            [[label, kind, *map(percent, shares)] for label, kind, shares in wrong],
        )
    }

## Type-I error of the tests at 5%

How often p ≤ 0.05 where the truth is 0. `bootstrap_bca` has no p-value.

{by_pairs(found, "type_one")}

## Looking after every pair

The share of {int(scale * ALL):,} runs, looked at after each of 2 to {
        LOOKS
    } pairs, whose 95% interval
missed the truth *at least once*. This is what a stopping rule may run into.

{table(["interval", "kind", "ever missed"], [[a, b, percent(c)] for a, b, c in looking])}

On normal pairs the promise is at most 5. Skewed pairs break the assumption and with it the promise: before
stopping early on a distance, look at how its pairs are spread.

## Families of tests

16 pairs a test, normal, by Student's t; findings at an adjusted 5%.

{
        table(
            ["family", "promise", "measured", "±"],
            [[a, b, percent(c), error(c, n)] for a, b, c, n in families],
        )
    }

## Equivalence (TOST) of scores, margin 1 standard deviation, alpha 5%

{
        table(
            [
                "pairs",
                "called equivalent at the margin (≤ 5)",
                "called equivalent at 0",
                "closed form",
                "studies",
            ],
            [[str(n), percent(a), percent(b), percent(c), f"{s:,}"] for n, a, b, c, s in tost],
        )
    }

The closed form is the average over the sample's spread of P(|mean| ≤ margin − t·s/√n).

## Power of the paired t test against the closed form

{
        table(
            ["pairs", "effect / σ", "measured", "noncentral t", "±"],
            [[str(n), f"{e:.3f}", percent(a), percent(b), error(a, s)] for n, e, a, b, s in powers],
        )
    }

The third effect of each is the `detectable_effect` at power 80%.

## Planned half-widths

{
        table(
            ["half-width / σ", "assurance", "pairs planned", "as narrow as that", "studies"],
            [
                [f"{t:g}", "none" if a is None else f"{100 * a:g}%", str(n), percent(x), f"{s:,}"]
                for t, a, n, x, s in widths
            ],
        )
    }

## Pooling studies of 8 pairs each (standard error 1, spread τ between settings)

{
        table(
            ["studies pooled", "τ", "mean covered", "a further study covered", "simulated"],
            [[str(k), f"{t:g}", percent(a), percent(b), f"{s:,}"] for k, t, a, b, s in pooling],
        )
    }
"""


def _timed(began: float) -> None:
    print(f"tests, power and pooling: {time.perf_counter() - began:.0f} s")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument(
        "--studies", type=float, default=1.0, help="share of the studies to simulate"
    )
    options.add_argument("--dry", action="store_true", help="print the page and write nothing")
    asked = options.parse_args()
    began = time.perf_counter()
    found = measure_estimators(asked.studies)
    print(f"estimators: {time.perf_counter() - began:.0f} s")
    text = page(asked.studies, found)
    if asked.dry:
        print(text)
        return
    (ROOT / "docs" / "coverage.md").write_text(text, encoding="utf-8")
    kept = {
        name: {
            "method": entry["method"],
            "studies": entry["studies"],
            "coverage": entry["coverage"],
        }
        for name, entry in found.items()
    }
    written = json.dumps({"level": 0.95, "estimators": kept}, indent=1, ensure_ascii=False)
    (ROOT / "src" / "bygones" / "analysis" / "coverage.json").write_text(
        written + "\n", encoding="utf-8"
    )
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
