"""Calibration: the Brier score taken apart, reliability, and torchmetrics as a second opinion.

Shapes: L leading, R seeds, N inputs, C classes.
"""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from scipy.special import log_softmax
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.calibration import BrierParts, brier_change, brier_parts, reliability_curves
from bygones.analysis.effects import effect
from bygones.analysis.metrics import METRICS, SCORES
from bygones.analysis.predictions import probabilities
from bygones.core.errors import DesignError, UnknownName

L, N, C = 3, 200, 4
RNG = np.random.default_rng(5)
LABELS = RNG.integers(C, size=N)


def predictions(size: float = 1.5, seed: int = 0, shape=(L, N, C)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lean = size * np.eye(C)[LABELS]  # so that they are right more often than not
    return log_softmax(lean + size * rng.standard_normal(shape), axis=-1)


# ------------------------------------------------------------------ a second opinion


def torchmetrics_says(name: str, log_p: np.ndarray) -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error
    from torchmetrics.functional.regression import mean_squared_error
    from torchmetrics.functional.text import perplexity

    p, labels = torch.from_numpy(np.exp(log_p)), torch.from_numpy(LABELS)
    match name:
        case "ece":
            return float(multiclass_calibration_error(p, labels, C, n_bins=15, norm="l1"))
        case "nll":
            return math.log(float(perplexity(torch.from_numpy(log_p)[None], labels[None])))
        case _:
            truth = torch.nn.functional.one_hot(labels, C).double()
            return C * float(mean_squared_error(p, truth))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("name", ["ece", "nll", "brier"])
def test_torchmetrics_agrees(name, size):
    pytest.importorskip("torchmetrics")
    log_p = predictions(size)
    metric = METRICS[name]
    found = metric(log_p if metric.input_kind == "log_probabilities" else np.exp(log_p), LABELS)
    for one, said in zip(found, (torchmetrics_says(name, each) for each in log_p), strict=True):
        assert one == pytest.approx(said, rel=3e-6)  # torchmetrics holds bins in float32


def test_torchmetrics_would_notice_another_number_of_bins():
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = np.exp(predictions()[0])
    other = multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(LABELS), C, n_bins=14, norm="l1"
    )
    assert float(other) != pytest.approx(float(METRICS["ece"](p, LABELS)), rel=1e-3)


