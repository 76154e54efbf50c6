"""The function field: planted fields come back, bands hold together, the norm is not biased.

Shapes: R seed pairs, N inputs, C classes, J coordinates, S simulated studies.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.breakdown import breakdown
from bygones.analysis.calibration import reliability_curves
from bygones.analysis.estimators import paired_t
from bygones.analysis.estimators.max_t import Band, max_t
from bygones.analysis.function_field import (
    FunctionField,
    function_field,
    moved_inputs,
    squared_norm,
)
from bygones.core.errors import DesignError, UnknownName
from bygones.publish.report import svg
from bygones.publish.report.field_figures import (
    breakdown_figure,
    field_picture,
    reliability_diagram,
)
from bygones.zoo.worlds import heavy_ball


def world(differences: np.ndarray, *, null: np.ndarray | None = None, **changes) -> xr.Dataset:
    """Outcomes as plain values with these differences (R, N, C): control 1, treated 1 + difference."""
    arms: list[tuple] = [
        ("control", "control", None),
        ("sham", "sham", None),
        ("treat", "treated", None),
    ]
    values = [np.ones_like(differences), np.ones_like(differences), 1.0 + differences]
    if null is not None:
        arms.append(("null of treat", "null", "treat"))
        values.append(1.0 + null)
    described = [
        {"name": name, "role": role, "null_of": of, "sentence": f"treating ({name}) at step 3"}
        for name, role, of in arms
    ]
    return xr.Dataset(
        {"values": (("seed", "arm", "step", "input", "class"), np.stack(values, 1)[:, :, None])},
        coords={
            "seed": np.arange(len(differences)),
            "arm": [name for name, _, _ in arms],
            "step": [7],
        },
        attrs={"arms": described, "fork_at": 3, **changes},
    )


def planted(R: int = 16, N: int = 20, C: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A field τ (N, C) that is not zero on the first five inputs, and noisy differences (R, N, C)."""
    rng = np.random.default_rng(seed)
    tau = np.zeros((N, C))
    tau[:5, 1] = [3.0, -2.5, 2.0, -1.5, 1.4]
    return tau, tau + 0.5 * rng.standard_normal((R, N, C))


# ------------------------------------------------------------------ a planted field comes back


def test_a_planted_field_comes_back():
    tau, differences = planted()
    field = function_field(world(differences), "treat", 7)
    assert np.array_equal(np.flatnonzero(field.moved), np.arange(5))
    assert np.all(field.at_class[:5] == 1)
    assert np.all(field.band.low <= tau)
    assert np.all(tau <= field.band.high)
    assert np.allclose(field.band.mean, differences.mean(0))
    found = field.norm.corrected
    assert found.covers(float((tau**2).sum() / len(tau)))
    assert (field.step, field.horizon, field.band.num_pairs) == (7, 4, 16)


def test_moved_inputs_are_ordered_by_what_is_sure():
    _, differences = planted()
    field = function_field(world(differences), "treat", 7)
    found = moved_inputs(field)
    assert {moved.input for moved in found} == set(range(5))
    sure = [min(abs(moved.change.low), abs(moved.change.high)) for moved in found]
    assert sure == sorted(sure, reverse=True)
    first = found[0]
    assert first.change.value == pytest.approx(differences[:, first.input, 1].mean())
    assert str(first) == "input 0: 3.1 [95% CI 2.5, 3.7] in class 1"


def test_the_class_of_the_largest_t_is_picked_and_a_declared_one_is_kept():
    outcomes = make_outcomes(num_seeds=16)
    every = function_field(outcomes, "reset-batchnorm", 301)
    label = function_field(outcomes, "reset-batchnorm", 301, of="label")
    t = np.abs(every.band.t)
    assert np.array_equal(every.at_class, t.argmax(axis=1))
    assert np.array_equal(label.at_class, outcomes["labels"].values)
    assert label.band.critical < every.band.critical  # fewer coordinates to hold at once
    assert np.allclose(
        label.band.mean[:, 0], np.take_along_axis(every.band.mean, label.at, axis=1)[:, 0]
    )


