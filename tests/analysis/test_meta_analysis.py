"""Several studies as one: against the formulas, against simulation, and where it cannot be done."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from bygones.analysis.estimators import Estimate, paired_t
from bygones.analysis.meta_analysis import pool
from bygones.core.errors import DesignError

RNG = np.random.default_rng(0)
STUDIES = {f"study {i}": paired_t(RNG.normal(RNG.normal(1.0, 0.5), 1.0, size=12)) for i in range(5)}


def errors(estimates) -> np.ndarray:
    halves = np.array([0.5 * (e.high - e.low) for e in estimates])
    return halves / stats.t.ppf(0.975, [e.num_pairs - 1 for e in estimates])


def test_standard_errors_are_those_of_the_studies():
    pairs = np.random.default_rng(1).normal(size=9)
    (one, _) = pool({"a": paired_t(pairs, level=0.9), "b": STUDIES["study 0"]}).contributions
    assert one.error == pytest.approx(pairs.std(ddof=1) / 3)


def test_pooled_as_written_out():
    """Paule and Mandel's τ² solves Σ w (y - ȳ)² = k - 1; everything else follows."""
    y = np.array([e.value for e in STUDIES.values()])
    v = errors(STUDIES.values()) ** 2

    def excess(tau2):
        w = 1 / (v + tau2)
        return np.sum(w * (y - np.sum(w * y) / w.sum()) ** 2) - (y.size - 1)

    tau2: Any = optimize.brentq(excess, 0.0, 10.0)
    w = 1 / (v + tau2)
    mean, error = np.sum(w * y) / w.sum(), math.sqrt(1 / w.sum())
    found = pool(STUDIES)
    assert found.tau == pytest.approx(math.sqrt(tau2), rel=1e-4)
    assert found.estimate.value == pytest.approx(mean, rel=1e-4)
    assert found.estimate.high == pytest.approx(mean + stats.t.ppf(0.975, 4) * error, rel=1e-4)
    further = mean + stats.t.ppf(0.975, 3) * math.sqrt(tau2 + error**2)
    assert found.predicted_high == pytest.approx(further, rel=1e-4)
    fixed = 1 / v
    q = np.sum(fixed * (y - np.sum(fixed * y) / fixed.sum()) ** 2)
    assert found.q == pytest.approx(q)
    assert found.q_p_value == pytest.approx(stats.chi2.sf(q, 4))
    assert found.i_squared == pytest.approx(1 - 4 / q)
    assert [c.weight for c in found.contributions] == pytest.approx(
        (w / w.sum()).tolist(), rel=1e-4
    )


def simulated(num_studies: int, tau: float, rng) -> dict[str, Estimate]:
    effects = tau * rng.standard_normal(num_studies)
    pairs = effects[:, None] + math.sqrt(8) * rng.standard_normal((num_studies, 8))
    return {str(i): paired_t(row) for i, row in enumerate(pairs)}


@pytest.mark.parametrize("tau", [0.5, 3.0])
def test_pooled_and_predicted_intervals_cover(tau):
    rng, mean, further, fixed = np.random.default_rng(2), [], [], []
    for _ in range(500):
        studies = simulated(6, tau, rng)
        found = pool(studies)
        mean.append(found.estimate.covers(0.0))
        further.append(found.predicted_low <= tau * rng.standard_normal() <= found.predicted_high)
        w = errors(studies.values()) ** -2
        middle = np.sum(w * [e.value for e in studies.values()]) / w.sum()
        fixed.append(abs(middle) <= 1.96 / math.sqrt(w.sum()))
    assert 0.915 <= np.mean(mean) <= 0.985
    assert 0.90 <= np.mean(further) <= 0.985
    if tau > 1.0:  # studies taken for repetitions of one: the mistake random effects are for
        assert np.mean(fixed) < 0.7


def test_units_do_not_matter():
    plain, tiny = pool(STUDIES), pool({n: e.scaled(1e-9) for n, e in STUDIES.items()})
    assert tiny.tau == pytest.approx(1e-9 * plain.tau)
    assert tiny.estimate.low == pytest.approx(1e-9 * plain.estimate.low)
    assert tiny.i_squared == pytest.approx(plain.i_squared)


def test_studies_that_agree_have_nothing_between_them():
    same = paired_t([0.9, 1.1, 1.0, 1.2])
    found = pool({"a": same, "b": same, "c": same})
    assert (found.tau, found.i_squared, found.q_p_value) == (0.0, 0.0, 1.0)
    assert found.estimate.value == pytest.approx(1.05)
    assert math.isfinite(found.predicted_high)


def test_a_study_that_cannot_be_weighed_is_named():
    found = pool(
        STUDIES
        | {
            "one pair": paired_t([0.3]),
            "a sham": paired_t(np.zeros(8)),
            "unbounded": Estimate(1.0, -math.inf, math.inf, 0.95, 4, "sign-flip test"),
        }
    )
    assert found.estimate.value == pool(STUDIES).estimate.value
    assert (found.estimate.num_pairs, found.estimate.num_dropped) == (5, 3)
    assert "left out: one pair, a sham, unbounded" in str(found)
    assert [c.note for c in found.contributions[5:]] == [
        "no finite interval",
        "an interval of no width",
        "no finite interval",
    ]


def test_two_studies_one_and_none():
    two = pool(dict(list(STUDIES.items())[:2]))
    assert "two studies cannot say where a third would lie" in str(two)
    assert (two.predicted_low, two.predicted_high) == (-math.inf, math.inf)
    alone = pool({"digits": STUDIES["study 0"]}, "share")
    assert alone.estimate.high == STUDIES["study 0"].high
    assert str(alone).startswith("share: 1 study to pool")
    nothing = pool({"sham": paired_t(np.zeros(4))})
    assert math.isnan(nothing.estimate.value)
    assert "no study has an interval" in nothing.estimate.note
    assert "no studies to pool" in str(nothing)
    with pytest.raises(DesignError, match="no study"):
        pool({})
    for found in (two, alone, nothing):
        json.dumps(found.to_dict(), allow_nan=False)
        json.dumps(found.rows(), allow_nan=False)


def test_the_table_has_every_study_the_pool_and_the_prediction():
    rows = pool(STUDIES).rows()
    assert [row["study"] for row in rows] == [*STUDIES, "pooled", "a further study"]
    assert sum(row["weight"] for row in rows[:5]) == pytest.approx(1.0)
    assert rows[6]["low"] < rows[5]["low"] < rows[5]["high"] < rows[6]["high"]
    assert len({tuple(row) for row in rows}) == 1
