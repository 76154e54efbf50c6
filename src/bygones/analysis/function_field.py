"""Function field: the effect of a treatment on each input, one number an input and class.

Shapes: R seed pairs, N inputs, C classes (or outputs), K classes that the band is about.

    d_s(x, c) = p_s(c | x; treated) − p_s(c | x; control)
    τ(x, c)   = mean over s of d_s(x, c)

Signed, so what differs from seed to seed averages out and only what a treatment does *in every run
alike* is left. (A distance keeps both.) There is no ceiling: between two seeds this mean is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bygones.analysis.arms import Arms, step_index, values_at
from bygones.analysis.estimators import (
    Estimate,
    fewest_for_sign_flips,
    jackknife,
    mean_over_pairs,
    means_without_each,
    pair_means_without_each,
)
from bygones.analysis.estimators.max_t import Band, max_t
from bygones.analysis.predictions import probabilities
from bygones.analysis.repeats import repeats
from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.text import capitalize

Scalar = Literal["classes", "label", "log_odds"]
_SCALARS = ("classes", "label", "log_odds")
_SKEWED = 1.0  # |skewness| of half the inputs above which the band is not to be trusted


@dataclass(frozen=True)
class SquaredNorm:
    """Squared norm of the field: mean over inputs of Σ_c τ(x, c)², without the bias of squaring a mean.

        corrected  = mean over s ≠ s′ of ⟨d_s, d_s′⟩          ⟨a, b⟩ = 1/N Σ_x Σ_c a(x, c) b(x, c)
        naive      = ⟨d̄, d̄⟩                                  d̄: mean over s
        bias       = (mean_s ⟨d_s, d_s⟩ − corrected) / R  =  naive − corrected
        systematic = corrected / mean_s ⟨d_s, d_s⟩

    The mean d̄ is τ plus noise, and the square of noise does not average out: E⟨d̄, d̄⟩ = ⟨τ, τ⟩ + V/R,
    V the variance of d summed over classes and averaged over inputs. Two different seeds share no
    noise, so E⟨d_s, d_s′⟩ = ⟨τ, τ⟩ exactly; the mean over pairs is the mean, over all ways to split
    the seeds, of the inner product of the two halves' means. It can be negative: then nothing is
    there that seeds agree on. `systematic` is that share of all movement which is.
    Intervals: jackknife over seeds, which are independent. Covers 0.96 to 0.995 where 0.95 is asked
    (6 to 32 normal pairs, 20 inputs or more), widest-safe at τ = 0 where it excludes 0 in under 2 % of
    studies; with a single input and a small τ it falls to 0.89.
    """

    corrected: Estimate
    naive: float
    bias: float
    systematic: Estimate

    def __str__(self) -> str:
        share = self.systematic.scaled(100.0)
        return (
            f"squared norm {self.corrected} (naively {self.naive:.3g}, of which {self.bias:.3g} is "
            f"bias); seeds agree on {share.number}% {share.interval} of the movement"
        )


@dataclass(frozen=True)
class MovedInput:
    """One input that a treatment moves, and by how much: a simultaneous interval that leaves out 0."""

    input: int
    label: int | None
    at: int  # the class (or output) that the change is of
    change: Estimate

    def __str__(self) -> str:
        of = "" if self.label is None else f" (class {self.label})"
        return f"input {self.input}{of}: {self.change} in class {self.at}"


@dataclass(frozen=True, eq=False)
class FunctionField:
    """The field τ with simultaneous intervals, its squared norm, its floor and its matched null.

    `differences`, `control`: (R, N, C), one a finite seed pair. `band`: (N, K), what `of` names.
    `at`: (N, K), the class of each. `floor`: the largest |p(sham) − p(control)| of any seed, input
    and class; exactly 0 under a deterministic contract. `null`: the field of the matched null.
    """

    arm: str
    sentence: str
    step: int
    horizon: int
    of: Scalar
    differences: np.ndarray
    control: np.ndarray
    labels: np.ndarray | None
    band: Band
    at: np.ndarray
    floor: float | None
    null: FunctionField | None
    note: str = ""

    @cached_property
    def norm(self) -> SquaredNorm:
        return squared_norm(self.differences)

    @cached_property
    def _largest(self) -> np.ndarray:
        """The index in the band of each input's largest |t|.

        The band holds for every class at once, so it also holds for the one that is picked.
        """
        return np.nan_to_num(np.abs(self.band.t), nan=-1.0, posinf=np.inf).argmax(axis=1)

    def change_of(self, place: int) -> Estimate:
        """Return the change of one input, in the class where it is clearest."""
        return self.band[place, int(self._largest[place])]

    def _at_largest(self, of_band: np.ndarray) -> np.ndarray:
        return np.take_along_axis(of_band, self._largest[:, None], axis=1)[:, 0]

    @property
    def value(self) -> np.ndarray:
        """(N,): the change of each input, in the class where it is clearest."""
        return self._at_largest(self.band.mean)

    @property
    def low(self) -> np.ndarray:
        return self._at_largest(self.band.low)

    @property
    def high(self) -> np.ndarray:
        return self._at_largest(self.band.high)

    @property
    def at_class(self) -> np.ndarray:
        return self._at_largest(self.at)

    @property
    def moved(self) -> np.ndarray:
        """(N,) bool: inputs whose simultaneous interval leaves out 0."""
        return (self.low > 0.0) | (self.high < 0.0)

    @property
    def too_few(self) -> str:
        """Why it cannot be told which inputs were moved: too few pairs, in words; "" where it can."""
        fewest, n = fewest_for_sign_flips(self.band.level), self.band.num_pairs
        if n >= fewest:
            return ""
        return (
            f"to tell which inputs it moves takes {fewest} seed pairs at {self.band.level:.0%}; there "
            f"{'is' if n == 1 else 'are'} {n}"
        )

    def __str__(self) -> str:
        if self.too_few:
            return f"{capitalize(self.sentence)} at step {self.step}: {self.too_few}; {self.norm}."
        num_moved, num_inputs = int(self.moved.sum()), len(self.moved)
        said = (
            f"{capitalize(self.sentence)} moved {num_moved} of {num_inputs} "
            f"inputs at step {self.step}, {self.horizon} steps on "
            f"({self.band.level:.0%} intervals of {_OF_WHAT[self.of]}, simultaneous over "
            f"{_coordinates(self)}, {self.band.num_pairs} seed pairs, {self.band.method})"
        )
        if self.band.num_dropped:
            said += f", {self.band.num_dropped} pairs diverged and are left out"
        said += f"; {self.norm}"
        if self.floor is not None:
            by = "exactly 0" if self.floor == 0.0 else f"at most {self.floor:.3g}"
            said += f"; doing nothing (sham) moves any of them by {by}"
        if self.null is not None:
            share = self.null.norm.systematic.scaled(100.0)
            said += (
                f"; its matched null moves {int(self.null.moved.sum())}, and seeds agree on "
                f"{share.number}% {share.interval} of that"
            )
        notes = "; ".join(note for note in (self.band.note, self.note) if note)
        return f"{said}; {notes}." if notes else f"{said}."


_OF_WHAT = {
    "classes": "each class's probability",
    "label": "the label's probability",
    "log_odds": "the label's log odds",
}


def function_field(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    *,
    of: Scalar = "classes",
    reference: str = "control",
    level: float = 0.95,
) -> FunctionField:
    """Estimate the field of one arm at one probe step, with intervals simultaneous over its inputs.

    `of`: what the intervals are about. "classes": every class's probability, and each input is shown
    by the class of its largest |t|; "label": the probability of the input's label; "log_odds": log
    of p/(1 − p) of the label. Flipping signs assumes symmetric differences. Probabilities of a
    sure classifier are far from that (a rare run moves an input a lot, the others hardly), log odds
    come close: where half the inputs have |skewness| > 1 a note says so, and to ask for "log_odds".
    `reference`: "control", or another arm: the null of `arm` gives the field of the excess.
    """
    facts = facts_of(outcomes)
    arms = Arms(facts.arms)
    names = [arms[name].name for name in (arm, reference)]
    if of not in _SCALARS:
        raise unknown_name("scalar of a field", of, _SCALARS)
    step_index(outcomes, step)  # raises where there is no such probe step
    treated, other = (_outputs_at(outcomes, name, step) for name in names)
    finite = np.isfinite(treated).all(axis=(1, 2)) & np.isfinite(other).all(axis=(1, 2))
    labels = outcomes["labels"].values if "labels" in outcomes else None
    differences = (treated - other)[finite]
    numbers, at = _band_input(outcomes, names, step, of, labels, treated - other)
    floor = None
    if arms.sham is not None:
        sham, control = arms.names[arms.sham], arms.names[arms.control]
        apart = np.concatenate(
            [
                np.abs(_outputs_at(one, sham, at) - _outputs_at(one, control, at))
                for one in repeats(outcomes.sel(step=[step]))
                for at in one["step"].values.tolist()
            ]
        )
        apart = apart[np.isfinite(apart).all(axis=(1, 2))]
        floor = float(apart.max()) if apart.size else None
    null = arms.null_of(arm)
    return FunctionField(
        arm=arm,
        sentence=arms[arm].sentence,
        step=int(step),
        horizon=int(step) - facts.fork_at,
        of=of,
        differences=differences,
        control=other[finite],
        labels=labels,
        band=max_t(numbers, level=level),
        at=at,
        floor=floor,
        null=None
        if null is None or reference != "control"
        else function_field(outcomes, arms.names[null], step, of=of, level=level),
        note=_skew_note(numbers[finite], of, labels),
    )


def moved_inputs(field: FunctionField) -> list[MovedInput]:
    """Return the inputs that are moved, the surest large change first.

    Ordered by the end of the interval that is nearer to 0: at least so much was moved. All intervals
    hold at once, so the order may be read from the top to anywhere.
    """
    least = np.minimum(np.abs(field.low), np.abs(field.high))
    order = np.argsort(-least, kind="stable")
    return [
        MovedInput(
            int(i),
            None if field.labels is None else int(field.labels[i]),
            int(field.at_class[i]),
            field.change_of(int(i)),
        )
        for i in order
        if field.moved[i]
    ]


def squared_norm(differences: np.ndarray, level: float = 0.95) -> SquaredNorm:
    """Estimate the bias-corrected squared norm of a field from its pairs, (R, N, C); see `SquaredNorm`.

    >>> noise = np.random.default_rng(0).standard_normal((8, 500, 1))
    >>> found = squared_norm(0.5 + noise)                     # τ = 0.5 everywhere: 0.25
    >>> round(found.corrected.value, 2), round(found.naive, 2), round(found.bias, 2)
    (0.23, 0.36, 0.12)
    """
    return norm_of_gram(gram(differences), level)


def gram(differences: np.ndarray) -> np.ndarray:
    """Compute the Gram matrix ⟨d_s, d_s′⟩, (R, N, C) -> (R, R): a mean over inputs, a sum over classes."""
    R, N, C = differences.shape
    flat = differences.reshape(R, N * C)
    return flat @ flat.T / max(N, 1)


def norm_of_gram(products: np.ndarray, level: float = 0.95) -> SquaredNorm:
    """Estimate the squared norm from the Gram matrix alone, (R, R)."""
    corrected = jackknife(
        products, statistic=mean_over_pairs, level=level, leave_one_out=pair_means_without_each
    )
    naive = float(products.mean()) if products.size else math.nan
    share = jackknife(
        products, statistic=_systematic, level=level, leave_one_out=_systematic_without_each
    )
    return SquaredNorm(corrected, naive, naive - corrected.value, share)


def _systematic(products: np.ndarray) -> float:
    total = float(np.trace(products)) / len(products)
    return mean_over_pairs(products) / total if total > 0.0 else 0.0


def _systematic_without_each(products: np.ndarray) -> np.ndarray:
    """Return `_systematic` without each seed."""
    totals = means_without_each(np.diagonal(products))
    shares = pair_means_without_each(products) / np.where(totals > 0.0, totals, 1.0)
    return np.where(totals > 0.0, shares, 0.0)


def _outputs_at(outcomes: xr.Dataset, arm: str, step: int) -> np.ndarray:
    """Return an arm's outputs, (R, N, C): probabilities of a classifier, or plain values.

    Where arms are repeated within each seed, the mean over its repeats; NaN where one of them diverged.
    """
    found: list[np.ndarray] = []
    for one in repeats(outcomes.sel(step=[step])):
        chosen = one.sel(arm=[arm])
        outputs = probabilities(chosen) if "logits" in chosen else chosen["values"]
        found.append(outputs.values[:, 0, 0].astype(np.float64))
    return np.mean(found, axis=0)


def _band_input(
    outcomes: xr.Dataset,
    names: list[str],
    step: int,
    of: Scalar,
    labels: np.ndarray | None,
    differences: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences that the band covers, (R, N, K), and the class of each, (N, K)."""
    shape: tuple[int, int, int] = differences.shape
    _, N, C = shape
    if of == "classes":
        return differences, np.broadcast_to(np.arange(C), (N, C))
    if labels is None:
        raise DesignError(
            f"a field of '{of}' needs labels, and these outcomes hold none; ask for of='classes'."
        )
    own = labels[:, None]
    if of == "label":
        return np.take_along_axis(differences, own[None], axis=2), own
    apart: list[np.ndarray] = []
    for one in repeats(outcomes.sel(step=[step])):
        treated, other = (
            _log_odds(values_at(one["logits"], arm=name)[:, 0].astype(np.float64), labels)
            for name in names
        )
        apart.append(treated - other)
    return np.mean(apart, axis=0)[:, :, None], own