def test_log_odds_are_those_of_the_probabilities():
    outcomes = make_outcomes(num_seeds=8)
    odds = function_field(outcomes, "reset-batchnorm", 301, of="log_odds")
    p = function_field(outcomes, "reset-batchnorm", 301).control
    own = outcomes["labels"].values[None, :, None]
    before = np.take_along_axis(p, own, -1)[..., 0]
    after = before + np.take_along_axis(odds.differences, own, -1)[..., 0]
    change = np.log(after / (1 - after)) - np.log(before / (1 - before))
    assert np.allclose(odds.band.mean[:, 0], change.mean(0))


def test_the_sham_is_exactly_zero_and_the_null_stands_beside():
    field = function_field(make_outcomes(num_seeds=8), "reset-batchnorm", 301)
    assert field.floor == 0.0
    assert field.null is not None
    assert field.null.arm == "reset-batchnorm-null"
    text = str(field)
    assert "doing nothing (sham) moves any of them by exactly 0" in text
    assert "its matched null moves" in text
    sham = function_field(make_outcomes(num_seeds=8), "sham", 301)
    assert not sham.moved.any()
    assert np.array_equal(sham.band.low, np.zeros_like(sham.band.low))
    assert np.array_equal(sham.band.high, np.zeros_like(sham.band.high))
    assert sham.norm.corrected.value == 0.0
    assert "the interval has no width" in str(sham)


def test_the_field_of_the_excess_is_the_difference_of_two():
    _, differences = planted()
    null = 0.5 * planted(seed=1)[1]
    outcomes = world(differences, null=null)
    excess = function_field(outcomes, "treat", 7, reference="null of treat")
    assert excess.null is None
    assert np.allclose(excess.band.mean, (differences - null).mean(0))


def test_a_diverged_seed_is_left_out_of_all_and_named():
    _, differences = planted()
    differences[3, 2, 1] = np.nan
    field = function_field(world(differences), "treat", 7)
    kept = np.delete(differences, 3, axis=0)
    assert np.allclose(field.band.mean, kept.mean(0))
    assert (field.band.num_pairs, field.band.num_dropped) == (15, 1)
    assert "1 pairs diverged" in str(field)
    everything = function_field(world(np.full((4, 5, 2), np.nan)), "treat", 7)
    assert everything.band.num_pairs == 0
    assert not everything.moved.any()
    assert str(everything)


def test_too_few_pairs_have_no_interval_and_say_why():
    _, differences = planted(R=5)
    field = function_field(world(differences), "treat", 7)
    assert np.all(field.low == -np.inf)
    assert np.all(field.high == np.inf)
    assert not field.moved.any()
    said = str(field)
    assert "to tell which inputs it moves takes 6 seed pairs at 95%; there are 5" in said
    assert "inf" not in said
    assert " of " not in said.partition(";")[0]
    assert function_field(world(planted(R=6)[1]), "treat", 7).too_few == ""
    assert np.isfinite(max_t(differences, level=0.9).low).all()


def test_skewed_differences_are_named():
    rng = np.random.default_rng(0)
    rare = np.where(rng.random((32, 50, 1)) < 0.04, 1.0, 0.01 * rng.standard_normal((32, 50, 1)))
    assert "skewed" in function_field(world(rare), "treat", 7).note
    assert function_field(world(rng.standard_normal((32, 50, 1))), "treat", 7).note == ""


def test_names_that_do_not_exist():
    outcomes = world(planted()[1])
    with pytest.raises(UnknownName, match="did you mean 'treat'"):
        function_field(outcomes, "treet", 7)
    with pytest.raises(UnknownName, match="no probe step called '8'"):
        function_field(outcomes, "treat", 8)
    with pytest.raises(DesignError, match="needs labels"):
        function_field(outcomes, "treat", 7, of="label")


# ------------------------------------------------------------------ the band holds all at once


