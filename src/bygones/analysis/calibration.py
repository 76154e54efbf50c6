"""Calibration: reliability curves, the Brier decomposition, and how a treatment changes them.

Shapes: R seeds, N inputs, C classes, B bins; `...` any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.estimators import Estimate, Estimator, jackknife, paired_t
from bygones.analysis.predictions import probabilities
from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError

Bins = Literal["width", "mass"]


@dataclass(frozen=True, eq=False)
class BrierParts:
    """Brier decomposition: parts of the Brier score, each an array (...,), that add up to it exactly.

    Brier = reliability − resolution + uncertainty + within_variance − within_covariance
    """

    reliability: np.ndarray  # less is better: by how far confidences miss the frequencies
    resolution: np.ndarray  # more is better: how far the frequencies of bins are apart
    uncertainty: np.ndarray  # of the labels alone; no prediction changes it
    within_variance: np.ndarray  # of the confidences that share a bin
    within_covariance: np.ndarray  # of confidences and labels that share a bin, twice

    @property
    def generalised_resolution(self) -> np.ndarray:
        """resolution − within_variance + within_covariance: Brier = reliability − this + uncertainty."""
        return self.resolution - self.within_variance + self.within_covariance

    @property
    def total(self) -> np.ndarray:
        return self.reliability - self.generalised_resolution + self.uncertainty


def brier_parts(p: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> BrierParts:
    """Decompose the Brier score, with the two terms that make the decomposition exact for any bins.

        reliability       = Σ_c Σ_b n_cb/N (f̄_cb − ō_cb)²       resolution = Σ_c Σ_b n_cb/N (ō_cb − ō_c)²
        uncertainty       = Σ_c ō_c (1 − ō_c)
        within_variance   = Σ_c 1/N Σ_i (f_ic − f̄_cb(i))²
        within_covariance = Σ_c 2/N Σ_i (f_ic − f̄_cb(i)) (o_ic − ō_cb(i))

    f_ic: probability of class c for input i; o_ic = [c = label i]; b(i): the bin of f_ic, `num_bins` of
    equal width; bars: means over a bin, or over all inputs. Each class against the rest, summed over
    classes, as Brier's own score is. `p`: probabilities, (..., N, C); `labels`: (N,) -> (...,). NaN
    in, NaN out. Murphy, A new vector partition of the probability score, Journal of Applied
    Meteorology 12 (1973), 595–600, holds only where a bin's confidences are all equal; the two
    within-bin terms: Stephenson, Coelho & Jolliffe, Two extra components in the Brier score
    decomposition, Weather and Forecasting 23 (2008), 752–757. Biased with few inputs a bin:
    reliability and resolution both come out too large.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    >>> parts = brier_parts(p, np.array([0, 0, 1, 1]), num_bins=2)
    >>> round(float(parts.total), 12) == round(float(((p - np.eye(2)[[0, 0, 1, 1]]) ** 2).sum(1).mean()), 12)
    True
    """
    known = np.asarray(np.isfinite(p).all(axis=(-2, -1)))
    f = np.where(known[..., None, None], p, 0.0)
    o = np.broadcast_to(np.eye(p.shape[-1])[labels], f.shape)
    bin_of = np.clip(np.ceil(f * num_bins).astype(int) - 1, 0, num_bins - 1)
    total = {part.name: np.zeros(f.shape[:-2]) for part in fields(BrierParts)}
    base = o.mean(axis=-2)  # (..., C)
    total["uncertainty"] += (base * (1.0 - base)).sum(axis=-1)
    N = f.shape[-2]
    for b in range(num_bins):
        here = bin_of == b
        count = here.sum(axis=-2)  # (..., C)
        size = np.maximum(count, 1)
        f_bar, o_bar = ((a * here).sum(axis=-2) / size for a in (f, o))
        f_off, o_off = ((a - m[..., None, :]) * here for a, m in ((f, f_bar), (o, o_bar)))
        total["reliability"] += (count * (f_bar - o_bar) ** 2).sum(axis=-1) / N
        total["resolution"] += (count * (o_bar - base) ** 2).sum(axis=-1) / N
        total["within_variance"] += (f_off**2).sum(axis=(-2, -1)) / N
        total["within_covariance"] += 2.0 * (f_off * o_off).sum(axis=(-2, -1)) / N
    return BrierParts(**{name: np.where(known, part, np.nan) for name, part in total.items()})


def brier_change(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    *,
    num_bins: int = 15,
    estimator: Estimator = paired_t,
) -> Mapping[str, Estimate]:
    """Estimate the change of each part of the Brier score: part -> estimate of treated − control.

    Paired by seed. "total" is the change of the score itself, and its value is that of the parts with
    their signs (reliability − resolution + uncertainty + within_variance − within_covariance), which
    a paired difference keeps: "uncertainty" is exactly 0. A difference of resolution is best read
    from "generalised_resolution", which depends least on the bins.
    """
    labels = _labels(outcomes)
    treated, control = (brier_parts(seen, labels, num_bins) for seen in _pair(outcomes, arm, step))
    names = [*(part.name for part in fields(BrierParts)), "generalised_resolution", "total"]
    return {
        name: estimator(np.asarray(getattr(treated, name) - getattr(control, name)))
        for name in names
    }


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability curve: mean confidence and accuracy of its predictions.

    `accuracy` has an interval over seeds, cut at 0 and 1; `share` is that of all predictions.
    """

    low: float
    high: float
    confidence: float
    accuracy: Estimate
    share: float


