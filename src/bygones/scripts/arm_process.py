"""Arm process: run a script, treat and observe it, and fork where the arms of a study part.

    the script's first steps ── fork boundary ──┬── control
                                                ├── sham
                                                ├── an arm ── (where arms part later, it forks again)
                                                └── …

Where forking is impossible, each arm is a process of its own from the start, and counts only if its data
and its state at the fork are the same.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bygones.attach.isolation.fork import Child, Parent, run_in_fork
from bygones.attach.isolation.script import Script
from bygones.attach.live_run import Live
from bygones.attach.observed_models import observe_models
from bygones.attach.probe_inputs import Inputs
from bygones.attach.watched_process import Ending, WatchedProcess
from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.values import Digest, State
from bygones.store import AbstractStore, pack
from bygones.store.outcomes import arrays_of_models
from bygones.store.segment_record import PastRecord, SegmentRecord
from bygones.study.design import Study
from bygones.study.donor import capture_sources
from bygones.study.other_runs import compared_arm, reference_reads
from bygones.study.past import Past, past_difference, seed_with_equal_past
from bygones.study.snapshot_bytes import decode, encode
from bygones.study.tree import Addresses, Segment, Tree, Work
from bygones.training.rewriter import OtherRuns, Rewriter
from bygones.training.run import Snapshot


@dataclass(frozen=True)
class Job:
    """The study, for all of its processes. Forked processes inherit it; it is never pickled."""

    script: Script
    home: Path  # the folder that the script was called from
    study: Study
    tree: Tree
    addresses: Addresses
    store: AbstractStore
    inputs: Inputs
    shape: tuple[int, ...]  # of what is observed, the trained model first: [M, N, C]
    models: tuple[str, ...]  # that are observed beside the trained one
    output: Path  # where the output and files of each arm lie
    forks: bool
    emulates: bool  # whether loaders' workers are emulated
    to_end: bool = False  # whether arms run on to the script's own end after the last horizon


@dataclass(frozen=True)
class Failure:
    """An arm that did not reach its last step: why, and after how many steps it ended."""

    arms: tuple[str, ...]
    sentence: str
    step: int


@dataclass
class Report:
    """Reply of a process: failed arms, a refusal, and the control's index batches by step."""

    failures: list[Failure] = field(default_factory=list)
    refused: BygonesError | None = None
    shown: dict[int, list[Any]] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        self.failures += other.failures
        self.refused = self.refused or other.refused
        self.shown.update(other.shown)


