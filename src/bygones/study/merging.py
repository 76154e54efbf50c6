"""Exact merging: an arm whose state equals its control's to the bit is its control from there on.

    z_arm(t) = z_control(t) in every bit, and no treatment at t or later
        =>  z_arm(s) = z_control(s) and equal losses and observations at every s ≥ t

z: the snapshot of a run, which is all that it carries on (the fork check proves this for the recipe), with
the hash chains over the examples so far. Both are hashed at the boundaries t₀, t₀+1, t₀+2, t₀+4, …, t₀ being
the first one after the last treatment. At the first match the arm's training ends; the rest is copied from
the control's record, and the digest and the boundary are kept as the proof. A sham merges one step
after its window; so do a reset of BatchNorm once (1 − momentum)^h is below rounding, and an average that
nothing reads. Training the whole study once more without merging (`merge=False`) tests it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from bygones.core.digest import digest
from bygones.core.values import Digest
from bygones.store import AbstractStore, Damaged, unpack
from bygones.store.segment_record import SegmentRecord
from bygones.study.tree import Segment, Tree
from bygones.training.interventions import Resample, Sham
from bygones.training.run import Snapshot
from bygones.training.treatment import Treatment


def control_history(history: Iterable[Treatment]) -> tuple[Treatment, ...]:
    """Return the treatments of the control beside an arm: none, or what draws a sibling's rest anew."""
    return tuple(t for t in history if isinstance(t.intervention, Resample))


def is_control(segment: Segment) -> bool:
    """Whether a segment is the control's, so that others may merge with it."""
    return control_history(segment.history) == segment.history


def is_sham(segment: Segment) -> bool:
    """Whether a segment belongs to a sham alone."""
    rest = set(segment.history) - set(control_history(segment.history))
    return bool(rest) and all(isinstance(t.intervention, Sham) for t in rest)


def merge_boundaries(tree: Tree, segment: Segment, start: int, stop: int) -> list[int]:
    """Return the boundaries in [start, stop) at which training a segment is interrupted to hash the state.

    Of an arm: where it may merge. Of a control: where any arm of the tree may.

    >>> from bygones.study.design import Arm
    >>> from bygones.study.tree import plan_tree
    >>> from bygones.core.values import Window
    >>> arms = [Arm("control"), Arm("sham", Treatment("moments", Sham(), Window(4, 6)))]
    >>> tree = plan_tree(arms, (4, 20))
    >>> [merge_boundaries(tree, one, one.start, one.stop) for one in tree.segments]
    [[0], [4, 6, 7, 8, 10, 14], [6, 7, 8, 10, 14]]
    """
    if is_control(segment):
        marked = {b for one in tree.segments if not is_control(one) for b in _spaced(one)}
        first = start
    elif segment.leaf:
        marked = set(_spaced(segment))
        first = max(start, _first_untreated(segment))
    else:
        return []
    return sorted(b for b in {first, *marked} if start <= b < stop)


def _spaced(segment: Segment) -> list[int]:
    """Boundaries of an arm's last segment after its last treatment, at gaps of 0, 1, 2, 4, … steps."""
    first = _first_untreated(segment)
    gaps = (first + gap for gap in (0, *(2**k for k in range(64))))
    return [*takewhile(lambda b: b < segment.stop, gaps)] if segment.leaf else []


def _first_untreated(segment: Segment) -> int:
    return max(t.boundaries[-1] for t in segment.history) + 1


def mark(snapshot: Snapshot) -> Digest:
    """Hash all that a run carries on, and the hash chains over what it has been shown."""
    return digest([snapshot.digest(), snapshot.ids_chain, snapshot.batch_chain])


@dataclass(frozen=True)
class Merged:
    """The proof of a merge: the boundary from which an arm is its control, and the mark of both."""

    at: int
    control: Digest  # the address of its history
    mark: Digest


@dataclass(frozen=True)
class Rest:
    """What a control's records say of the steps from a boundary on.

    A loss for each step; an observation [models, inputs, classes] and a ledger entry for each observed
    step; the stored snapshot at the end, and where the run diverged.
    """

    losses: list[float]
    observed: list[np.ndarray]
    entries: list[dict[str, Any]]
    snapshot: Digest | None
    diverged_at: int | None


class ControlRecords:
    """The stored records of one seed's control, with the marks that were taken along it."""

    def __init__(
        self, store: AbstractStore, address: Digest, probe: Digest, models: Sequence[str]
    ) -> None:
        self.store, self.address, self.probe = store, address, probe
        self.models = models  # names of the probe's further models
        found = [SegmentRecord.from_dict(record) for record in store.records(address).values()]
        self.records = sorted((r for r in found if r.observed), key=lambda r: (r.start, r.stop))
        self.marks = {
            int(step): str(known) for r in found for step, known in (r.marks or {}).items()
        }

    def rest(self, start: int, stop: int, steps: Sequence[int]) -> Rest | None:
        """Return what is recorded from `start` to `stop`, observed at `steps`; None if some is missing."""
        losses: dict[int, float] = {}
        observed: dict[int, np.ndarray] = {}
        entries: dict[int, dict[str, Any]] = {}
        for record in self.records:
            if record.stop < start or record.start > stop:
                continue
            assert record.observed is not None
            try:
                arrays, meta = unpack(self.store.get(record.observed))
            except Damaged:
                continue
            numbers: list[float] = arrays["losses"].tolist()
            losses |= dict(enumerate(numbers, start=record.start))
            if record.probe == self.probe and record.steps:
                names = ["observed", *(f"observed:{name}" for name in self.models)]
                shown = np.stack([arrays[name] for name in names], axis=1)
                observed |= dict(zip(record.steps, shown, strict=True))
                entries |= dict(zip(record.steps, meta["ledger"], strict=True))
        trained = range(start, stop)
        if not (set(steps) <= observed.keys() and set(trained) <= losses.keys()):
            return None
        diverged = [r.diverged_at for r in self.records if r.diverged_at is not None]
        return Rest(
            [losses[step] for step in trained],
            [observed[step] for step in steps],
            [entries[step] for step in steps],
            next((r.snapshot for r in self.records if r.stop == stop and r.snapshot), None),
            min((step for step in diverged if step < stop), default=None),
        )