def _log_odds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the log odds log p/(1 − p) of the label, (R, N, C) -> (R, N): z_y − log Σ_{c ≠ y} exp z_c."""
    own = labels[None, :, None]
    known = np.asarray(np.isfinite(logits).all(axis=-1))
    safe = np.where(known[..., None], logits, 0.0)
    of_label = np.take_along_axis(safe, own, axis=-1)[..., 0]
    num_classes: int = safe.shape[-1]
    others = np.where(np.arange(num_classes) == own, -np.inf, safe)
    return np.where(known, of_label - np.asarray(logsumexp(others, axis=-1)), np.nan)


def _skew_note(numbers: np.ndarray, of: Scalar, labels: np.ndarray | None) -> str:
    """Return a warning where differences are so skewed over seeds that the band may undercover, else ""."""
    if len(numbers) < 6:
        return ""
    centred = numbers - numbers.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > 1e-12 * max(float(np.abs(numbers).max()), 1e-300)
    if not varies.any():
        return ""
    skewness = np.abs(((centred / np.where(varies, spread, 1.0)) ** 3).mean(axis=0)[varies])
    typical = float(np.median(skewness))
    if typical <= _SKEWED:
        return ""
    instead = "" if of == "log_odds" or labels is None else "; of='log_odds' is closer to it"
    return (
        f"the differences are skewed over seeds (median |skewness| {typical:.2g}) while sign flips "
        f"assume symmetry, so the intervals may cover less than they say{instead}"
    )


def _coordinates(field: FunctionField) -> str:
    N, K = field.band.mean.shape
    return f"{N} inputs" if K == 1 else f"{N} inputs x {K} classes"