class ArmProcess(WatchedProcess):
    """The process of one segment; where arms part, each child goes on as another segment.

    `path`: without forks, the segments that this process runs one after the other.
    """

    advice = "Choose an earlier fork or shorter horizons"

    def __init__(
        self,
        job: Job,
        seed: int,
        todo: frozenset[int],
        parent: Parent,
        *,
        path: Sequence[int] = (),
        donor: Mapping[int, Mapping[str, State]] | None = None,
        shown: dict[int, list[Any]] | None = None,
    ) -> None:
        name = job.tree.segments[path[-1]].arms[0] if path else "shared"
        super().__init__(
            job.script,
            job.home,
            seed,
            folder_of(job, seed, name),
            parent,
            allowed=allowed_folders(job),
            emulates=job.emulates,
            keeps_batches=any(
                t.source == "order" for arm in job.study.arms for t in arm.treatments
            ),
        )
        self.job, self.todo, self.path = job, todo, list(path)
        self.index = 0
        self.donor = donor or {}
        self.shown = shown if shown is not None else {}
        self.observed: list[np.ndarray] = []
        self.entries: list[dict[str, Any]] = []
        self.live: Live | None = None
        self.rewriter: Rewriter | None = None
        self.over = False  # past the last horizon, on the way to the script's own end
        self.clock.stops = self._stops()

    @property
    def segment(self) -> Segment:
        return self.job.tree.segments[self.index]

    # ------------------------------------------------------------------ running

    def _stops(self) -> frozenset[int]:
        """Return the boundaries at which the segment is treated, observed, stored or forked."""
        segment = self.segment
        treated = {step for t in segment.history for step in t.boundaries}
        treated |= self._reads().keys()
        mine = {step for step in treated if segment.start <= step <= segment.stop}
        fork_at = self.job.study.fork_at
        return frozenset({segment.start, segment.stop, fork_at, *segment.steps, *mine})

    def at_boundary(self, step: int) -> None:
        segment = self.segment
        if self.live is None:
            self._find_sources()
        if step == segment.stop and not segment.leaf:
            self._begin_next_segment()  # returns only in the process of a following segment
            segment = self.segment
        state = self._state() if step == segment.stop and self._is_reference() else ""
        if self.rewriter is not None:
            self.rewriter.intervene(step, segment.history, self._others())
            self._save_references(step)
        if step in segment.steps:
            self._observe()
        if step == segment.stop:
            self._store(state=state)
            if not self.job.to_end:
                self.parent.reply_and_exit(self._report())
            self.over = True
            self.clock.stops = frozenset()

    def _others(self) -> OtherRuns:
        """The runs that treatments read: the donor; of a null, the control and the arm that it matches."""
        nulls = compared_arm(self.segment.history)
        matched = next((a.name for a in self.job.study.arms if nulls and a.treatments == nulls), "")
        return OtherRuns(
            donor=self.donor.__getitem__,
            control=partial(self._load_reference, "control", matched),
            treated=partial(self._load_reference, matched, matched),
        )

    def _reads(self) -> dict[int, dict[str, list[str]]]:
        """What nulls read of this segment, by step and by the arm that they match: names of sources."""
        reads: dict[int, dict[str, list[str]]] = {}
        for arm in self.job.study.arms:
            if {"control", arm.name} & set(self.segment.arms):
                for step, names in reference_reads(arm, self.job.study.end).items():
                    reads.setdefault(step, {})[arm.name] = names
        return reads

    def _save_references(self, step: int) -> None:
        """Keep the sources that nulls read of this run at a boundary, in files beside the arms' output."""
        assert self.live is not None
        for matched, names in self._reads().get(step, {}).items():
            kept = Snapshot(step, capture_sources(self.live.sources, names))
            for role in {"control", matched} & set(self.segment.arms):
                file = self._reference_file(role, matched, step)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode(kept))

    def _load_reference(self, role: str, matched: str, step: int) -> Mapping[str, State]:
        file = self._reference_file(role, matched, step)
        if not file.is_file():
            self._end_as_failed(f"has nothing to be compared with, since '{role}' ended")
        return decode(file.read_bytes()).states

    def _reference_file(self, role: str, matched: str, step: int) -> Path:
        folder = reference_folder(self.job, self.seed) / digest([role, matched])
        return folder / f"{step}.safetensors"

    def _is_reference(self) -> bool:
        return "control" in self.segment.arms or "sham" in self.segment.arms

    # ------------------------------------------------------------------ parting

    def _begin_next_segment(self) -> None:
        """Fork each following segment that is needed; without forks, go on as the next one."""
        self._store()
        following = self.job.tree.children(self.index)
        if self.path:
            self._go_on(next(index for index in following if index in self.path))
            return
        self.check_fork()
        total = Report()
        for index in sorted(following, key=lambda i: "control" not in self._arms(i)):
            if not self._is_needed(index):
                continue
            arm = self.fork_arm(folder_of(self.job, self.seed, self._arms(index)[0]))
            if arm is None:
                self._go_on(index)
                return
            total.add(self._report_of(arm, index))
            self.shown.update(total.shown)
        self.parent.reply_and_exit(total)

    def _report_of(self, arm: Child, index: int) -> Report:
        report = self.wait_for_arm(arm)
        if report is None:
            words = "was killed, or died without a word"
            return Report(failures=[Failure(self._arms(index), words, self.clock.step)])
        return report

    def _arms(self, index: int) -> tuple[str, ...]:
        return self.job.tree.segments[index].arms

    def _is_needed(self, index: int) -> bool:
        """Test whether a segment has work left, or shows what another needs: index batches, or its states."""
        if index in self.todo or is_compared(self.job, self.todo, index):
            return True
        if "control" in self._arms(index) and self.clock.record.batches.keeping:
            return True
        return any(self._is_needed(child) for child in self.job.tree.children(index))

    def _go_on(self, index: int) -> None:
        """Go on as another segment."""
        self.index = index
        self.observed, self.entries = [], []
        if self.rewriter is not None:
            self.rewriter.displacements = []
        self.clock.stops = self._stops()

    def _find_sources(self) -> None:
        """At the fork: find the sources, and check that this run has the same past as the others."""
        self.live = self.find_live(shown=self.shown)
        self.rewriter = Rewriter(self.live.sources, self.seed)
        self._check_past()

    def _check_past(self) -> None:
        assert self.live is not None
        job = self.job
        mine = PastRecord(
            chain=list(self.clock.record.batches.steps),
            state=self._state(),
            weights=digest(self.live.sources["weights"].capture()),
            losses=[float(x).hex() for x in self.clock.record.losses],
        ).to_dict()
        address = job.addresses.history(self.seed, ())
        known = job.store.records(address).get("past")
        if known is None:
            job.store.write_record(address, "past", mine)
            known = mine
        difference = past_difference(_past(known), _past(mine))
        if difference is not None:
            raise ScriptError(
                f"{job.script} does not repeat itself with seed {self.seed}: {difference}. "
                f"Arms that do not share their past cannot be compared. Something in it is not decided by "
                f"its seed (a clock, a hash, a thread, another program); or, if this --store was filled "
                f"before, its data have changed since."
            )
        self._check_seed(_past(mine))

    def _check_seed(self, past: Past) -> None:
        """Refuse a seed that trains the same run as another seed of the study."""
        job, pasts = self.job, {}
        for other in job.study.seeds:
            record = job.store.records(job.addresses.history(other, ())).get("past")
            if other != self.seed and record is not None:
                pasts[other] = _past(record)
        other = seed_with_equal_past(past, pasts)
        if other is not None:
            raise ScriptError(
                f"seeds {min(self.seed, other)} and {max(self.seed, other)} train the same run: the "
                f"seed, handed over by {job.script.seeded_by}, does not reach {job.script.path}. If it "
                f"seeds itself, put {{seed}} into its arguments, like --seed {{seed}}, or name an "
                f"environment variable that it reads with --seed-env."
            )

    def _state(self) -> Digest:
        """Compute the digest of all that training goes on from, mere results left out."""
        assert self.live is not None
        sources = self.live.sources.items()
        return digest({name: s.capture() for name, s in sources if not s.is_result})

    # ------------------------------------------------------------------ observing and storing

    def _observe(self) -> None:
        assert self.live is not None
        live, inputs, models = self.live, self.job.inputs, self.job.models
        self.entries.append(live.entry())
        if self._diverged_at() is not None:
            self.observed.append(np.full(self.job.shape, math.nan))
            return

        def compute() -> np.ndarray:
            return np.stack([*observe_models(inputs, live, models).values()])

        # In a fork the observation changes nothing, whatever the model does when it is called.
        self.observed.append(run_in_fork(compute) if self.job.forks else compute())

    def _diverged_at(self) -> int | None:
        bad = (s for s, loss in enumerate(self.clock.record.losses) if not math.isfinite(loss))
        return next(bad, None)

    def _store(self, state: Digest = "", failed: str = "") -> None:
        job, segment = self.job, self.segment
        start, stop = segment.start, segment.stop
        losses = np.full(stop - start, math.nan, dtype=np.float32)
        with np.errstate(over="ignore"):
            mine = np.asarray(self.clock.record.losses[start:stop], dtype=np.float32)
        losses[: len(mine)] = mine
        arrays = {"losses": losses}
        if self.observed:
            arrays |= arrays_of_models(np.stack(self.observed), job.models)
        if job.inputs.labels is not None:
            arrays["labels"] = job.inputs.labels
        done = self.rewriter.displacements if self.rewriter else []
        meta = {
            "steps": list(segment.steps),
            "ledger": self.entries,
            "displacements": [asdict(one) for one in done],
        }
        record = SegmentRecord(
            start=start,
            stop=stop,
            steps=segment.steps,
            probe=job.addresses.probe,
            observed=job.store.put(pack(arrays, meta)),
            diverged_at=self.clock.step if failed else self._diverged_at(),
            state=state,
            failed=failed,
        )
        address = job.addresses.history(self.seed, segment.history)
        job.store.write_record(address, record_name(job, self.index), record.to_dict())

    # ------------------------------------------------------------------ ending

    def _report(self) -> Report:
        """Return the report of a finished arm; the control's has its index batches after the fork."""
        fork_at = self.job.study.fork_at
        if "control" not in self.segment.arms:
            return Report()
        shown = self.clock.record.batches.indices
        return Report(shown={step: shown[step] for step in shown if step >= fork_at})

    def refuse(self, error: BygonesError) -> NoReturn:
        self.parent.reply_and_exit(Report(refused=error))

    def finish(self, ending: Ending) -> NoReturn:
        """Reply after the script has ended: a failure, unless the last horizon was reached."""
        if ending.raised and (self.clock.step == 0 or not self.live):
            error = ending.error
            assert error is not None
            sys.excepthook(type(error), error, error.__traceback__)
        if self.over:
            self.parent.reply_and_exit(self._report())
        study = self.job.study
        if self.live is None or self._is_reference():
            where = f"the last horizon (step {study.end})"
            if self.live is None:
                where = f"the fork at step {study.fork_at}"
            self.refuse(self.ended_early(ending, where))
        self._end_as_failed(str(ending))

    def _end_as_failed(self, how: str) -> NoReturn:
        """Store what was observed of this arm, and report that it ended too early."""
        missing = len(self.segment.steps) - len(self.observed)
        self.observed += [np.full(self.job.shape, math.nan)] * missing
        self._store(failed=how)
        failure = Failure(self.segment.arms, how, self.clock.step)
        self.parent.reply_and_exit(Report(failures=[failure]))


