"""Subgroup effects: the function field by class, by difficulty or by any label of the inputs.

Shapes: R seed pairs, N inputs, C classes, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bygones.analysis.estimators import Estimate, jackknife
from bygones.analysis.estimators.max_t import Band, max_t
from bygones.analysis.function_field import FunctionField, gram
from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError


@dataclass(frozen=True)
class Group:
    """The effect of a treatment on one group of inputs.

    `shift`: mean change of the label's probability (of the outputs, where there are no labels), its
    interval simultaneous over the groups; `null`: the same for the matched null. `squared_norm`:
    the bias-corrected squared norm of the field in this group, jackknife over seeds. `share_moved`:
    the share of its inputs whose own simultaneous interval leaves out 0.
    """

    name: str
    num_inputs: int
    shift: Estimate
    null: Estimate | None
    squared_norm: Estimate
    share_moved: float

    def __str__(self) -> str:
        return f"{self.name} ({self.num_inputs} inputs): {self.shift}"


@dataclass(frozen=True)
class _Fold:
    """One fold of cross-fitting: some of the seeds, and the group of each input: (N,) of 0 … G − 1."""

    seeds: np.ndarray
    group_of: np.ndarray


def breakdown(
    field: FunctionField, by: str | ArrayLike = "class", *, num_groups: int = 4
) -> tuple[Group, ...]:
    """Estimate the field in groups of inputs, each with a simultaneous interval and its matched null.

        shift(g) = mean over s of 1/|g| Σ_{x in g} d_s(x, label of x)

    `by`: "class" (of the labels), "difficulty", or one label an input, (N,).

    Difficulty is how improbable the control finds the label. Grouping by the same runs that the
    effect is measured on would find one where there is none: an input that looks hard in a control
    by chance looks easier in any other run, so d = p(treated) − p(control) is above 0 in the "hard"
    group and below 0 in the "easy" one (regression to the mean). So the seeds are halved, and each
    half is measured in groups formed from the *other* half's controls: given the groups, its d is
    independent of how they were chosen, so its mean is that of τ over the group (cross-fitting). Then
    the halves swap, so that no seed is lost. There are `num_groups` groups of equal size; their
    members may differ a little between the halves.
    """
    names, folds = _folds(field, by, num_groups)
    band = _shifts(field, folds, len(names))
    null = None
    if field.null is not None:
        null = _shifts(field.null, _folds(field.null, by, num_groups)[1], len(names))
    groups: list[Group] = []
    for g, name in enumerate(names):
        members = [fold.group_of == g for fold in folds]
        groups.append(
            Group(
                name=name,
                num_inputs=int(members[0].sum()),
                shift=band[g],
                null=None if null is None else null[g],
                squared_norm=_squared_norm(field, folds, g),
                share_moved=float(np.mean([field.moved[own].mean() for own in members])),
            )
        )
    return tuple(groups)


def _folds(
    field: FunctionField, by: str | ArrayLike, num_groups: int
) -> tuple[list[str], list[_Fold]]:
    everyone = np.arange(len(field.differences))
    if not isinstance(by, str):
        given = np.asarray(by)
        if given.shape != (field.differences.shape[1],):
            raise DesignError(
                f"a breakdown takes one label an input: {field.differences.shape[1]} of them; got "
                f"an array of shape {list(given.shape)}."
            )
        found, group_of = np.unique(given, return_inverse=True)
        return [str(name) for name in found], [_Fold(everyone, group_of)]
    if by not in ("class", "difficulty"):
        raise unknown_name("breakdown", by, ("class", "difficulty"))
    if field.labels is None:
        raise DesignError(
            f"a breakdown by {by} needs the inputs' labels, and these outcomes hold none; hand over "
            f"labels of your own."
        )
    if by == "class":
        found, group_of = np.unique(field.labels, return_inverse=True)
        return [f"class {name}" for name in found], [_Fold(everyone, group_of)]
    if len(everyone) < 2:
        raise DesignError("a breakdown by difficulty halves the seeds, so it needs at least 2.")
    if not 2 <= num_groups <= len(field.labels):
        raise DesignError(
            f"difficulty goes into 2 to {len(field.labels)} groups of inputs; got {num_groups}."
        )
    halves = everyone[::2], everyone[1::2]
    folds = [
        _Fold(seeds, _by_difficulty(field, others, num_groups))
        for seeds, others in (halves, halves[::-1])
    ]
    return _quantile_names(num_groups), folds


def _by_difficulty(field: FunctionField, seeds: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the group of each input, (N,), from 0 (hardest): equal sizes, by rank."""
    ease = _of_label(field, field.control[seeds]).mean(axis=0)
    rank = ease.argsort(kind="stable").argsort(kind="stable")
    return rank * num_groups // ease.size


def _quantile_names(num_groups: int) -> list[str]:
    names = [f"{g + 1} of {num_groups}" for g in range(num_groups)]
    names[0], names[-1] = f"{names[0]} (hardest)", f"{names[-1]} (easiest)"
    return names


def _of_label(field: FunctionField, numbers: np.ndarray) -> np.ndarray:
    """Return the label's numbers, (R, N, C) -> (R, N), or the mean over outputs where there are no labels."""
    if field.labels is None:
        return numbers.mean(axis=-1)
    return np.take_along_axis(numbers, field.labels[None, :, None], axis=-1)[..., 0]


def _shifts(field: FunctionField, folds: list[_Fold], num_groups: int) -> Band:
    own = _of_label(field, field.differences)
    shifts = np.empty((len(own), num_groups))
    for fold in folds:
        for g in range(num_groups):
            shifts[fold.seeds, g] = own[np.ix_(fold.seeds, fold.group_of == g)].mean(axis=1)
    return max_t(shifts, level=field.band.level)


def _squared_norm(field: FunctionField, folds: list[_Fold], g: int) -> Estimate:
    """Only pairs of seeds that share a fold share a group, so only they have an inner product."""
    size = len(field.differences)
    products = np.full((size, size), np.nan)
    for fold in folds:
        own = field.differences[np.ix_(fold.seeds, fold.group_of == g)]
        products[np.ix_(fold.seeds, fold.seeds)] = gram(own)
    return jackknife(products, statistic=_mean_over_known_pairs, level=field.band.level)


def _mean_over_known_pairs(products: np.ndarray) -> float:
    off = products[~np.eye(len(products), dtype=bool)]
    known = off[np.isfinite(off)]
    return float(known.mean()) if known.size else float("nan")
