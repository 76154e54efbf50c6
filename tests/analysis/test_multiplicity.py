"""Families: declared, kept at their size, printed; adjusted as the textbooks say."""

from __future__ import annotations

import gc
import json
from typing import Literal

import numpy as np
import pytest
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects
from bygones.analysis.estimators import Estimate, bootstrap_bca, paired_t, sign_flip
from bygones.analysis.multiplicity import Family, adjust, family_of, p_value
from bygones.core.errors import DesignError, UnknownName

METRICS_READ = ("tv", "nll", "accuracy")


@pytest.fixture(scope="module")
def effects() -> list[Effect]:
    return all_effects(make_outcomes(num_seeds=12), METRICS_READ)


def scored(p_values) -> list[Effect]:
    """Effects in accuracy, one horizon each, with these p-values."""
    return [
        Effect(
            arm="a", sentence="a", metric="accuracy", step=h, horizon=h,
            estimate=Estimate(0.1, 0.0, 0.2, 0.95, 8, "paired t", p_value=p),
            floor=None, null=None, excess=None, ceiling=None, fraction=None,
            num_diverged=0, pair_correlation=None, variance_ratio=None,
        )
        for h, p in enumerate(p_values)
    ]  # fmt: skip


# ------------------------------------------------------------------ the adjustments


def holm(p_values: list[float]) -> list[float]:
    """Written out once more."""
    m, order, running, adjusted = len(p_values), np.argsort(p_values), 0.0, [0.0] * len(p_values)
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


def benjamini_hochberg(p_values: list[float]) -> list[float]:
    m, order, running, adjusted = len(p_values), np.argsort(p_values), 1.0, [0.0] * len(p_values)
    for rank, place in reversed(list(enumerate(order))):
        running = min(running, m * p_values[place] / (rank + 1))
        adjusted[place] = running
    return adjusted


@pytest.mark.parametrize(("method", "by_hand"), [("holm", holm), ("bh", benjamini_hochberg)])
def test_adjusted_as_written_out(method, by_hand):
    p_values = np.random.default_rng(0).uniform(0, 0.2, size=9).tolist()
    found = scored(p_values)
    adjusted = adjust(found, family_of(found, method=method))
    assert [c.adjusted for c in adjusted.comparisons] == pytest.approx(by_hand(p_values))
    assert [c.p_value for c in adjusted.comparisons] == p_values
    assert [c.found for c in adjusted.comparisons] == [q <= 0.05 for q in by_hand(p_values)]


def false_findings(method: Literal["holm", "bh"] | None, seed: int) -> float:
    """How often 15 true nulls in one family give a finding, over 400 families."""
    rng, any_found = np.random.default_rng(seed), 0
    for _ in range(400):
        found = scored([paired_t(rng.normal(size=8)).p_value for _ in range(15)])
        if method is None:
            any_found += any((p_value(effect) or 0.0) <= 0.05 for effect in found)
        else:
            any_found += bool(adjust(found, family_of(found, method=method)).found)
    return any_found / 400