def is_compared(job: Job, todo: Iterable[int], index: int) -> bool:
    """Test whether a null that is still to be run reads the states of this segment."""
    names = set(job.tree.segments[index].arms)
    for null in todo:
        compared = compared_arm(job.tree.segments[null].history)
        arms = {arm.name for arm in job.study.arms if compared and arm.treatments == compared}
        if compared and names & {"control", *arms}:
            return True
    return False


def record_name(job: Job, index: int) -> str:
    """Return the name of a segment's record, the same as for a recipe."""
    segment = job.tree.segments[index]
    work = Work(index, segment.start, segment.stop, segment.steps, None)
    return work.record_name(job.addresses.probe)


def folder_of(job: Job, seed: int, name: str) -> Path:
    """Return the folder of an arm's files and printed output."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return job.output / f"seed-{seed}" / plain


def reference_folder(job: Job, seed: int) -> Path:
    """Return the folder of what a seed's nulls read of other arms; it is removed when the seed is done."""
    return folder_of(job, seed, "references")


def allowed_folders(job: Job) -> tuple[Path, ...]:
    """Return the folders that bygones itself writes to in these processes."""
    store = getattr(job.store, "folder", None)
    return tuple(Path(p).resolve() for p in (job.output, store) if p is not None)


def _past(record: Mapping[str, Any]) -> Past:
    """The past that was stored in a record; its weights at the fork are what a seed decides."""
    state = {"the state at the fork": record["state"]}
    return Past(record["chain"], record["losses"], state, record["weights"])