def pointwise(differences: np.ndarray, level: float = 0.95) -> Band:
    """The wrong band: each coordinate's own t interval."""
    band = max_t(differences, level=level)
    ones = [paired_t(column, level=level) for column in differences.T]
    critical = float(np.median([(e.high - e.value) for e in ones] / band.standard_error))
    return Band(band.mean, band.standard_error, critical, level, len(differences), 0, "pointwise")


def coverage(draw, band=max_t, *, num_studies: int = 1500, seed: int = 0) -> float:
    """The share of studies whose band holds the planted field in every coordinate at once."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(num_studies):
        tau, differences = draw(rng)
        found = band(differences)
        hits += bool(np.all(found.low <= tau) and np.all(tau <= found.high))
    return hits / num_studies


def normal(R: int, J: int):
    tau = np.linspace(-1.0, 1.0, J)
    return lambda rng: (tau, tau + rng.standard_normal((R, J)))


def alike(R: int, J: int):
    """Coordinates that hang together closely, and have very different spreads."""
    tau, spread = np.linspace(-1.0, 1.0, J), np.logspace(-6, 0, J)

    def draw(rng):
        shared = rng.standard_normal((R, 1))
        return tau, tau + spread * (0.95 * shared + 0.3 * rng.standard_normal((R, J)))

    return draw


@pytest.mark.parametrize("draw", [normal(8, 40), alike(8, 40), normal(12, 5)])
def test_the_band_holds_the_whole_field_at_the_nominal_rate(draw):
    assert 0.935 <= coverage(draw) <= 0.98  # standard error of a rate of 0.95: 0.006


def test_the_same_harness_catches_a_pointwise_band():
    assert coverage(normal(8, 40), pointwise, num_studies=200) < 0.3


def test_with_one_coordinate_the_band_is_students():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        differences = rng.standard_normal((10, 1))
        own = paired_t(differences[:, 0])
        ratios.append(max_t(differences).half_width[0] / (own.high - own.value))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)


def test_drawn_flips_agree_with_all_of_them():
    differences = np.random.default_rng(0).standard_normal((13, 60))
    exact, drawn = max_t(differences), max_t(differences, num_flips=4000)
    assert "all 8192" in exact.method
    assert "(4000)" in drawn.method
    assert drawn.critical == pytest.approx(exact.critical, rel=0.03)
    assert max_t(differences, num_flips=4000).critical == drawn.critical
    assert max_t(differences, num_flips=4000, seed=1).critical != drawn.critical


def test_the_largest_t_by_hand():
    differences = np.random.default_rng(0).standard_normal((7, 3))
    centred = differences - differences.mean(0)
    largest = []
    for flip in range(2**7):
        signs = np.array([1.0 if flip >> s & 1 else -1.0 for s in range(7)])
        flipped = signs[:, None] * centred
        t = flipped.mean(0) / (flipped.std(0, ddof=1) / math.sqrt(7))
        largest.append(np.abs(t).max())
    at_rank = np.sort(largest)[math.ceil(0.95 * 128) - 1]
    assert max_t(differences).critical == pytest.approx(at_rank, rel=1e-12)


def test_a_coordinate_without_spread_has_no_width_and_widens_no_other():
    differences = np.random.default_rng(0).standard_normal((8, 4))
    with_constant = np.hstack([differences, np.full((8, 1), 0.1), np.zeros((8, 1))])
    band, alone = max_t(with_constant), max_t(differences)
    assert band.critical == alone.critical
    assert np.array_equal(band.low[4:], [0.1, 0.0])
    assert np.array_equal(band.high[4:], [0.1, 0.0])
    assert np.array_equal(band.t[4:], [np.inf, 0.0])


def test_size_does_not_matter():
    differences = np.random.default_rng(0).standard_normal((8, 4))
    for size in (1e-100, 1e100):
        assert max_t(size * differences).critical == pytest.approx(max_t(differences).critical)


def test_the_heavy_ball_field_is_covered_by_its_closed_form():
    """S studies of R seeds: reset momentum at step 12, look 9 steps on; the expectation is exact."""
    S, R, lr, mu, at, on = 1000, 10, 0.1, 0.9, 12, 9
    rng = np.random.default_rng(0)
    curvature, examples = np.asarray(heavy_ball.CURVATURE), heavy_ball.draw_examples()
    w = rng.standard_normal((S * R, heavy_ball.DIMENSIONS))
    b = np.zeros_like(w)
    for step in range(at + on):
        if step == at:
            w, b = np.stack([w, w]), np.stack([np.zeros_like(b), b])
        target = examples[rng.integers(0, len(examples), (S * R, 8))].mean(1)
        b = mu * b + curvature * (w - target)
        w = w - lr * b
    differences = (w[0] - w[1]).reshape(S, R, -1)
    expected = heavy_ball.displacement(
        np.zeros(3), -heavy_ball.expected_buffer(at, lr, mu), on, lr, mu
    )
    bands = [max_t(study) for study in differences]
    held = [bool(np.all((b.low <= expected) & (expected <= b.high))) for b in bands]
    assert 0.93 <= np.mean(held) <= 0.975
    naive = [
        np.all(np.abs(pointwise(d).mean - expected) <= pointwise(d).half_width)
        for d in differences[:300]
    ]
    assert np.mean(naive) < np.mean(held) - 0.03


# ------------------------------------------------------------------ the norm


def norms(tau: np.ndarray, R: int, num_studies: int = 1000) -> tuple[np.ndarray, np.ndarray, float]:
    """Corrected and naive squared norms over simulated studies, and how often the interval holds."""
    rng = np.random.default_rng(0)
    truth = float((tau**2).sum(-1).mean())
    found = [squared_norm(tau + rng.standard_normal((R, *tau.shape))) for _ in range(num_studies)]
    held = float(np.mean([norm.corrected.covers(truth) for norm in found]))
    return (
        np.array([norm.corrected.value for norm in found]),
        np.array([norm.naive for norm in found]),
        held,
    )


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_the_corrected_norm_is_not_biased_where_the_naive_one_is(size):
    tau, R = size * np.ones((20, 2)), 8
    truth, variance = 2 * size**2, 2.0  # summed over classes
    corrected, naive, held = norms(tau, R)
    error = corrected.std() / math.sqrt(len(corrected))
    assert abs(corrected.mean() - truth) < 4 * error
    assert naive.mean() - truth == pytest.approx(variance / R, rel=0.1)
    assert naive.mean() - truth > 10 * error
    assert 0.92 <= held <= 0.995


def test_the_corrected_norm_is_the_mean_over_pairs_and_the_bias_is_what_is_said():
    rng = np.random.default_rng(0)
    d = 0.3 + rng.standard_normal((6, 10, 2))
    pairs = [float((d[s] * d[r]).sum(-1).mean()) for s in range(6) for r in range(6) if s != r]
    found = squared_norm(d)
    assert found.corrected.value == pytest.approx(np.mean(pairs))
    assert found.naive == pytest.approx(float((d.mean(0) ** 2).sum(-1).mean()))
    total = float((d**2).sum(-1).mean())
    assert found.bias == pytest.approx((total - found.corrected.value) / 6)
    assert found.systematic.value == pytest.approx(found.corrected.value / total)


# ------------------------------------------------------------------ groups of inputs


def chance_field(R: int, N: int, seed: int) -> FunctionField:
    """A treatment that draws the function anew around what each input is like: it moves nothing."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0.4, 0.6, size=(1, N))
    control, treated = (ease + 0.2 * rng.standard_normal((R, N)) for _ in range(2))
    p, q = (np.stack([a, 1.0 - a], axis=-1) for a in (control, treated))
    labels = np.zeros(N, dtype=int)
    band = max_t((q - p)[..., :1])
    at = labels[:, None]
    return FunctionField("treat", "s", 1, 1, "label", q - p, p, labels, band, at, 0.0, None)


