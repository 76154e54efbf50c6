"""Segment records: what a store keeps of one trained stretch of a run, under the address of its history.

All records under an address are read as segments, so the two of a run's initial state cover no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from bygones.core.values import Digest
from bygones.store.base import Record


@dataclass(frozen=True)
class SegmentRecord:
    """One run from boundary `start` to `stop`, observed at `steps` by the probe of digest `probe`.

    `observed`: the object with the losses and observations; `snapshot`: the one with the state at `stop`.
    What does not apply is None. `kind`: of a recipe's observations; `marks`: of a control, the hashes of its
    state that arms are compared with, by boundary; `merged`: of an arm, the proof that from some boundary
    on this is the record of its control (see `study.merging`). Of a script's segment, `state`: the digest
    of its state at `stop`, "" if not taken; `failed`: how it ended too early, "" if it did not.
    """

    start: int
    stop: int
    steps: tuple[int, ...] = ()
    probe: Digest = ""
    observed: Digest | None = None
    snapshot: Digest | None = None
    diverged_at: int | None = None
    kind: Literal["logits", "values"] | None = None
    state: Digest | None = None
    failed: str | None = None
    marks: Record | None = None
    merged: Record | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read the record of a segment, or of an initial state, whose own keys are left out."""
        names = {one.name for one in fields(cls)}
        known: dict[str, Any] = {name: value for name, value in record.items() if name in names}
        known["steps"] = tuple(record["steps"])
        return cls(**known)

    def to_dict(self) -> Record:
        """Return plain values, fit for JSON."""
        record = {**asdict(self), "steps": list(self.steps)}
        optional = ("kind", "state", "failed", "marks", "merged")
        return {n: v for n, v in record.items() if v is not None or n not in optional}


_NO_STEPS: Record = {
    "start": 0,
    "stop": 0,
    "steps": [],
    "probe": "",
    "observed": None,
    "snapshot": None,
}


@dataclass(frozen=True)
class BuiltRecord:
    """The initial state of a recipe's run: `built`, its digest."""

    built: Digest

    def to_dict(self) -> Record:
        """Return plain values, fit for JSON."""
        return {**_NO_STEPS, "built": self.built}


@dataclass(frozen=True)
class PastRecord:
    """A script's run up to the fork: its batches and losses step by step, its state and weights there.

    `chain`: digests of batches, chained; `losses`: as hexadecimal floats.
    """

    chain: list[Digest]
    state: Digest
    weights: Digest
    losses: list[str]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**{one.name: record[one.name] for one in fields(cls)})

    def to_dict(self) -> Record:
        """Return plain values, fit for JSON."""
        return {**_NO_STEPS, "diverged_at": None, **asdict(self)}
