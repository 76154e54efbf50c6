"""Segment tree: arms with a common past share the training of it (prefix sharing).

A segment trains from one boundary to another under some treatments. What it makes is addressed by its
*history*: recipe, seed, contract, and every treatment that acts before it ends. The address does not
say where the tree was cut, so adding an arm, a seed or a horizon leaves the finished ones valid.
Sharing, resuming and caching are this one mechanism.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bygones.core.digest import digest
from bygones.core.values import Digest
from bygones.store import AbstractStore, Damaged
from bygones.store.segment_record import SegmentRecord
from bygones.study.design import Arm, Study, probe_digest
from bygones.training.contract import Contract
from bygones.training.treatment import Treatment

_FORMAT = 3  # a change here gives every segment a new address


@dataclass(frozen=True)
class Segment:
    """Train from boundary `start` to `stop`, treating as the history says; observe at `steps`.

    `parent` is the index of the segment that ends where this one starts (None: the run's beginning).
    """

    start: int
    stop: int
    history: tuple[Treatment, ...]
    steps: tuple[int, ...]
    arms: tuple[str, ...]
    parent: int | None
    leaf: bool


@dataclass(frozen=True)
class Tree:
    """One seed's study: segments in the order in which they can be trained, parents first."""

    segments: tuple[Segment, ...]

    @property
    def num_steps(self) -> int:
        """Steps to train, with every shared segment trained once."""
        return sum(segment.stop - segment.start for segment in self.segments)

    def path(self, arm: str) -> list[int]:
        """Indices of an arm's segments, from the beginning to the end."""
        return [index for index, segment in enumerate(self.segments) if arm in segment.arms]

    def line(self, index: int) -> list[int]:
        """The segments from the run's beginning to this one."""
        parent = self.segments[index].parent
        return [*([] if parent is None else self.line(parent)), index]

    def children(self, index: int) -> list[int]:
        return [i for i, segment in enumerate(self.segments) if segment.parent == index]


def plan_tree(arms: Sequence[Arm], steps: Sequence[int] | Mapping[str, Sequence[int]]) -> Tree:
    """Build the tree: it is cut where the treatments of arms begin to differ, and nowhere else.

    `steps`: where the arms are observed, or where each is, by name.
    """
    segments: list[Segment] = []
    steps_of = steps if isinstance(steps, Mapping) else {arm.name: steps for arm in arms}
    _grow(list(arms), 0, None, steps_of, segments)
    return Tree(tuple(segments))


def _grow(
    arms: list[Arm],
    start: int,
    parent: int | None,
    steps_of: Mapping[str, Sequence[int]],
    out: list[Segment],
) -> None:
    """Append the segments of arms that agree before `start`, grouped by what begins there, to `out`."""
    alive = [arm for arm in arms if steps_of[arm.name][-1] >= start]
    for group in _grouped(alive, start):
        divergence = _divergence(group, start)
        steps = tuple(sorted({step for arm in group for step in steps_of[arm.name]}))
        stop = steps[-1] if divergence is None else divergence
        out.append(_segment(group, start, stop, parent, steps, leaf=divergence is None))
        if divergence is not None:
            _grow(group, divergence, len(out) - 1, steps_of, out)


def _segment(
    arms: list[Arm],
    start: int,
    stop: int,
    parent: int | None,
    steps: tuple[int, ...],
    *,
    leaf: bool,
) -> Segment:
    observed = tuple(s for s in steps if start <= s < stop or (leaf and s == stop))
    before = [
        t for t in arms[0].treatments if t.window.start < stop or (leaf and t.window.start == stop)
    ]
    names = tuple(arm.name for arm in arms)
    return Segment(start, stop, tuple(before), observed, names, parent, leaf)


def _beginning(arm: Arm, step: int) -> tuple[Digest, ...]:
    return tuple(t.digest() for t in arm.treatments if t.window.start == step)


def _grouped(arms: Iterable[Arm], step: int) -> list[list[Arm]]:
    """Group arms by the treatments that begin at a step."""
    groups: dict[tuple[Digest, ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault(_beginning(arm, step), []).append(arm)
    return list(groups.values())


def _divergence(arms: Sequence[Arm], after: int) -> int | None:
    """The first step after `after` at which not every arm begins the same treatments in the same order."""
    starts = {t.window.start for arm in arms for t in arm.treatments if t.window.start > after}
    parts = (step for step in sorted(starts) if len({_beginning(arm, step) for arm in arms}) > 1)
    return next(parts, None)


@dataclass(frozen=True)
class Work:
    """The missing part of a segment: train from `start` to `stop`, and observe at `steps`."""

    index: int
    start: int
    stop: int
    steps: tuple[int, ...]
    snapshot: Digest | None  # the stored snapshot to begin with; None: the parent's end

    @property
    def num_steps(self) -> int:
        return self.stop - self.start

    def record_name(self, probe: Digest) -> str:
        """The name of the record that is written when this is done."""
        return f"{self.start}-{self.stop}-{digest([probe, self.steps])[:16]}"


@dataclass(frozen=True)
class Addresses:
    """The digests that all addresses of a study are made from."""

    recipe: Digest
    contract: Digest
    probe: Digest

    @staticmethod
    def of(study: Study, contract: Contract) -> Addresses:
        return Addresses(study.recipe.code(), contract.digest(), probe_digest(study.probe))

    def history(self, seed: int, treatments: Sequence[Treatment]) -> Digest:
        """The address of everything trained from this seed under these treatments."""
        acts = [treatment.digest() for treatment in treatments]
        return digest(["bygones.history", _FORMAT, self.recipe, self.contract, seed, acts])


def remaining(tree: Tree, seed: int, addresses: Addresses, store: AbstractStore) -> list[Work]:
    """List the work that the store does not hold yet, parents first.

    A segment is trained if an observation or a loss is missing, or if a child needs the state at its end
    and no snapshot of it is stored. It begins at the latest stored snapshot that is early enough, and ends
    where nothing more is missing.
    """
    work: dict[int, Work] = {}
    for index in reversed(range(len(tree.segments))):
        segment = tree.segments[index]
        records = _records(store, addresses.history(seed, segment.history))
        snapshots = _snapshots(records, store)
        sound = [record for record in records if _is_sound(record, store)]
        seen = {s for r in sound if r.probe == addresses.probe for s in r.steps}
        missing = sorted(set(segment.steps) - seen)
        untrained = _untrained(segment, sound)
        children = (work[child] for child in tree.children(index) if child in work)
        end_needed = any(child.start == segment.stop and not child.snapshot for child in children)
        if end_needed and segment.stop not in snapshots:
            untrained.append(segment.stop - 1)
        if not missing and not untrained:
            continue
        first = min([*missing, *untrained])
        stop = max([*missing, *(step + 1 for step in untrained)])
        start = max((s for s in snapshots if segment.start < s <= first), default=segment.start)
        snapshot = snapshots.get(start)
        if snapshot is None and segment.parent is not None:
            before = addresses.history(seed, tree.segments[segment.parent].history)
            snapshot = stored_snapshot(store, before, start)
        work[index] = Work(index, start, stop, tuple(missing), snapshot)
    return [work[index] for index in sorted(work)]


def _records(store: AbstractStore, address: Digest) -> list[SegmentRecord]:
    return [SegmentRecord.from_dict(record) for record in store.records(address).values()]


def _snapshots(records: Iterable[SegmentRecord], store: AbstractStore) -> dict[int, Digest]:
    """Stored snapshots, by the boundary at which they were taken."""
    return {r.stop: r.snapshot for r in records if r.snapshot and store.has(r.snapshot)}


def stored_snapshot(store: AbstractStore, address: Digest, step: int) -> Digest | None:
    """The stored snapshot of a history at a boundary, None where there is none."""
    return _snapshots(_records(store, address), store).get(step)


def _is_sound(record: SegmentRecord, store: AbstractStore) -> bool:
    """Check that a record's losses and observations can be read."""
    if not record.observed:
        return False
    try:
        store.get(record.observed)
    except Damaged:
        return False
    return True


def _untrained(segment: Segment, records: Iterable[SegmentRecord]) -> list[int]:
    """Steps of a segment whose loss is in none of these records (any probe's will do)."""
    trained = {step for r in records for step in range(r.start, r.stop)}
    return [step for step in range(segment.start, segment.stop) if step not in trained]


def donor_steps(arms: Sequence[Arm]) -> int:
    """Steps that the donor of one seed is trained for, if any arm transplants."""
    starts = [t.window.start for arm in arms for t in arm.treatments if t.needs_donor]
    return max(starts, default=0)


def donor_boundaries(tree: Tree, work: Iterable[Work]) -> list[int]:
    """The boundaries at which some work reads the donor's run, in order."""
    return sorted(
        {
            t.window.start
            for item in work
            for t in tree.segments[item.index].history
            if t.needs_donor
            and (
                item.start <= t.window.start < item.stop
                or t.window.start == item.stop == (item.steps or (None,))[-1]
            )
        }
    )