def test_difficulty_from_held_out_seeds_makes_no_effect_where_there_is_none():
    hardest = []
    for seed in range(300):
        field = chance_field(6, 60, seed)
        hardest.append(breakdown(field, "difficulty")[0].shift)
        wrong = field.control[..., 0].mean(0).argsort()[:15]  # chosen by the runs that are measured
        hardest.append(paired_t(field.differences[:, wrong, 0].mean(1)))
    held_out, selected = hardest[::2], hardest[1::2]
    means = np.array([e.value for e in held_out])
    error = means.std() / math.sqrt(len(means))
    assert abs(means.mean()) < 4 * error
    assert np.mean([e.covers(0.0) for e in held_out]) > 0.92
    assert np.mean([e.value for e in selected]) > 10 * error  # regression to the mean
    assert np.mean([e.covers(0.0) for e in selected]) < 0.6


def test_groups_by_class_are_means_over_their_inputs():
    outcomes = make_outcomes(num_seeds=16)
    field = function_field(outcomes, "reset-batchnorm", 301)
    labels = outcomes["labels"].values
    groups = breakdown(field, "class")
    assert [group.name for group in groups] == [f"class {c}" for c in range(5)]
    for c, group in enumerate(groups):
        own = field.differences[:, labels == c, c].mean(axis=1)
        assert group.shift.value == pytest.approx(own.mean())
        assert group.num_inputs == (labels == c).sum()
        norm = squared_norm(field.differences[:, labels == c])
        assert str(group.squared_norm) == str(norm.corrected)
        assert group.null is not None
    assert groups[0].shift.value < 0.0  # it costs the label's probability, as planted
    assert groups == breakdown(field, [f"class {c}" for c in labels])