@pytest.fixture
def quick_collections():
    """statsmodels collects garbage at every adjustment: what is there already is left out of that."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_collections")
def test_holm_keeps_its_promise_and_no_adjustment_does_not():
    assert false_findings("holm", seed=1) <= 0.085
    assert false_findings("bh", seed=1) <= 0.085
    assert false_findings(None, seed=1) > 0.4


# ------------------------------------------------------------------ the family


def test_a_family_keeps_its_size(effects):
    family = Family("main", ("reset-moments", "swap-order"), ("tv",), (160, 300))
    adjusted = adjust(effects, family)
    assert family.size == len(adjusted.comparisons) == 4
    # Twice as many comparisons, the same p-values, larger ones after adjusting.
    more = adjust(
        effects, Family("more", ("reset-moments", "swap-order"), METRICS_READ, (160, 300))
    )
    for one, other in zip(adjusted.comparisons, more.comparisons[:2], strict=False):
        assert one.p_value == other.p_value
        assert one.adjusted is not None
        assert other.adjusted is not None
        assert one.adjusted <= other.adjusted


def test_what_cannot_be_tested_still_counts():
    three, all_four = scored([0.01, 0.02, 0.015]), scored([0.01, 0.02, 0.015, None])
    assert all(c.found for c in adjust(three, family_of(three)).comparisons)
    adjusted = adjust(all_four, family_of(all_four))
    assert [c.adjusted for c in adjusted.comparisons] == [pytest.approx(0.04), 0.045, 0.045, None]
    assert not adjusted.comparisons[3].found
    assert "1 without a p-value count as not found" in str(adjusted)
    assert str(adjusted.comparisons[3]).endswith("no p-value (paired t has none)")


def test_the_statement_names_the_whole_family(effects):
    adjusted = adjust(effects, Family("main", ("reset-moments", "swap-order"), ("tv",), (160, 300)))
    assert str(adjusted) == (
        "2 of 4 found in family 'main': 2 arms × 1 metric × 2 horizons = 4 comparisons "
        "(reset-moments, swap-order; tv; 160, 300 steps on), Holm: the chance of even one false "
        "finding is at most 5%."
    )
    assert {c.arm for c in adjusted.found} == {"reset-moments"}
    assert "expected share of false findings" in str(
        adjust(effects, family_of(effects, method="bh"))
    )
    json.dumps(adjusted.rows(), allow_nan=False)


def test_the_family_of_everything(effects):
    family = family_of(effects)
    assert family.size == len(effects)
    assert family.metrics == METRICS_READ


# ------------------------------------------------------------------ which p-value


def test_a_distance_is_judged_by_its_excess_and_a_score_by_itself(effects):
    for effect in effects:
        judged = effect.excess if effect.metric == "tv" else effect.estimate
        rounding = effect.is_within_resolution(judged)  # BatchNorm's, long after the reset
        assert p_value(effect) == (None if rounding else judged.p_value)
    # An arm that only does what its null does moves the function, and is no finding.
    swap = next(e for e in effects if (e.arm, e.metric, e.horizon) == ("swap-order", "tv", 300))
    assert swap.estimate.p_value < 1e-6
    assert (p_value(swap) or 0.0) > 0.05


def test_degenerate_effects_have_a_reason_instead_of_a_number():
    outcomes = make_outcomes(num_seeds=12)
    without = outcomes.isel(arm=[0, 1, 2]).assign_attrs(arms=outcomes.attrs["arms"][:3])
    found = all_effects(without, ["tv"], steps=[600])
    adjusted = adjust(found, family_of(found))
    assert adjusted.comparisons[0].p_value is None
    assert adjusted.comparisons[0].note == "no matched null was run"

    one_seed = all_effects(outcomes.isel(seed=[0]), ["nll"], steps=[600])
    assert "fewer than 2" in adjust(one_seed, family_of(one_seed)).comparisons[0].note

    by_bca = all_effects(outcomes, ["nll"], bootstrap_bca, steps=[600])
    assert adjust(by_bca, family_of(by_bca)).comparisons[0].note == "BCa bootstrap has none"

    # Nothing moved at the fork: p = 1 and no NaN.
    still = [e for e in all_effects(outcomes, ["nll"], steps=[300]) if e.arm == "reset-moments"]
    assert adjust(still, family_of(still)).comparisons[0].adjusted == 1.0


def test_any_estimator_with_a_p_value_will_do():
    found = all_effects(make_outcomes(num_seeds=12), ["tv"], sign_flip, steps=[460])
    assert p_value(found[0]) == 2 / 2**12


# ------------------------------------------------------------------ mistakes


def test_names_that_are_not_there_are_answered(effects):
    with pytest.raises(UnknownName, match="did you mean 'reset-moments'"):
        adjust(effects, Family("main", ("reset-moment",), ("tv",), (300,)))
    with pytest.raises(UnknownName, match="no horizon among these effects called '7'"):
        adjust(effects, Family("main", ("reset-moments",), ("tv",), (7,)))
    with pytest.raises(DesignError, match="there is no such effect"):
        adjust(
            [e for e in effects if (e.metric, e.horizon) in (("tv", 1), ("nll", 0))],
            Family("main", ("reset-moments",), ("tv", "nll"), (0,)),
        )


@pytest.mark.parametrize("wrong", [{"arms": ()}, {"metrics": ("tv", "tv")}, {"horizons": ()}])
def test_a_family_that_is_none(wrong):
    with pytest.raises(DesignError, match="each once"):
        Family("main", **({"arms": ("a",), "metrics": ("tv",), "horizons": (1,)} | wrong))


def test_an_unknown_adjustment():
    with pytest.raises(UnknownName, match="did you mean 'holm'"):
        Family("main", ("a",), ("tv",), (1,), method="holmes")  # pyright: ignore[reportArgumentType]