@dataclass(frozen=True)
class ReliabilityCurve:
    """Reliability curve of one arm at one step, bin by bin (empty bins are left out)."""

    arm: str
    step: int
    bins: tuple[ReliabilityBin, ...]
    num_pairs: int

    @property
    def gap(self) -> float:
        """Expected calibration error of all seeds' predictions pooled: Σ share · |accuracy − confidence|.

        Less than the mean of the seeds' own, as seeds that err to opposite sides cancel.
        """
        return sum(b.share * abs(b.accuracy.value - b.confidence) for b in self.bins)


def reliability_curves(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    *,
    bins: Bins = "width",
    num_bins: int = 10,
    level: float = 0.95,
) -> tuple[ReliabilityCurve, ReliabilityCurve]:
    """Estimate the reliability curves of the treated arm and of the control, in the same bins.

        accuracy_b = Σ_s (right predictions of seed s in bin b) / Σ_s (predictions of seed s in bin b)

    Confidence is the largest probability. The seed is the unit: intervals are the jackknife's over
    seeds, of a ratio, as inputs of one seed's model are not independent. `bins`: "width" for equal
    widths, "mass" for equal shares of both arms' predictions together (so that the curves can be
    compared bin by bin). Seeds of which either arm diverged are left out.
    DeGroot & Fienberg, The comparison and evaluation of forecasters, The Statistician 32 (1983), 12–22.
    """
    if bins not in ("width", "mass"):
        raise unknown_name("kind of bins", bins, ("width", "mass"))
    labels = _labels(outcomes)
    pair = _pair(outcomes, arm, step)
    finite = np.isfinite(pair).all(axis=(0, 2, 3))
    treated, control = (seen[finite] for seen in pair)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    if bins == "mass" and control.size:
        inner = np.quantile(pair[:, finite].max(axis=-1), edges[1:-1])
        edges = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    num_dropped = int((~finite).sum())
    arms = Arms.of(outcomes)
    names = (arm, arms.names[arms.control])
    return tuple(  # type: ignore[return-value]
        _curve(name, step, seen, labels, edges, level, num_dropped)
        for name, seen in zip(names, (treated, control), strict=True)
    )


def _curve(
    arm: str,
    step: int,
    p: np.ndarray,
    labels: np.ndarray,
    edges: np.ndarray,
    level: float,
    num_dropped: int,
) -> ReliabilityCurve:
    confidence: np.ndarray = p.max(axis=-1)  # (R, N)
    right: np.ndarray = p.argmax(axis=-1) == labels  # (R, N)
    bin_of: np.ndarray = np.clip(
        np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2
    )
    found: list[ReliabilityBin] = []
    for b in range(len(edges) - 1):
        here: np.ndarray = bin_of == b
        count = here.sum(axis=1).astype(np.float64)  # (R,)
        if not count.any():
            continue
        rate = jackknife((right & here).sum(axis=1), count, statistic=_ratio, level=level)
        found.append(
            ReliabilityBin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                confidence=float(confidence[here].mean()),
                accuracy=_within_unit(rate, num_dropped),
                share=float(here.mean()),
            )
        )
    return ReliabilityCurve(arm, int(step), tuple(found), len(p))


def _ratio(right: np.ndarray, count: np.ndarray) -> float:
    total = float(count.sum())
    return float(right.sum()) / total if total else math.nan


def _within_unit(rate: Estimate, num_dropped: int) -> Estimate:
    low, high = (min(max(end, 0.0), 1.0) for end in (rate.low, rate.high))
    note = rate.note
    if math.isnan(rate.low):  # max and min would have made a number of it
        low = high = math.nan
        note = note or "only one seed has predictions here: no interval"
    # That an accuracy is not 0 is no hypothesis worth a p value.
    return replace(rate, low=low, high=high, num_dropped=num_dropped, note=note, p_value=None)


def _pair(outcomes: xr.Dataset, arm: str, step: int) -> np.ndarray:
    """Return the probabilities of the arm and of the control at a step, (2, R, N, C)."""
    arms = Arms.of(outcomes)
    names = [arms[name].name for name in (arm, "control")]
    step_index(outcomes, step)  # raises where there is no such probe step
    pair = [probabilities(outcomes.sel(arm=[name], step=[step])).values[:, 0, 0] for name in names]
    return np.stack(pair)


def _labels(outcomes: xr.Dataset) -> np.ndarray:
    if "labels" not in outcomes:
        raise DesignError(
            "calibration compares confidences with labels, and these outcomes hold none; observe a "
            "classifier's logits on a labelled probe set."
        )
    return outcomes["labels"].values
