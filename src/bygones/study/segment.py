"""Train segments: the part of some seeds' trees that the store lacks; the function that executors run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bygones.core.digest import digest
from bygones.core.errors import OutOfMemory, ProbeError, RecipeError, StoreError
from bygones.core.importing import import_file, imported_files
from bygones.core.keyed_rng import mix
from bygones.core.typed_code import Parcel, is_typed, pack_typed, unpack_typed
from bygones.core.values import Digest
from bygones.store import AbstractStore, Damaged, pack
from bygones.store.outcomes import arrays_of_models
from bygones.store.segment_record import BuiltRecord, SegmentRecord
from bygones.study.executors.transport import line_of
from bygones.study.merging import (
    ControlRecords,
    Merged,
    Rest,
    control_history,
    is_control,
    is_sham,
    mark,
    merge_boundaries,
)
from bygones.study.other_runs import (
    ReferenceRuns,
    Runner,
    compared_arm,
    first_boundary,
    make_donors,
    work_steps,
)
from bygones.study.snapshot_bytes import decode, encode
from bygones.study.tree import (
    Addresses,
    Segment,
    Tree,
    Work,
    donor_boundaries,
    remaining,
    stored_snapshot,
)
from bygones.training.check_parts import class_labels
from bygones.training.contract import Contract
from bygones.training.lanes import NotBatchable, make_runner
from bygones.training.probes import AbstractProbe
from bygones.training.recipe import Recipe
from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run, Snapshot


@dataclass(frozen=True)
class SeedsJob:
    """Everything that a worker needs to train some seeds; it is pickled to another process.

    Where the contract has lanes, the seeds are lanes of one step; otherwise they follow one another.
    """

    seeds: tuple[int, ...]
    recipe: Recipe
    probe: AbstractProbe
    tree: Tree
    addresses: Addresses
    contract: Contract
    store: AbstractStore
    merge: bool = True  # end the training of an arm that equals its control to the bit
    whole_sham: int | None = None  # the seed whose sham is trained to its end all the same

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the files that were imported by path first: the worker may need their classes."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if is_typed(self.recipe.source):
            return _arrive_typed, (imported_files(), pack_typed(self.recipe.source, values))
        return _arrive, (imported_files(), pickle.dumps(values))


def _arrive(files: list[Path], values: bytes) -> SeedsJob:
    for file in files:
        import_file(file)
    return SeedsJob(**pickle.loads(values))


def _arrive_typed(files: list[Path], parcel: Parcel) -> SeedsJob:
    for file in files:
        import_file(file)
    return SeedsJob(**unpack_typed(parcel))


def run_seeds(job: SeedsJob) -> int:
    """Train what the store lacks of a job's seeds, and return the number of steps trained.

    An object that turns out damaged is trained again. Raises StoreError where objects are damaged as fast
    as they are written, RecipeError and OutOfMemory where the seeds cannot be trained together.
    """
    trained = 0
    # Each of the snapshots may turn out damaged.
    for _ in range(3 + 3 * len(job.tree.segments) * len(job.seeds)):
        group = next(_groups(job), None)
        if group is None:
            return trained
        try:
            with job.contract.in_force():
                for num_steps in _train(job, group):
                    trained += num_steps
            continue
        except Damaged:
            continue
        except torch.OutOfMemoryError as error:
            said = line_of(error, 0)
        except NotBatchable as unlike:  # the first seeds could; see `lanes.choosing`
            raise RecipeError(
                f"seeds {_in_words(tuple(group))} cannot take their steps together: {unlike}. Run the study "
                f"again with 1 lane; what is finished was trained under another contract, and stays."
            ) from unlike
        # Not in the clause above: a caller that tries again must not hold on to what fills the memory.
        raise OutOfMemory(
            f"seeds {_in_words(tuple(group))} do not fit into the memory of {job.contract.device} ({said}). "
            f"What is finished is stored. Try fewer lanes or workers."
        )
    raise StoreError(
        f"seeds {_in_words(job.seeds)}: objects in the store are damaged as fast as they are written. "
        f"Check the disk, or use another store."
    )


def _groups(job: SeedsJob) -> Iterator[dict[int, list[Work]]]:
    """Yield groups of seeds that have work left, with the work of each: as many as there are lanes.

    Seeds share a step only where the same pieces of their trees are left to train.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    left = {seed: remaining(job.tree, seed, job.addresses, job.store) for seed in job.seeds}
    for seed, work in left.items():
        if work:
            pieces = tuple(
                (item.index, item.start, item.stop, item.steps, item.snapshot is None)
                for item in work
            )
            alike.setdefault(pieces, []).append(seed)
    for seeds in alike.values():
        for start in range(0, len(seeds), job.contract.lanes):
            yield {seed: left[seed] for seed in seeds[start : start + job.contract.lanes]}


