"""First difference of two runs: the first leaf of their states, or the first step of their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bygones.core.digest import same_bits


def first_differing_leaf(
    one: Mapping[str, Mapping[str, Any]],
    other: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return the first leaf that differs, as `source/leaf`; None where all are equal to the bit.

    Sources in their order, the leaves of each by name. What only one of the two holds differs.

    >>> first_differing_leaf({"order": {}, "weights": {"w": 1, "b": 2}}, {"weights": {"b": 3, "w": 1}})
    'weights/b'
    """
    for source in {**one, **other}:
        mine, theirs = one.get(source, {}), other.get(source, {})
        for leaf in sorted(mine.keys() | theirs.keys()):
            if not same_bits(mine.get(leaf), theirs.get(leaf)):
                return f"{source}/{leaf}"
    return None


def first_differing_index(one: Sequence[Any], other: Sequence[Any]) -> int | None:
    """Return the first index at which two sequences differ; None where one begins with the other.

    >>> first_differing_index("abcd", "abxd"), first_differing_index("ab", "abc")
    (2, None)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (mine, theirs) in pairs if mine != theirs), None)
