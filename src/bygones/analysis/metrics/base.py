"""Metric: how one is described, and the arithmetic that several of them share.

Shapes: N inputs, C classes; `...` any leading dimensions (seeds, arms), kept in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Eats = Literal["probabilities", "log_probabilities", "logits", "values"]


@dataclass(frozen=True)
class Metric:
    """One way to say how far two functions are apart, or how good one function is.

    A *distance* is called with two arrays (..., N, C), treated and control, a *score* with one
    array (..., N, C) and the labels (N,); both give an array (...,). NaN in, NaN out.
    `eats` says what the arrays must hold. `unit` is printed after a number, `label` stands for
    the metric in prose, and a printed number is `scale` times the computed one.
    """

    name: str
    kind: Literal["distance", "score"]
    input_kind: Eats
    bounds: tuple[float, float]
    unit: str
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    label: str
    symmetric: bool = True  # of a distance: whether treated and control may change places
    scale: float = 1.0

    def __post_init__(self) -> None:
        # So that `Catalogue.summary()` shows what this member is, and `help` its formula.
        object.__setattr__(self, "__doc__", self.function.__doc__)

    def __call__(self, array: np.ndarray, other: np.ndarray) -> np.ndarray:
        return self.function(array, other)


UNBOUNDED = (0.0, math.inf)


def mean_over_inputs(per_input: np.ndarray) -> np.ndarray:
    """The mean over the last axis, inputs: shape (..., N) -> (...,)."""
    return per_input.mean(axis=-1)


def not_negative(numbers: np.ndarray) -> np.ndarray:
    """What cannot be negative, without the rounding errors that are; NaN stays NaN."""
    return np.maximum(numbers, 0.0)


def predicted(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class of each input, and which inputs have one: both (..., N).

    `argmax` would answer with the place of a NaN as if it were a class. Of equal scores the first
    class is predicted.
    """
    return scores.argmax(axis=-1), np.asarray(~np.isnan(scores).any(axis=-1))


def calibration_gap(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Expected calibration error for a way to put confidences into bins.

        Σ_b n_b/N · |accuracy_b − confidence_b|  =  Σ_b |Σ_{i in b} (correct_i − confidence_i)| / N

    `bins` maps confidences (..., N) to bin numbers 0 … B − 1 of the same shape.
    """
    chosen, known = predicted(probabilities)
    confidence = np.where(known, probabilities.max(axis=-1), 0.0)
    surplus = (chosen == labels) - confidence
    bin_of = bins(confidence)
    num_bins = int(bin_of.max()) + 1
    gaps = sum(np.abs((surplus * (bin_of == b)).sum(axis=-1)) for b in range(num_bins))
    return np.where(known.all(axis=-1), np.asarray(gaps) / labels.size, np.nan)


# ------------------------------------------------------------------ representations


def centred_unit(values: np.ndarray) -> np.ndarray:
    """A representation without its place and its size: mean 0 over inputs, Frobenius norm 1.

    (..., N, D) -> the same shape. What is the same for every input has no shape at all: zeros.
    """
    centred = values - values.mean(axis=-2, keepdims=True)
    # Of size one first, so that squares of tiny or huge numbers stay numbers.
    largest = np.abs(centred).max(axis=(-2, -1), keepdims=True)
    flat = (values == values[..., :1, :]).all(axis=(-2, -1), keepdims=True) | (largest == 0.0)
    sized = np.where(flat, 0.0, centred / np.where(flat, 1.0, largest))
    return sized / np.where(flat, 1.0, np.sqrt((sized**2).sum(axis=(-2, -1), keepdims=True)))


def between_known(
    x: np.ndarray,
    y: np.ndarray,
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """A distance of two representations, exactly 0 where they are equal and NaN where one is unknown.

    (..., N, D), (..., N, D) -> (...,). That equal arrays are at distance 0 is part of what a
    distance is; computed, it would be a rounding error (a product of many matrices at once and of
    one alone may add up in another order), and "exactly 0" of a sham would not be readable off it.
    """
    axes = (-2, -1)
    known = np.isfinite(x).all(axis=axes) & np.isfinite(y).all(axis=axes)
    equal = (x == y).all(axis=axes)
    found = distance(np.where(np.isfinite(x), x, 0.0), np.where(np.isfinite(y), y, 0.0))
    return np.where(known, np.where(equal, 0.0, found), np.nan)


def one_minus_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 − ⟨a, b⟩/(‖a‖ ‖b‖) over the last axis, as 1/2 ‖a/‖a‖ − b/‖b‖‖²: small distances stay exact.

    Two that are all zeros are at 0, one that is and one that is not at 1 (no alignment).

    >>> one_minus_cosine(np.array([1.0, 0.0]), np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0, 1.0]
    """
    sizes = [np.sqrt((v**2).sum(axis=-1, keepdims=True)) for v in (a, b)]
    units = [v / np.where(size > 0.0, size, 1.0) for v, size in zip((a, b), sizes, strict=True)]
    half_square = 0.5 * ((units[0] - units[1]) ** 2).sum(axis=-1)
    one_is_nothing = (sizes[0] > 0.0) != (sizes[1] > 0.0)
    return np.where(one_is_nothing[..., 0], 1.0, half_square)