def test_groups_by_difficulty_are_of_equal_size_and_ordered():
    field = function_field(make_outcomes(num_seeds=16), "reset-batchnorm", 301)
    groups = breakdown(field, "difficulty", num_groups=3)
    assert [group.num_inputs for group in groups] == [22, 21, 21]
    assert [group.name for group in groups] == ["1 of 3 (hardest)", "2 of 3", "3 of 3 (easiest)"]
    assert all(math.isfinite(group.squared_norm.low) for group in groups)


def test_breakdowns_that_make_no_sense_are_refused():
    field = function_field(make_outcomes(num_seeds=8), "reset-batchnorm", 301)
    with pytest.raises(UnknownName, match="did you mean 'difficulty'"):
        breakdown(field, "dificulty")
    with pytest.raises(DesignError, match="one label an input: 64"):
        breakdown(field, [1, 2, 3])
    with pytest.raises(DesignError, match="2 to 64 groups"):
        breakdown(field, "difficulty", num_groups=100)
    values = function_field(make_outcomes(kind="values"), "reset-batchnorm", 301)
    with pytest.raises(DesignError, match="hold none"):
        breakdown(values, "class")
    assert len(breakdown(values, np.arange(64) % 2)) == 2


# ------------------------------------------------------------------ pictures


def test_figures_are_made_twice_alike_and_of_anything():
    outcomes = make_outcomes(num_seeds=8, num_inputs=30)
    images = np.random.default_rng(0).random((30, 4, 4))
    for arm, step in (("reset-batchnorm", 301), ("sham", 301), ("reset-moments", 300)):
        field = function_field(outcomes, arm, step, of="label")
        for made in (
            lambda field=field: field_picture(field, images),
            lambda field=field: field_picture(field, width=3.72),
            lambda field=field: breakdown_figure(breakdown(field, "class")),
            lambda arm=arm, step=step: reliability_diagram(
                *reliability_curves(outcomes, arm, step)
            ),
        ):
            text = svg.to_svg(made(), "figure")
            assert text == svg.to_svg(made(), "figure")
            assert "nan" not in text
    few = function_field(world(planted(R=4)[1]), "treat", 7)
    assert "0 of 20 inputs moved" in svg.to_svg(field_picture(few), "few")
    with pytest.raises(DesignError, match=r"one image an input, \(30, H, W\)"):
        field_picture(field, images[:7])
