"""Processes of a resume check: the whole run, the interrupted one, the resumed one, and the arms.

    whole        ──────────────────────────────▶ end        data of each step, and the memory there is
    interrupted  ────────▶ ✕                                writes the script's own checkpoint
    resumed               ╰────────────────────▶ end        its state before its first step
    carried      ────────┬─────────────────────▶ end        the whole run again, forked there:
                         ├── sham, each source reset, each source as the resumed run held it

Each runs the unmodified script in its own process. The resumed run finds the files of the interrupted one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.discovery import discover_objects
from bygones.attach.isolation.fork import why_not_fork
from bygones.attach.isolation.script import Script
from bygones.attach.isolation.warmup import imported_libraries
from bygones.attach.live_run import KnownMemory
from bygones.attach.probe_inputs import Inputs, Listener, marked_inputs
from bygones.attach.step_clock import trains
from bygones.attach.training_loop import Loop, LoopWatch, enclosing_loops
from bygones.attach.watched_process import Ending
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    Continuation,
    States,
    capture_sources,
    continuation_of,
    ended_continuation,
    optimizer_arrays,
    plain_values,
    trained_tensors,
)
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.values import State

# Boundaries at which memory is looked for: cyclic memory may be unchanged at one of them.
_MEMORY_BOUNDARIES = 3
# Batches that a resumed run may skip with a full capture before each.
_FULL_CAPTURES = 100
# A resumed run that fetched this many times all batches without training is given up.
_MOST_EPOCHS_SKIPPED = 3


@dataclass(frozen=True)
class ReferenceRun:
    """The uninterrupted run: data, losses and weights of its steps, and the memory it has."""

    script: Script  # with the optimizer by which steps are counted
    last: int
    steps: int
    weights: Mapping[
        int, frozenset[str]
    ]  # digest of each trained tensor, by boundary; 0: before training
    moments: Mapping[int, frozenset[str]]  # likewise of each array of the optimizers' states
    indices: Mapping[int, Any]
    contents: Mapping[int, list[str]]
    losses: tuple[float, ...]
    epochs: tuple[int, ...]
    backward_calls: tuple[int, ...]
    rates: Mapping[int, tuple[float, ...]]
    expected: KnownMemory
    inputs: Inputs | None
    why_no_inputs: str
    libraries: tuple[str, ...]
    can_fork: bool  # whether it kept no threads to its end
    loops: tuple[Loop, ...]  # that enclose its steps, if no loader delivers its batches
    heads: Mapping[
        int, tuple[int, ...]
    ]  # levels of the loops whose heads a boundary passes, in order
    ranks: tuple[ReferenceRun, ...] = ()  # of a job: each process's own


@dataclass(frozen=True)
class Held:
    """What a run holds at one place: states, plain values and the names of its variables."""

    states: dict[str, State]
    numbers: Mapping[str, Any]
    roots: frozenset[str]


@dataclass(frozen=True)
class ResumePoint:
    """State of a resumed run before its first step.

    `step`, `passes`: its position in the whole run; `passes` backward passes of that step come before it.
    `at_heads`: what it held when the head of a loop was executed, the first and the last time, by level.
    """

    step: int
    passes: int
    placed_by: str  # what shows its position: "weights", "some weights", "moments", or else "save"
    held: Held
    streams_later: State  # the random streams at its first call of the model
    at_heads: Mapping[int, tuple[Held, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResumedState:
    """The resumed run.

    `again`: its state at a second interruption; `weights`, `moments`: digests at every boundary. `finished`:
    whether it went to the end of its script, with no more steps than the whole run; None if not tried.
    `ranks`: of a job, each process's own.
    """

    start: ResumePoint | None
    continuation: Continuation
    again: States = field(default_factory=dict)
    weights: dict[int, frozenset[str]] = field(default_factory=dict)
    moments: dict[int, frozenset[str]] = field(default_factory=dict)
    finished: bool | None = None
    ranks: tuple[ResumedState, ...] = ()


# ------------------------------------------------------------------ the whole run


class WholeRun(AuditedRun):
    """Run to the end, and record what the other runs are compared with; reply a `ReferenceRun`.

    `look_at`: the boundary from which on memory is looked for: that of the interruption, once known.
    """

    def __init__(self, look_at: int, *given: Any) -> None:
        super().__init__(*given, stops=None)
        self.look_at = look_at
        self.modules_before = frozenset(sys.modules)
        self.listener = Listener()
        self.weights: dict[int, frozenset[str]] = {}
        self.moments: dict[int, frozenset[str]] = {}
        self.rates: dict[int, tuple[float, ...]] = {}
        self.expected: KnownMemory | None = None
        self.label = ""
        self.marked: Inputs | None = None
        self.loops: tuple[Loop, ...] = ()
        self.heads: dict[int, tuple[int, ...]] = {}
        self.passed: list[int] = []
        self.watch: LoopWatch | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self.listener.recording_losses(), super().watching():
            yield

    def before_first(self) -> None:
        super().before_first()
        assert self.baseline is not None
        self.listener.attach(self.baseline.trained)
        found = discover_objects([], self.file, {})
        self.weights[0] = trained_tensors(list(found.optimizers.values()))
        if self.clock.record.dataset is None:
            self.loops = enclosing_loops(self.file)
            self.watch = LoopWatch(self.loops, lambda level: self.passed.append(level))

    def on_update(self, step: int) -> None:
        if self.watch is not None:
            self.passed = []
            self.watch.start()

    def on_batch(self, batch: Any) -> None:
        self.listener.delivered(batch)

    def at_boundary(self, step: int) -> None:
        if self.watch is not None:
            self.watch.stop()
            self.heads[step] = tuple(self.passed)
        if step == self.look_at:
            self.check_optimizer()
        optimizers = self.clock.optimizers
        self.weights[step] = trained_tensors(optimizers)
        self.moments[step] = optimizer_arrays(optimizers)
        self.rates[step] = tuple(
            float(group["lr"]) for o in optimizers for group in o.param_groups if "lr" in group
        )
        if self.look_at <= step < self.look_at + _MEMORY_BOUNDARIES:
            live = self.find_live()
            self.expected = (self.expected or KnownMemory()) | live.known
            if step != self.look_at:
                return
            self.label = live.clocked_module(optimizers[self.script.clock])
            self.marked = marked_inputs(live.trained)

    def finish(self, ending: Ending) -> NoReturn:
        if self.expected is None:
            where = f"step {self.look_at}, where it was to be interrupted"
            self.parent.reply_and_exit(self.ended_early(ending, where))
        if ending.failed:
            self.parent.reply_and_exit(
                ScriptError(f"{self.script} {ending} after {self.clock.step} steps.")
            )
        inputs, why = self.marked, ""
        try:
            inputs = inputs or self.listener.inputs(self.label)
        except BygonesError as error:
            why = str(error)
        record = self.clock.record
        self.parent.reply_and_exit(
            ReferenceRun(
                script=self.script,
                last=max(self.weights),
                steps=self.clock.step,
                weights=self.weights,
                moments=self.moments,
                indices=record.batches.indices,
                contents=record.batches.contents,
                losses=tuple(record.losses),
                epochs=tuple(record.epochs),
                backward_calls=tuple(record.backward_calls),
                rates=self.rates,
                expected=self.expected,
                inputs=inputs,
                why_no_inputs=why,
                libraries=imported_libraries(self.modules_before),
                can_fork=why_not_fork() is None,
                loops=self.loops,
                heads=self.heads,
            )
        )


# ------------------------------------------------------------------ the interrupted run


@dataclass(frozen=True)
class Interruption:
    """Where the interrupted run ended: its number of steps, and of those before its last `torch.save`."""

    step: int
    saved: int | None


class InterruptedRun(AuditedRun):
    """Run to the script's end, or to the boundary `stop_at`; reply an `Interruption`."""

    def __init__(self, stop_at: int | None, *given: Any) -> None:
        super().__init__(*given, stops=frozenset() if stop_at is None else frozenset({stop_at}))
        self.saved: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        save = torch.save

        def save_and_note(*given: Any, **named: Any) -> None:
            self.saved = self.clock.step
            save(*given, **named)

        torch.save = save_and_note
        try:
            with super().watching():
                yield
        finally:
            torch.save = save

    def at_boundary(self, step: int) -> None:
        self.parent.reply_and_exit(Interruption(step, self.saved))

    def finish(self, ending: Ending) -> NoReturn:
        if ending.raised:
            self.parent.reply_and_exit(
                ScriptError(f"the interrupted run, {self.script}, {ending}.")
            )
        if self.clock.stops:
            (wanted,) = self.clock.stops
            where = f"step {wanted}, where it was to be interrupted"
            self.parent.reply_and_exit(self.ended_early(ending, where))
        self.parent.reply_and_exit(Interruption(self.clock.step, self.saved))


