"""The shared past: check that runs of one seed are equal up to the fork, and that seeds differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bygones.core.values import Digest


@dataclass(frozen=True)
class Past:
    """A run up to the fork, as digests.

    `batches`: of each step's data, where it is seen. `losses`: of each step, as `float.hex` writes it.
    `state`: of everything that training continues from, by name. `drawn`: of what the seed decides, which
    no two seeds may share.
    """

    batches: Sequence[object]
    losses: Sequence[str]
    state: Mapping[str, Digest]
    drawn: Digest


def past_difference(one: Past, other: Past) -> str | None:
    """Name what differs: the first step in its data or loss, and the first part of the state.

    None where two pasts are equal to the bit.

    >>> equal = Past(["a", "b"], ["0x1p0", "0x1p1"], {"weights": "c"}, "c")
    >>> past_difference(equal, Past(["a", "d"], ["0x1p0", "0x1p1"], {"weights": "e"}, "e"))
    'the data differ first in step 1, and then weights'
    """
    step = _first_step("the data differ", one.batches, other.batches) or _first_step(
        "the loss differs", one.losses, other.losses
    )
    names = {**one.state, **other.state}
    part = next((name for name in names if one.state.get(name) != other.state.get(name)), None)
    if step is not None:
        return step if part is None else f"{step}, and then {part}"
    return None if part is None else f"{part} differs, though the steps before it do not"


def seed_with_equal_past(past: Past, others: Mapping[int, Past]) -> int | None:
    """The first other seed that trains the same run; None if every seed trains its own."""
    return next((seed for seed, other in others.items() if other.drawn == past.drawn), None)


def _first_step(what: str, one: Sequence[object], other: Sequence[object]) -> str | None:
    for step, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return f"{what} first in step {step}"
    return None