@pytest.mark.parametrize("num_inputs", [150, 155])
def test_bins_of_equal_mass_are_equal_widths_of_the_ranks(num_inputs):
    """No other package has it: the same sum, over numpy's own split of the sorted predictions."""
    p = np.exp(predictions(shape=(N, C)))[:num_inputs]
    labels = LABELS[:num_inputs]
    confidence, right = p.max(-1), p.argmax(-1) == labels
    ranks = np.arange(num_inputs)
    order = np.argsort(confidence, kind="stable")
    total = 0.0
    for b in range(15):
        members = order[(ranks * 15 // num_inputs) == b]
        total += abs(right[members].sum() - confidence[members].sum()) / num_inputs
    assert METRICS["ece_mass"](p, labels) == pytest.approx(total, rel=1e-12)


# ------------------------------------------------------------------ the Brier score taken apart


@pytest.mark.parametrize("num_bins", [1, 2, 7, 15, 1000])
@pytest.mark.parametrize("size", [0.0, 0.5, 1.5, 40.0])
def test_the_parts_add_up_exactly(size, num_bins):
    p = np.exp(predictions(size))
    parts = brier_parts(p, LABELS, num_bins)
    assert np.allclose(parts.total, SCORES["brier"](p, LABELS), rtol=1e-12, atol=1e-13)
    for part in ("reliability", "resolution", "uncertainty", "within_variance"):
        assert np.all(getattr(parts, part) >= 0.0)


def test_without_the_terms_within_bins_they_do_not():
    p = np.exp(predictions())
    parts = brier_parts(p, LABELS, 5)
    murphy = parts.reliability - parts.resolution + parts.uncertainty
    assert np.all(np.abs(murphy - SCORES["brier"](p, LABELS)) > 1e-3)


def test_the_parts_by_hand():
    # Two classes, so each part is twice that of one. Bins of 0.5: {0.2, 0.4} and {0.6, 0.8, 1.0}.
    f, o = np.array([0.2, 0.4, 0.6, 0.8, 1.0]), np.array([0, 1, 1, 0, 1])
    parts = brier_parts(np.stack([1 - f, f], -1), o, num_bins=2)
    low, high, base = (0.3, 0.5), (0.8, 2 / 3), 0.6
    assert parts.reliability == pytest.approx(
        2 * (2 * (low[0] - low[1]) ** 2 + 3 * (high[0] - high[1]) ** 2) / 5
    )
    assert parts.resolution == pytest.approx(
        2 * (2 * (low[1] - base) ** 2 + 3 * (high[1] - base) ** 2) / 5
    )
    assert parts.uncertainty == pytest.approx(2 * base * (1 - base))
    assert parts.within_variance == pytest.approx(2 * (2 * 0.01 + 2 * 0.04) / 5)
    within = (-0.1 * -0.5 + 0.1 * 0.5) + (-0.2 * 1 / 3 + 0.0 * -2 / 3 + 0.2 * 1 / 3)
    assert parts.within_covariance == pytest.approx(2 * 2 * within / 5)


def test_parts_mean_what_they_are_called():
    honest = np.tile([0.7, 0.3], (10, 1))
    parts = brier_parts(honest, np.array([0] * 7 + [1] * 3))
    assert float(parts.reliability) == pytest.approx(0.0, abs=1e-15)
    assert float(parts.resolution) == pytest.approx(0.0, abs=1e-15)
    sure = brier_parts(np.eye(2)[[0] * 7 + [1] * 3], np.array([0] * 7 + [1] * 3))
    assert float(sure.resolution) == pytest.approx(float(sure.uncertainty))
    assert float(sure.total) == pytest.approx(0.0, abs=1e-15)


def test_nan_in_nan_out_and_nowhere_else():
    p = np.exp(predictions())
    whole = brier_parts(p, LABELS)
    p[1, 3, 2] = np.nan
    broken = brier_parts(p, LABELS)
    for part in (field.name for field in fields(BrierParts)):
        assert np.array_equal(np.isnan(getattr(broken, part)), [False, True, False])
        assert np.array_equal(getattr(broken, part)[[0, 2]], getattr(whole, part)[[0, 2]])


def test_changes_of_the_parts_are_paired_and_add_up():
    outcomes = make_outcomes(num_seeds=8, diverged=(("reset-batchnorm", 2, 300),))
    found = brier_change(outcomes, "reset-batchnorm", 301)
    total = effect(outcomes, "reset-batchnorm", 301, "brier").estimate
    assert found["total"].value == pytest.approx(total.value, rel=1e-9)
    assert found["total"].high == pytest.approx(total.high, rel=1e-9)
    assert (found["total"].num_pairs, found["total"].num_dropped) == (7, 1)
    signs = {
        "reliability": 1,
        "resolution": -1,
        "uncertainty": 1,
        "within_variance": 1,
        "within_covariance": -1,
    }
    assert sum(sign * found[name].value for name, sign in signs.items()) == pytest.approx(
        total.value
    )
    assert found["uncertainty"].value == 0.0
    sham = brier_change(outcomes, "sham", 301)
    assert all(estimate.value == 0.0 for estimate in sham.values())


# ------------------------------------------------------------------ reliability


@pytest.mark.parametrize("bins", ["width", "mass"])
def test_curves_are_counts_over_all_seeds(bins):
    outcomes = make_outcomes(num_seeds=6, num_inputs=100)
    treated, control = reliability_curves(outcomes, "reset-batchnorm", 301, bins=bins)
    assert (treated.arm, control.arm) == ("reset-batchnorm", "control")
    for curve in (treated, control):
        assert sum(b.share for b in curve.bins) == pytest.approx(1.0)
        p = probabilities(outcomes).sel(arm=curve.arm, step=301).values
        confidence, right = p.max(-1), p.argmax(-1) == outcomes["labels"].values
        assert sum(b.share * b.confidence for b in curve.bins) == pytest.approx(confidence.mean())
        assert sum(b.share * b.accuracy.value for b in curve.bins) == pytest.approx(right.mean())
        for b in curve.bins:
            assert b.low <= b.confidence <= b.high
            assert 0.0 <= b.accuracy.low <= b.accuracy.value <= b.accuracy.high <= 1.0
    if bins == "mass":
        both = [(a.share + b.share) / 2 for a, b in zip(treated.bins, control.bins, strict=True)]
        assert np.allclose(both, 0.1, atol=0.01)


def test_the_gap_of_one_seed_is_its_ece():
    outcomes = make_outcomes(num_seeds=1, num_inputs=100)
    (treated, _) = reliability_curves(outcomes, "reset-batchnorm", 301, num_bins=15)
    p = probabilities(outcomes).sel(arm="reset-batchnorm", step=301).values[0]
    assert treated.gap == pytest.approx(float(METRICS["ece"](p, outcomes["labels"].values)))
    assert all(math.isnan(b.accuracy.low) for b in treated.bins)


def test_the_seed_is_the_unit():
    """Half the seeds are always right, half always wrong: many inputs do not make that sure."""
    outcomes = make_outcomes(num_seeds=6, num_inputs=200)
    labels = outcomes["labels"].values
    sure = np.log(np.where(np.eye(5)[labels] > 0, 0.9, 0.025))
    wrong = np.roll(sure, 1, axis=-1)
    logits = outcomes["logits"].values
    logits[:3], logits[3:] = sure, wrong
    (treated, _) = reliability_curves(
        outcomes.assign(logits=(outcomes["logits"].dims, logits)), "sham", 301
    )
    (only,) = treated.bins
    assert only.accuracy.value == pytest.approx(0.5)
    as_if_inputs_were_independent = 1.96 * math.sqrt(0.25 / (6 * 200))
    assert only.accuracy.high - only.accuracy.low > 10 * as_if_inputs_were_independent


def test_a_diverged_seed_is_left_out_of_both_curves():
    outcomes = make_outcomes(num_seeds=5, diverged=(("reset-batchnorm", 2, 300),))
    treated, control = reliability_curves(outcomes, "reset-batchnorm", 301)
    kept = outcomes.isel(seed=[0, 1, 3, 4])
    assert control.gap == reliability_curves(kept, "reset-batchnorm", 301)[1].gap
    assert treated.num_pairs == control.num_pairs == 4
    assert treated.bins[0].accuracy.num_dropped == 1


def test_what_cannot_be_asked():
    outcomes = make_outcomes(num_seeds=2)
    with pytest.raises(UnknownName, match="kind of bins"):
        reliability_curves(outcomes, "sham", 301, bins="masses")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="did you mean 'reset-moments'"):
        brier_change(outcomes, "reset-moment", 301)
    with pytest.raises(UnknownName, match="probe step"):
        brier_change(outcomes, "sham", 302)
    with pytest.raises(DesignError, match="labels"):
        brier_change(make_outcomes(kind="values", num_seeds=2), "sham", 301)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_as_in_the_ece():
    outcomes = make_outcomes(num_seeds=2)
    even = np.where(np.arange(5) < 2, 0.0, -800.0)  # exactly one half each
    flat = outcomes.assign(logits=outcomes["logits"] * 0.0 + even.reshape(1, 1, 1, 1, 5))
    (only,) = reliability_curves(flat, "sham", 301)[0].bins
    assert (only.low, only.high, only.confidence) == (0.4, 0.5, 0.5)
