"""Effects against planted sizes, hand computations, and the sentences they print."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.special import softmax
from tests.helpers.synthetic import BATCHNORM_FOLD, FORK_AT, STEPS, make_outcomes, planted

from bygones.analysis.effect import Effect, Washout
from bygones.analysis.effects import all_effects, effect, per_seed, washout
from bygones.analysis.estimators import Estimate, by_skewness, jackknife, paired_t
from bygones.analysis.metrics import DISTANCES, METRICS, SCORES
from bygones.analysis.predictions import probabilities
from bygones.core.errors import DesignError, UnknownName

TREATED = ["reset-moments", "reset-batchnorm", "swap-order"]
ON_LOGITS = [name for name, metric in METRICS.items() if metric.input_kind != "values"]


@pytest.fixture(scope="module")
def outcomes() -> xr.Dataset:
    return make_outcomes()


@pytest.fixture(scope="module")
def values() -> xr.Dataset:
    return make_outcomes(kind="values")


# ------------------------------------------------------------------ planted sizes come back


@pytest.mark.parametrize("arm", TREATED)
def test_planted_sizes_come_back_seed_by_seed(arm, outcomes, values):
    exact = per_seed(values, "rms", arm)
    assert exact.dims == ("seed", "step")
    assert np.allclose(exact, planted(arm), rtol=1e-12, atol=1e-15)
    stored_in_float32 = per_seed(outcomes, "logit_rms", arm)
    assert np.allclose(stored_in_float32, planted(arm), rtol=1e-4, atol=3e-7)


@pytest.mark.parametrize("arm", TREATED)
@pytest.mark.parametrize("step", STEPS)
def test_the_estimates_are_those_of_the_planted_sizes(arm, step, values):
    at = STEPS.index(step)
    moved, kicked = planted(arm)[:, at], planted(f"{arm}-null")[:, at]
    found = effect(values, arm, step, "rms")
    assert found.horizon == step - FORK_AT
    for estimate, numbers in (
        (found.estimate, moved),
        (found.null, kicked),
        (found.excess, moved - kicked),
    ):
        right = paired_t(numbers)
        assert estimate is not None
        assert estimate.value == pytest.approx(right.value, rel=1e-9, abs=1e-15)
        assert estimate.low == pytest.approx(right.low, rel=1e-9, abs=1e-15)
        assert estimate.num_pairs == 8


def test_a_planted_decay_comes_back():
    # BatchNorm at momentum 0.1: the effect shrinks to 1/e in 9.49 steps.
    values = make_outcomes(kind="values", steps=(300, 310, 320, 330))
    sizes = [effect(values, "reset-batchnorm", step, "rms").estimate.value for step in (310, 330)]
    assert -20.0 / math.log(sizes[1] / sizes[0]) == pytest.approx(BATCHNORM_FOLD, rel=1e-9)


def test_the_planted_interval_covers_what_was_planted():
    # 200 made-up studies of 8 seeds: the mean size is exp(0.1²/2) times the shape.
    steps, covered = (460,), 0
    for seed in range(200):
        study = make_outcomes(num_inputs=4, num_classes=2, seed=seed, kind="values", steps=steps)
        truth = 0.15 * math.exp(-160 / 400) * math.exp(0.005)
        covered += effect(study, "reset-moments", 460, "rms").estimate.covers(truth)
    assert 0.91 <= covered / 200 <= 0.985


# ------------------------------------------------------------------ floor, null, ceiling


@pytest.mark.parametrize("metric", ON_LOGITS)
def test_the_sham_is_exactly_zero(metric, outcomes):
    assert np.array_equal(per_seed(outcomes, metric, "sham"), np.zeros((8, len(STEPS))))
    for found in all_effects(outcomes, [metric]):
        assert found.floor is not None
        assert (found.floor.value, found.floor.low, found.floor.high) == (0.0, 0.0, 0.0)


def test_a_sham_that_moved_is_not_hidden(outcomes):
    leaky = outcomes.copy(deep=True)
    leaky["logits"].loc[{"arm": "sham", "step": 600, "seed": 3}] += np.float32(1e-3) * np.arange(
        5, dtype=np.float32
    )
    found = effect(leaky, "reset-moments", 600)
    assert found.floor is not None
    assert found.floor.value > 0.0
    assert "exactly 0" not in str(found)
    assert "doing nothing (sham) moves it by 0.00" in str(found)


def test_told_from_the_null_or_not(outcomes):
    for found in all_effects(outcomes, ["tv", "logit_rms"]):
        if found.arm == "swap-order":
            assert found.beyond_null is False
        elif found.estimate.value > 0.0:
            assert (
                found.beyond_null is not found.is_rounding
            )  # of BatchNorm 1e-8 is left 160 steps on
        assert found.beyond_floor is (found.estimate.value > 0.0 and not found.is_rounding)


@pytest.mark.parametrize("metric", ["tv", "kl", "disagreement"])
def test_ceiling_is_every_pair_of_seeds(metric, outcomes):
    facts = METRICS[metric]
    p = softmax(outcomes["logits"].sel(arm="control", step=380).values.astype(float), axis=-1)
    fed = np.log(p) if facts.input_kind == "log_probabilities" else p
    pairs = [float(facts(fed[s], fed[t])) for s in range(8) for t in range(8) if s != t]
    found = effect(outcomes, "reset-moments", 380, metric)
    assert found.ceiling is not None
    assert found.fraction is not None
    assert found.ceiling.value == pytest.approx(np.mean(pairs), rel=1e-9)
    assert found.ceiling.method.endswith("jackknife")
    assert found.fraction.value == pytest.approx(found.estimate.value / np.mean(pairs), rel=1e-9)
    assert found.fraction.low < found.fraction.value < found.fraction.high


def test_fraction_leaves_out_a_seed_from_both_its_halves(values):
    found = effect(values, "reset-moments", 460, "rms")
    f = values["values"].sel(step=460).values
    moved = planted("reset-moments")[:, STEPS.index(460)]

    def fraction(seeds):
        between = [
            math.sqrt(np.mean((f[s, 0] - f[t, 0]) ** 2)) for s in seeds for t in seeds if s != t
        ]
        return moved[seeds].mean() / np.mean(between)

    without = np.array([fraction([t for t in range(8) if t != s]) for s in range(8)])
    assert found.fraction is not None
    half = 2.3646242510 * math.sqrt(7 / 8 * np.sum((without - without.mean()) ** 2))
    assert found.fraction.high - found.fraction.value == pytest.approx(half, rel=1e-6)


def test_kl_is_of_the_treated_from_the_control(outcomes):
    p, q = (
        softmax(outcomes["logits"].sel(arm=arm, step=310).values.astype(float), axis=-1)
        for arm in ("reset-batchnorm", "control")
    )
    by_hand = (p * np.log(p / q)).sum(axis=-1).mean(axis=-1)
    numbers = per_seed(outcomes, "kl", "reset-batchnorm").sel(step=310)
    assert np.allclose(numbers, by_hand, rtol=1e-9)
    assert effect(outcomes, "reset-batchnorm", 310, "kl").estimate == by_skewness(numbers)


# ------------------------------------------------------------------ scores


def _level(outcomes, arm, step, metric):
    p = softmax(outcomes["logits"].sel(arm=arm, step=step).values.astype(float), axis=-1)
    fed = np.log(p) if METRICS[metric].input_kind == "log_probabilities" else p
    return METRICS[metric](fed, outcomes["labels"].values)


@pytest.mark.parametrize("metric", list(SCORES))
def test_a_score_is_the_signed_difference(metric, outcomes):
    arm, step = "reset-batchnorm", 310
    treated, control = (_level(outcomes, which, step, metric) for which in (arm, "control"))
    found = effect(outcomes, arm, step, metric)
    assert found.estimate.value == pytest.approx(np.mean(treated - control), rel=1e-9)
    assert found.pair_correlation == pytest.approx(np.corrcoef(treated, control)[0, 1])
    ratio = (np.var(treated) + np.var(control)) / np.var(treated - control)
    assert found.variance_ratio == pytest.approx(ratio)
    assert found.ceiling is None
    assert found.fraction is None


def test_accuracy_falls_where_it_was_planted_to_fall(outcomes):
    found = effect(outcomes, "reset-batchnorm", 300, "accuracy")
    assert found.estimate.high < -0.2
    assert found.beyond_floor
    later = effect(outcomes, "reset-batchnorm", 600, "accuracy")
    assert later.estimate.value == 0.0
    assert not later.beyond_floor


def test_distances_have_no_worth_of_pairing(outcomes):
    found = effect(outcomes, "reset-moments", 600)
    assert found.pair_correlation is None
    assert found.variance_ratio is None


def test_nothing_varies_nothing_is_divided(outcomes):
    same = outcomes.isel(seed=[0, 0, 0]).assign_coords(seed=[0, 1, 2])
    found = effect(same, "reset-batchnorm", 310, "accuracy")
    assert (found.pair_correlation, found.variance_ratio) == (None, None)
    assert effect(same, "reset-moments", 310).fraction is None  # the ceiling is zero


# ------------------------------------------------------------------ the three ways to ask agree


def test_effects_are_every_treated_arm_step_and_metric(outcomes):
    found = all_effects(outcomes, metrics=("tv", "accuracy"), steps=(310, 600))
    asked = [(arm, step, m) for arm in TREATED for step in (310, 600) for m in ("tv", "accuracy")]
    assert [(f.arm, f.step, f.metric) for f in found] == asked
    assert found == [effect(outcomes, *one) for one in asked]
    assert len(all_effects(outcomes)) == len(TREATED) * len(STEPS)


@pytest.mark.parametrize("metric", ["tv", "nll"])
def test_the_estimate_is_of_the_numbers_per_seed(metric, outcomes):
    numbers = per_seed(outcomes, metric, "swap-order").sel(step=460).values
    assert effect(outcomes, "swap-order", 460, metric).estimate == by_skewness(numbers)
    assert effect(outcomes, "swap-order", 460, metric, jackknife).estimate == jackknife(numbers)


def test_another_reference(values):
    direct = per_seed(values, "rms", "reset-moments", "reset-moments-null")
    f = values["values"]
    by_hand = f.sel(arm="reset-moments") - f.sel(arm="reset-moments-null")
    assert np.allclose(direct, np.sqrt((by_hand**2).mean(["input", "class"])), rtol=1e-12)


def test_control_and_sham_are_found_by_role(outcomes):
    renamed = outcomes.assign_coords(
        arm=["base" if name == "control" else name for name in outcomes["arm"].values]
    )
    arms = [
        {**arm, "name": "base"} if arm["role"] == "control" else arm
        for arm in outcomes.attrs["arms"]
    ]
    renamed = renamed.assign_attrs(arms=arms)
    assert per_seed(renamed, "tv", "reset-moments").equals(
        per_seed(outcomes, "tv", "reset-moments")
    )


def test_which_seed_comes_first_does_not_matter(outcomes):
    turned = outcomes.isel(seed=[3, 1, 7, 0, 2, 6, 5, 4])
    for one, other in zip(all_effects(outcomes, ["kl"]), all_effects(turned, ["kl"]), strict=True):
        assert one.estimate.value == pytest.approx(other.estimate.value, rel=1e-12)
        assert one.ceiling is not None
        assert other.ceiling is not None
        assert one.ceiling.low == pytest.approx(other.ceiling.low, rel=1e-9)


def test_probabilities_are_the_softmax(outcomes):
    p = probabilities(outcomes)
    assert p.dims == ("seed", "arm", "step", "input", "class")
    assert p.dtype == np.float64
    assert np.allclose(p, softmax(outcomes["logits"].values.astype(float), axis=-1), rtol=1e-12)
    assert np.allclose(p.sum("class"), 1.0)


def test_outcomes_are_left_alone(outcomes):
    before = outcomes.copy(deep=True)
    all_effects(outcomes, ON_LOGITS, steps=(380,))
    probabilities(outcomes)
    assert outcomes.identical(before)


# ------------------------------------------------------------------ divergence


@pytest.fixture(scope="module")
def diverged() -> xr.Dataset:
    return make_outcomes(diverged=(("reset-moments", 2, 380), ("swap-order-null", 5, 300)))


@pytest.mark.parametrize("metric", ON_LOGITS)
def test_a_diverged_pair_is_left_out_counted_and_named(metric, diverged, outcomes):
    found = effect(diverged, "reset-moments", 460, metric)
    kept = per_seed(outcomes, metric, "reset-moments").sel(step=460).values[[0, 1, 3, 4, 5, 6, 7]]
    assert found.estimate.value == pytest.approx(kept.mean(), rel=1e-12)
    assert (found.num_diverged, found.estimate.num_pairs, found.estimate.num_dropped) == (1, 7, 1)
    said = f"7 seed pairs, {found.estimate.method} (1 of 8 pairs diverged and are left out)"
    assert said in str(found)


def test_divergence_stays_in_its_cell(diverged, outcomes):
    assert effect(diverged, "reset-moments", 330) == effect(outcomes, "reset-moments", 330)
    assert effect(diverged, "reset-batchnorm", 460) == effect(outcomes, "reset-batchnorm", 460)
    found = effect(diverged, "swap-order", 460)
    assert found.num_diverged == 0
    assert found.null is not None
    assert found.excess is not None
    assert (found.null.num_pairs, found.excess.num_pairs) == (7, 7)
    assert "(of which 1 pair diverged)" in str(found)


def test_a_diverged_control_takes_its_seed_from_every_arm_and_the_ceiling(outcomes):
    broken = make_outcomes(diverged=(("control", 4, 300),))
    others = outcomes.isel(seed=[0, 1, 2, 3, 5, 6, 7])
    for found, right in zip(
        all_effects(broken, ["tv", "kl", "accuracy"]),
        all_effects(others, ["tv", "kl", "accuracy"]),
        strict=True,
    ):
        assert found.num_diverged == 1
        assert found.estimate.value == right.estimate.value
        if found.ceiling is not None and right.ceiling is not None:
            assert found.ceiling.value == pytest.approx(right.ceiling.value, rel=1e-12)
            assert (found.ceiling.num_pairs, found.ceiling.num_dropped) == (7, 1)
        assert found.pair_correlation == right.pair_correlation


def test_an_infinite_logit_is_a_diverged_run(outcomes):
    broken = outcomes.copy(deep=True)
    broken["logits"].loc[{"arm": "reset-moments", "seed": 2, "step": 600, "input": 3}] = np.inf
    for found in all_effects(broken, ON_LOGITS, steps=(600,)):
        assert found.num_diverged == (1 if found.arm == "reset-moments" else 0)


def test_when_all_diverged_the_sentence_says_only_that():
    gone = make_outcomes(diverged=tuple(("reset-moments", s, 380) for s in range(8)))
    for metric in ("tv", "accuracy"):
        found = effect(gone, "reset-moments", 600, metric)
        assert str(found) == (
            "Resetting moments at step 300 cannot be judged at step 600: all 8 seed pairs diverged."
        )
        json.dumps(found.to_dict(), allow_nan=False)


# ------------------------------------------------------------------ what a study may lack


def test_one_seed_has_no_interval_and_no_ceiling(outcomes):
    found = effect(outcomes.isel(seed=[0]), "reset-moments", 460)
    assert math.isnan(found.estimate.low)
    assert found.ceiling is None
    assert found.fraction is None
    assert found.beyond_floor
    text = str(found)
    assert "[no 95% CI], 1 seed pair, paired t (fewer than 2 finite pairs: no interval)" in text
    assert text.endswith("there is no other seed to compare it with.")


def test_without_a_null_or_a_sham_the_sentence_says_so(outcomes):
    kept = ["control", "reset-moments"]
    arms = [arm for arm in outcomes.attrs["arms"] if arm["name"] in kept]
    bare = outcomes.sel(arm=kept).assign_attrs(arms=arms)
    found = effect(bare, "reset-moments", 460)
    assert (found.floor, found.null, found.excess) == (None, None, None)
    assert (found.beyond_floor, found.beyond_null) == (None, None)
    assert "; no sham was run, and no matched null was run; another seed" in str(found)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda o: effect(o, "reset-momments", 600), "no arm .* did you mean 'reset-moments'"),
        (lambda o: effect(o, "reset-moments", 6000), "no probe step called '6000'"),
        (lambda o: effect(o, "reset-moments", 600, "tvd"), "no metric .* did you mean 'tv'"),
        (lambda o: all_effects(o, ["tvd"]), "no metric"),
        (lambda o: all_effects(o, steps=[600, 601]), "no probe step called '601'"),
        (lambda o: per_seed(o, "tv", "reset-moments", "kontrol"), "did you mean 'control'"),
        (lambda o: per_seed(o, "tw", "reset-moments"), "no metric"),
    ],
)
def test_names_that_do_not_exist(ask, message, outcomes):
    with pytest.raises(UnknownName, match=message):
        ask(outcomes)


@pytest.mark.parametrize("metric", ["tv", "accuracy", "logit_rms"])
def test_values_are_not_taken_for_logits(metric, values):
    with pytest.raises(DesignError, match=r"needs logits, .* plain values; try 'rms'"):
        effect(values, "reset-moments", 460, metric)


def test_logits_are_not_taken_for_values(outcomes):
    with pytest.raises(DesignError, match=r"needs values, .* logits; try 'logit_rms'"):
        per_seed(outcomes, "rms", "reset-moments")


def test_the_control_has_no_effect_of_its_own(outcomes):
    with pytest.raises(DesignError, match="is the control"):
        effect(outcomes, "control", 600)


# ------------------------------------------------------------------ the sentences


def _estimate(value, low, high, method="paired t") -> Estimate:
    return Estimate(value, low, high, 0.95, 32, method)


ZERO = _estimate(0.0, 0.0, 0.0)
EXAMPLE = Effect(
    arm="reset-moments",
    sentence="resetting moments at step 300",
    metric="tv",
    step=600,
    horizon=300,
    estimate=_estimate(0.0081, 0.0075, 0.0087),
    floor=ZERO,
    null=_estimate(0.0032, 0.0026, 0.0038),
    excess=_estimate(0.0049, 0.0042, 0.0056),
    ceiling=_estimate(0.0221, 0.0213, 0.0229, "jackknife"),
    fraction=_estimate(0.367, 0.327, 0.407, "jackknife"),
    num_diverged=0,
    pair_correlation=None,
    variance_ratio=None,
)


def test_the_sentence():
    assert str(EXAMPLE) == (
        "Resetting moments at step 300 moved the function by 0.0081 TV at step 600, 300 steps on "
        "[95% CI 0.0075, 0.0087], 32 seed pairs, paired t; doing nothing (sham) moves it by "
        "exactly 0, its matched null (a random change as large) by 0.0032, so the excess is "
        "0.0049 [95% CI 0.0042, 0.0056]; "
        "another seed moves it 0.0221, of which this is 37% [95% CI 33, 41]."
    )


def test_the_sentence_of_what_cannot_be_told_from_the_null():
    found = replace(EXAMPLE, excess=_estimate(0.0001, -0.0006, 0.0008))
    assert "; it cannot be told from the matched null; another seed" in str(found)
    assert "cannot be told" not in str(EXAMPLE)


def test_the_sentence_of_what_cannot_be_told_from_the_sham():
    found = replace(EXAMPLE, estimate=ZERO, null=None, excess=None, horizon=1)
    assert "moved the function by exactly 0 TV at step 600, 1 step on" in str(found)
    assert "no matched null was run; it cannot be told from the sham; another" in str(found)
    noisy = replace(EXAMPLE, floor=_estimate(0.0079, 0.0070, 0.0088))
    assert "it cannot be told from the sham" in str(noisy)
    explained = replace(found, estimate=replace(ZERO, note="every pair gave the same number"))
    assert "same number" not in str(explained)  # "exactly 0" has said it
    assert "doing nothing (sham) moves it by 0.0079 [95% CI 0.0070, 0.0088]" in str(noisy)


def test_the_sentence_of_a_score():
    found = replace(
        EXAMPLE,
        metric="accuracy",
        estimate=_estimate(-0.0123, -0.0186, -0.0060),
        null=_estimate(0.0004, -0.0020, 0.0028),
        excess=_estimate(-0.0127, -0.0189, -0.0065),
        ceiling=None,
        fraction=None,
    )
    assert str(found) == (
        "Resetting moments at step 300 changed accuracy by -1.2 percentage points at step 600, "
        "300 steps on [95% CI -1.9, -0.6], 32 seed pairs, paired t; doing nothing (sham) changes "
        "it by exactly 0, its matched null (a random change as large) by 0.04, so the difference is -1.3 "
        "[95% CI -1.9, -0.7]."
    )
    unclear = replace(found, estimate=_estimate(-0.001, -0.003, 0.001))
    assert unclear.beyond_floor is False
    assert "it cannot be told from the sham" in str(unclear)


def test_every_sentence_names_its_references(outcomes):
    for found in all_effects(outcomes, ON_LOGITS):
        text = str(found)
        assert text[0].isupper()
        assert text.endswith(".")
        assert "doing nothing (sham)" in text
        assert "its matched null (a random" in text
        assert ("another seed moves it" in text) == (found.metric in list(DISTANCES))
        assert "nan" not in text


def test_to_dict_is_json(outcomes, diverged):
    for data in (outcomes, diverged, outcomes.isel(seed=[0])):
        for found in all_effects(data, ["tv", "accuracy"], steps=(300, 600)):
            plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
            assert plain["estimate"]["value"] == found.estimate.value
            assert plain["arm"] == found.arm
    alone = effect(outcomes.isel(seed=[0]), "reset-moments", 600).to_dict()
    assert alone["estimate"]["low"] is None


# ------------------------------------------------------------------ washout


def _over_time(highs, horizons=(0, 10, 20, 40)) -> list[Effect]:
    return [
        replace(
            EXAMPLE,
            horizon=h,
            step=300 + h,
            estimate=_estimate(high / 2, 0.0, high),
            share_limit=high / 0.0221,
        )
        for h, high in zip(horizons, highs, strict=True)
    ]


LIMIT = 0.01 * 0.0221


@pytest.mark.parametrize(
    ("highs", "last_standing", "gone_by"),
    [
        ((0.3, 0.1, 0.0001, 0.0), 10, 20),
        ((0.3, 0.0001, 0.2, 0.0), 20, 40),  # it came back: not gone at 10
        ((0.3, 0.1, 0.1, 0.1), 40, None),
        ((0.0, 0.0, 0.0, 0.0), None, 0),
        ((0.3, LIMIT, 0.0, 0.0), 10, 20),  # at the limit is not below it
        ((0.3, 0.0, 0.0, math.nan), 40, None),  # no interval: it has not been shown to be gone
    ],
)
def test_washout_is_bracketed(highs, last_standing, gone_by):
    found = washout(_over_time(highs))
    assert (found.last_standing, found.gone_by) == (last_standing, gone_by)
    assert found == washout(_over_time(highs)[::-1])


def test_washout_of_the_planted_effects(outcomes):
    # 0.8·exp(−h/9.49) in logit RMS against a ceiling near 0.7: below 1% of it from 45 steps on.
    found = all_effects(outcomes, ["logit_rms"])
    by_arm = {arm: washout([f for f in found if f.arm == arm]) for arm in TREATED}
    assert (by_arm["reset-batchnorm"].last_standing, by_arm["reset-batchnorm"].gone_by) == (30, 80)
    assert by_arm["reset-moments"].gone_by is None
    part = washout([f for f in found if f.arm == "reset-batchnorm"], share=0.7)
    assert (part.last_standing, part.gone_by) == (1, 10)  # 0.43 of it at 10, at most 0.64


def test_washout_without_a_ceiling_is_not_claimed():
    none = {"ceiling": None, "fraction": None, "share_limit": None}
    blind = [replace(f, **none) for f in _over_time((0.3, 0.0, 0.0, 0.0))]
    assert washout(blind).gone_by is None


@pytest.mark.parametrize(
    ("bracket", "text"),
    [
        ((10, 20), "a: not below 1% of another seed (TV) 10 steps on, below it from 20 on."),
        ((40, None), "a: not below 1% of another seed (TV) by the last horizon, 40 steps on."),
        ((None, 0), "a: below 1% of another seed (TV) at every horizon, from 0 steps on."),
    ],
)
def test_the_sentence_of_a_washout(bracket, text):
    found = Washout("a", "tv", 0.01, *bracket)
    assert str(found) == text
    json.dumps(found.to_dict(), allow_nan=False)


def test_washout_follows_one_arm_in_one_metric(outcomes):
    with pytest.raises(DesignError, match="one arm in one metric"):
        washout(all_effects(outcomes))
    with pytest.raises(DesignError, match="got nothing"):
        washout([])
    with pytest.raises(DesignError, match="'accuracy' is a score"):
        washout([effect(outcomes, "reset-moments", 600, "accuracy")])
