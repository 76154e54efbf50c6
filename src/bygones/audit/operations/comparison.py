"""Comparison of two runs' operations: the first whose result differs, in what, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import torch
from torch import Tensor

from bygones.audit.operations.recorder import Given, Operation
from bygones.audit.operations.runs import Operations

_MOST_ALIGNED = 4000  # operations after the first unequal one that are aligned with the other run's
Kind = Literal["other operation", "argument", "input", "random numbers", "result"]


@dataclass(frozen=True)
class Difference:
    """The first difference of two sequences of operations.

    `one`, `other`: numbers of the operations; None where a run has none there. `kind`: what differs first.
    It is the operation itself, an `argument`, an `input` from outside of the operations, the state of the
    generator, or only the result. `argument`: name of the argument or input. `alone`: operations before that
    only one of the runs does, without consequence up to there.
    """

    one: int | None
    other: int | None
    kind: Kind
    argument: str = ""
    alone: int = 0


@dataclass(frozen=True)
class Size:
    """Size of the difference of two tensors of one shape.

    `absolute`: the largest |a - b|. `relative`: the largest |a - b| / max(|a|, |b|). `ulps`: the largest
    number of floats of their type between the two, None for other types. `count`: how many of `total`
    elements differ.
    """

    absolute: float
    relative: float
    ulps: int | None
    count: int
    total: int

    def __str__(self) -> str:
        ulps = "" if self.ulps is None else f", {self.ulps:,} ulps"
        return (
            f"by at most {self.absolute:.3g} (relative {self.relative:.2g}{ulps}) in {self.count:,} of "
            f"{self.total:,} elements"
        )


def first_difference(one: Operations, other: Operations) -> Difference | None:
    """Find the first difference of two runs' operations; None if they are equal to the bit.

    The runs are aligned by the operations' names and modules, so that what only one of them does, without
    consequence (a number that is printed), is passed over.
    """
    mine, theirs = one.operations, other.operations
    begin = _common(mine, theirs)
    if begin == len(mine) == len(theirs):
        return None
    kept = [
        [_label(operation, run) for operation in run.operations[begin : begin + _MOST_ALIGNED]]
        for run in (one, other)
    ]
    matcher = SequenceMatcher(None, kept[0], kept[1], autojunk=False)
    block: Difference | None = None  # the last operations that only one of the runs does
    made: set[str] = set()  # what these returned
    alone = 0
    for tag, i, stop_i, j, stop_j in matcher.get_opcodes():
        if tag != "equal":
            first = begin + i if i < stop_i else None, begin + j if j < stop_j else None
            block = block or Difference(*first, "other operation", alone=alone)
            extra = [*mine[begin + i : begin + stop_i], *theirs[begin + j : begin + stop_j]]
            made |= {digest for operation in extra for digest in operation.returned}
            alone += len(extra)
            continue
        for offset in range(stop_i - i):
            a, b = begin + i + offset, begin + j + offset
            found = _differ(mine[a], theirs[b])
            if found is None:
                continue
            kind, argument, digests = found
            if block is not None and (kind in {"input", "random numbers"} or digests & made):
                return block
            return Difference(a, b, kind, argument, alone)
    return block


def _common(mine: Sequence[Operation], theirs: Sequence[Operation]) -> int:
    """Return how many operations both begin with."""
    for index, (a, b) in enumerate(zip(mine, theirs, strict=False)):
        if a.key != b.key:
            return index
    return min(len(mine), len(theirs))


def _label(operation: Operation, run: Operations) -> tuple[str, str, str]:
    modules = [run.modules.get(module, "") for module in operation.modules]
    return operation.name, operation.phase, modules[-1] if modules else ""


def _differ(mine: Operation, theirs: Operation) -> tuple[Kind, str, set[str]] | None:
    """Return what differs first between two operations of one name, and digests of what differs."""
    for (name, text), (_, other) in zip(mine.settings, theirs.settings, strict=False):
        if text != other:
            return "argument", name, set()
    for a, b in zip(mine.given, theirs.given, strict=False):
        if a.digest != b.digest:
            digests = {a.digest, b.digest}
            return ("argument" if _is_number(a, b) else "input"), a.argument, digests
    if mine.drawn_from != theirs.drawn_from:
        return "random numbers", "generator", set()
    if mine.returned != theirs.returned:
        return "result", "", set()
    return None


def _is_number(mine: Given, theirs: Given) -> bool:
    return mine.is_number and theirs.is_number


def measure_size(one: Tensor, other: Tensor) -> Size | None:
    """Measure how far two tensors are apart; None if their types or shapes differ.

    >>> print(measure_size(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0000002])))
    by at most 2.38e-07 (relative 1.2e-07, 1 ulps) in 1 of 2 elements
    """
    if one.dtype != other.dtype or one.shape != other.shape or one.is_complex():
        return None
    differ = one != other
    if one.is_floating_point():
        differ &= ~(one.isnan() & other.isnan())
    count = int(differ.sum())
    if count == 0:
        return Size(0.0, 0.0, None, 0, one.numel())
    a, b = one[differ].double(), other[differ].double()
    apart = (a - b).abs()
    relative = apart / torch.maximum(a.abs(), b.abs())
    ulps = _count_ulps(one[differ], other[differ]) if one.is_floating_point() else None
    return Size(float(apart.max()), float(relative.max()), ulps, count, one.numel())


_INTEGERS: dict[int, Any] = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _count_ulps(one: Tensor, other: Tensor) -> int | None:
    """Return the largest number of floats between two tensors, by their bits as ordered integers."""
    kind = _INTEGERS.get(one.element_size())
    if kind is None:
        return None
    places = []
    for tensor in (one, other):
        bits = tensor.contiguous().view(kind).to(torch.int64)
        lowest = -(2 ** (8 * one.element_size() - 1))
        places.append(torch.where(bits < 0, lowest - bits, bits))
    if kind is torch.int64:  # Python's integers, which do not overflow
        pairs = zip(*(place.tolist() for place in places), strict=True)
        return max(abs(a - b) for a, b in pairs)
    return int((places[0] - places[1]).abs().max())