def _in_words(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def donor_seed(seed: int) -> int:
    """Return the seed of the donor of transplants into `seed`: outside any range of study seeds."""
    return (1 << 30) + mix(seed, "donor") % (1 << 30)


def _train(job: SeedsJob, group: Mapping[int, list[Work]]) -> Iterator[int]:
    """Train what is left of some seeds; yield the number of steps after each piece."""
    runs = [Run(job.recipe, seed, job.contract.device) for seed in group]
    for run in runs:
        _check_built(job, run)
    beginning = [run.snapshot() for run in runs]
    together = make_runner(runs, job.contract.lanes)
    # Each piece with the work of every seed.
    pieces: list[tuple[Work, ...]] = list(zip(*group.values(), strict=True))
    todo = {works[0].index for works in pieces}
    boundaries = donor_boundaries(job.tree, next(iter(group.values())))
    donors = [
        OtherRuns(donor=donor)
        for donor in make_donors(
            lambda: _make_runner(job, map(donor_seed, group)), len(group), boundaries
        )
    ]
    ends: dict[int, list[Snapshot]] = {}
    for works in pieces:
        item = works[0]
        segment = job.tree.segments[item.index]
        at_parents_end = segment.parent in ends and item.start == segment.start
        for place, run in enumerate(runs):
            run.register_policies(segment.history)
            stored = works[place].snapshot
            if stored is not None and not at_parents_end:
                run.restore(decode(job.store.get(stored), job.contract.device))
            else:
                run.restore((beginning if segment.parent is None else ends[segment.parent])[place])
        others = _references(job, list(group), segment, donors)
        end = _train_segment(job, together, segment, item, others)
        if item.stop == segment.stop and any(c in todo for c in job.tree.children(item.index)):
            ends[item.index] = end
        if segment.parent in ends and not any(
            child > item.index and child in todo for child in job.tree.children(segment.parent)
        ):
            del ends[segment.parent]  # the last child has started from it
        yield work_steps(job.tree, item) * len(runs)


def _train_segment(
    job: SeedsJob,
    together: Runner,
    segment: Segment,
    item: Work,
    others: Sequence[OtherRuns],
) -> list[Snapshot]:
    """Train one segment, observe it, store the result, and return the states at its end.

    Where every run equals its control's to the bit after the last treatment, the rest is the control's.
    """
    seen = [_Seen() for _ in together.runs]
    of = {id(run): mine for run, mine in zip(together.runs, seen, strict=True)}

    def look(run: Run) -> None:
        mine = of[id(run)]
        shown = observe_models(run, job.probe, check=not mine.observed)
        mine.observed.append(shown if run.diverged_at is None else np.full_like(shown, math.nan))
        mine.entries.append(run.ledger_entry())

    def advance(until: int) -> None:
        together.advance(
            until, segment.history, others=others, at_boundary=look, observe_at=item.steps
        )

    controls = _controls(job, together.runs, segment)
    for boundary in _mark_boundaries(job, segment, item, controls):
        advance(boundary)
        ends = [run.snapshot() for run in together.runs]
        for mine, end in zip(seen, ends, strict=True):
            mine.marks[boundary] = mark(end)
        rests = _rests(controls, seen, item, boundary)
        if rests:
            for run, control, mine, rest in zip(together.runs, controls, seen, rests, strict=True):
                merged = Merged(boundary, control.address, mine.marks[boundary])
                _store(job, run, segment, item, mine.followed_by(rest, run.losses), merged)
            return ends
    advance(item.stop)
    ends = [run.snapshot() for run in together.runs]  # before the treatments of the last boundary
    for place, (run, mine) in enumerate(zip(together.runs, seen, strict=True)):
        mine.losses = list(run.losses)
        mine.diverged_at = ends[place].diverged_at
        mine.snapshot = job.store.put(encode(ends[place]))
        if job.merge and is_control(segment):
            mine.marks[item.stop] = mark(ends[place])
        if item.stop in item.steps:
            run.intervene(segment.history, others[place])
            look(run)
        _store(job, run, segment, item, mine)
    return ends


def _controls(job: SeedsJob, runs: Sequence[Run], segment: Segment) -> list[ControlRecords]:
    """Return the controls that a segment of these runs may merge with; none where it may not."""
    seeds = [run.seed for run in runs]
    is_whole = is_sham(segment) and job.whole_sham in seeds
    if not job.merge or not segment.leaf or is_control(segment) or is_whole:
        return []
    history = control_history(segment.history)
    addresses = [job.addresses.history(seed, history) for seed in seeds]
    models = list(job.probe.others())
    return [ControlRecords(job.store, one, job.addresses.probe, models) for one in addresses]


def _mark_boundaries(
    job: SeedsJob, segment: Segment, item: Work, controls: Sequence[ControlRecords]
) -> list[int]:
    """Return where training is interrupted to hash the state; of an arm, where its controls did so too."""
    if not job.merge:
        return []
    boundaries = merge_boundaries(job.tree, segment, item.start, item.stop)
    if is_control(segment):
        return boundaries
    return [b for b in boundaries if controls and all(b in control.marks for control in controls)]


def _rests(
    controls: Sequence[ControlRecords], seen: Sequence[_Seen], item: Work, boundary: int
) -> list[Rest]:
    """Return what is left of each run as its control's records have it, if all are equal; else nothing."""
    if not controls or any(
        control.marks[boundary] != mine.marks[boundary]
        for control, mine in zip(controls, seen, strict=True)
    ):
        return []
    steps = [step for step in item.steps if step >= boundary]
    rests = [control.rest(boundary, item.stop, steps) for control in controls]
    found = [rest for rest in rests if rest is not None]
    return found if len(found) == len(rests) else []


def observe_models(run: Run, probe: AbstractProbe, *, check: bool) -> np.ndarray:
    """Observe the probe's model and its further ones, float [M, N, C].

    Raises ProbeError where their outputs have different shapes.
    """
    seen = {"": run.observe(probe, check=check)}
    seen |= {name: run.observe(one, check=check) for name, one in probe.others().items()}
    odd = [name for name, shown in seen.items() if shown.shape != seen[""].shape]
    if odd:
        raise ProbeError(
            f"models that are observed together need outputs of one shape: those of '{odd[0]}' are "
            f"{list(seen[odd[0]].shape)}, and those of the first model {list(seen[''].shape)}."
        )
    return np.stack([*seen.values()])


@dataclass
class _Seen:
    """What one run shows along a segment: outputs, ledger entries and marks; losses, and how it ended."""

    observed: list[np.ndarray] = field(default_factory=list[np.ndarray])
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    marks: dict[int, Digest] = field(default_factory=dict[int, Digest])
    losses: Sequence[float] = ()
    snapshot: Digest | None = None
    diverged_at: int | None = None

    def followed_by(self, rest: Rest, losses: Sequence[float]) -> _Seen:
        """Return this with `losses` so far, followed by what is left of a control that it equals."""
        return _Seen(
            [*self.observed, *rest.observed],
            [*self.entries, *rest.entries],
            self.marks,
            [*losses, *rest.losses],
            rest.snapshot,
            rest.diverged_at,
        )


def _store(
    job: SeedsJob,
    run: Run,
    segment: Segment,
    item: Work,
    seen: _Seen,
    merged: Merged | None = None,
) -> None:
    """Store what one run has shown in a piece of work, under the address of its history."""
    with np.errstate(over="ignore"):  # a run that is about to diverge may lose more than fits
        arrays = {"losses": np.asarray(seen.losses, dtype=np.float32)}
    if seen.observed:
        arrays |= arrays_of_models(np.stack(seen.observed), list(job.probe.others()))
    if job.probe.kind == "logits" and run.parts.probe_set is not None and seen.observed:
        arrays["labels"] = class_labels(run.parts, arrays["observed"].shape[-1])
    meta = {
        "steps": list(item.steps),
        "ledger": seen.entries,
        "displacements": [asdict(one) for one in run.displacements],
    }
    marks = {str(step): known for step, known in seen.marks.items()}
    record = SegmentRecord(
        start=item.start,
        stop=item.stop,
        steps=item.steps,
        probe=job.addresses.probe,
        observed=job.store.put(pack(arrays, meta)),
        snapshot=seen.snapshot,
        diverged_at=seen.diverged_at,
        kind=job.probe.kind,
        marks=marks if job.merge and is_control(segment) else None,
        merged=None if merged is None else asdict(merged),
    )
    address = job.addresses.history(run.seed, segment.history)
    job.store.write_record(address, item.record_name(job.addresses.probe), record.to_dict())


def _make_runner(job: SeedsJob, seeds: Iterable[int]) -> Runner:
    return make_runner(
        [Run(job.recipe, seed, job.contract.device) for seed in seeds], job.contract.lanes
    )


def _references(
    job: SeedsJob, seeds: Sequence[int], segment: Segment, donors: Sequence[OtherRuns]
) -> Sequence[OtherRuns]:
    """Return the runs that a segment reads: donors; for a null over several boundaries, two more."""
    compared = compared_arm(segment.history)
    if not compared:
        return donors

    def make() -> Runner:
        runner, first = _make_runner(job, seeds), first_boundary(compared)
        for run in runner.runs:
            run.register_policies(compared)
            shared = stored_snapshot(job.store, job.addresses.history(run.seed, ()), first)
            if shared is not None:
                run.restore(decode(job.store.get(shared), job.contract.device))
        return runner

    names = sorted({t.source for t in segment.history if t.is_null})
    mine = {treatment.digest() for treatment in segment.history}
    # What draws a sibling anew is the control's too.
    shared_draws = tuple(t for t in compared if t.digest() in mine)
    control, treated = (ReferenceRuns(make, arm, names, donors) for arm in (shared_draws, compared))
    return [
        replace(others, control=control.of(place), treated=treated.of(place))
        for place, others in enumerate(donors)
    ]


def _check_built(job: SeedsJob, run: Run) -> None:
    """Check that the recipe builds the same run from a seed twice, and as when the store was filled."""
    address = job.addresses.history(run.seed, ())
    built = initial_state_digest(run)
    known = job.store.records(address).get("built")
    if known is None:
        if initial_state_digest(Run(job.recipe, run.seed, job.contract.device)) != built:
            raise RecipeError(
                f"the recipe {job.recipe} builds two different runs from seed {run.seed}. Everything random "
                f"in it must come from its seed or from the global generators, which are seeded for it."
            )
        job.store.write_record(address, "built", BuiltRecord(built).to_dict())
    elif known["built"] != built:
        raise RecipeError(
            f"the recipe {job.recipe} builds another run from seed {run.seed} than when this store was "
            f"filled: its data or something else outside its code has changed. Use another store, or "
            f"put the data back."
        )


def initial_state_digest(run: Run) -> Digest:
    """Return the digest of a run as built: its initial state, its probe set, and its data if tensors."""
    is_tensors = isinstance(run.parts.data, tuple)
    data: Any = run.parts.data if is_tensors else None
    return digest([run.snapshot().digest(), run.parts.probe_set, data])