# ------------------------------------------------------------------ the resumed run


class ResumedRun(AuditedRun):
    """Resume, capture the state before the first step, and run to the boundary `end`.

    `to_end`: whether the script then goes on to its own end, for the files that it writes there.
    """

    def __init__(
        self,
        whole: ReferenceRun,
        interrupted: Interruption,
        end: int,
        again: int | None,
        to_end: bool,
        *given: Any,
    ) -> None:
        super().__init__(*given)
        self.to_end = to_end
        self.reached: ResumedState | None = None  # its state at the boundary `end`
        self.whole, self.interrupted, self.end = whole, interrupted, end
        self.again = again
        self.held_again: States = {}
        self.weights: dict[int, frozenset[str]] = {}
        self.moments: dict[int, frozenset[str]] = {}
        self.start: ResumePoint | None = None
        self.before: Held | None = None
        self.fetched = 0
        self.passed = 0
        self.at_heads: dict[int, tuple[Held, ...]] = {}
        self.watch = LoopWatch(whole.loops, self._at_head)
        shown = sum(len(contents) for contents in whole.contents.values())
        self.limit = max(_MOST_EPOCHS_SKIPPED * shown, _FULL_CAPTURES)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching():
            self._module_hook = register_module_forward_pre_hook(self._before_module)
            self.watch.start()
            try:
                yield
            finally:
                self.watch.stop()

    def _at_head(self, level: int) -> None:
        """Capture the state where a round of a loop begins: in the first one, and in the latest."""
        self.passed += 1
        known = self.at_heads.get(level, ())
        if self.passed <= _FULL_CAPTURES or not known:
            self.at_heads[level] = (*known[:1], self._capture())
        else:
            sources = self.find_live(self.whole.expected).sources
            known[-1].states["streams"] = sources["streams"].capture()

    def on_fetch(self) -> None:
        """Capture the state before each fetch: a resumed run may skip batches, and trains on the last one."""
        if self.start is None:
            self.fetched += 1
            if self.fetched > self.limit:
                self._reply_ended(f"asked for {self.limit} batches (does it skip them for ever?)")
            if self.fetched <= _FULL_CAPTURES or self.before is None:
                self.before = self._capture()
            else:
                sources = self.find_live(self.whole.expected).sources
                self.before.states["streams"] = sources["streams"].capture()

    def _before_module(self, module: nn.Module, *_: Any) -> None:
        """Called before each module: the first training call begins the first step."""
        if self.start is not None or not trains(module):
            return
        now = self._capture()
        before = self.before or now
        self._module_hook.remove()
        self.watch.stop()
        self.clock.record.batches.begin_here()
        step, placed_by = self._match_boundary()
        if self.rank is not None:  # the boundary of rank 0 is that of the job
            step = self.rank.roster.agree(self.rank.number, step)
        streams = now.states["streams"]
        self.start = ResumePoint(step, 0, placed_by, before, streams, self.at_heads)
        self.last = max(self.end - step, 1)
        self.clock.stops = frozenset({self.last}) if self.again is None else None

    def _capture(self) -> Held:
        self.baseline = self.find_baseline()
        live = self.find_live(self.whole.expected)
        return Held(capture_sources(live), plain_values(live), live.roots)

    def _match_boundary(self) -> tuple[int, str]:
        """Return the boundary of the whole run that this one continues from, and what shows it.

        That with most of these weights; if fewer than half are found at any, that with most of the
        optimizers' states; else that of the last save. Of several the nearest to the interruption.
        """
        found = discover_objects(self.clock.optimizers, self.file, {})
        optimizers = list(found.optimizers.values())
        for what, mine, theirs in (
            ("weights", trained_tensors(optimizers), self.whole.weights),
            ("moments", optimizer_arrays(optimizers), self.whole.moments),
        ):
            alike = {step: len(mine & there) for step, there in theirs.items()}
            most = max(alike.values(), default=0)
            if most > 0 and most >= len(mine) / 2:
                best = [step for step, shared in alike.items() if shared == most]
                step = min(best, key=lambda step: abs(step - self.interrupted.step))
                return step, what if most == len(mine) or what == "moments" else "some weights"
        saved = self.interrupted.saved
        return self.interrupted.step if saved is None else saved, "save"

    def at_boundary(self, step: int) -> None:
        assert self.start is not None
        if self.again is not None:
            self.weights[self.start.step + step] = trained_tensors(self.clock.optimizers)
            self.moments[self.start.step + step] = optimizer_arrays(self.clock.optimizers)
            if self.start.step + step == self.again:
                self.held_again = capture_sources(self.find_live(self.whole.expected))
        if step == self.last:
            live = self.find_live(self.whole.expected)
            reached = self._resumed_state(continuation_of(self, live, self.whole.inputs, 0))
            if not self.to_end:
                self.parent.reply_and_exit(reached)
            self.reached = reached
            self.clock.stops = frozenset()

    def on_update(self, step: int) -> None:
        if self.reached and self.start and self.start.step + step > self.whole.steps:
            self.parent.reply_and_exit(replace(self.reached, finished=False))

    def finish(self, ending: Ending) -> NoReturn:
        if self.reached is not None:
            self.parent.reply_and_exit(replace(self.reached, finished=True))
        self._reply_ended(str(ending))

    def _reply_ended(self, how: str) -> NoReturn:
        self.parent.reply_and_exit(self._resumed_state(ended_continuation(self, how, 0)))

    def _resumed_state(self, continuation: Continuation) -> ResumedState:
        start = self.start
        if start is not None and continuation.contents:
            passes = self._passes_left_out(start.step, continuation.contents[0])
            start = replace(start, passes=passes)
            if passes:
                continuation = replace(continuation, losses=(0.0, *continuation.losses[1:]))
        again = self.held_again
        return ResumedState(start, continuation, again, self.weights, self.moments)

    def _passes_left_out(self, step: int, batches: list[str]) -> int:
        """Count the backward passes of an accumulation window before the one of the first batch.

        Where no loader delivers the batches, from the number that the resumed run's first step has.
        """
        if batches:
            window = self.whole.contents.get(step) or []
            return window.index(batches[0]) if batches[0] in window else 0
        mine = self.clock.record.backward_calls[:1]
        calls = self.whole.backward_calls
        return max(calls[step] - mine[0], 0) if mine and mine[0] and step < len(calls) else 0
