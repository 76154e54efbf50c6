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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.discovery import discover_objects
from bygones.attach.index_override import QueuedIndices
from bygones.attach.isolation.script import Script
from bygones.attach.isolation.warmup import imported_libraries
from bygones.attach.live_run import Baseline, KnownMemory, Live
from bygones.attach.probe_inputs import Inputs, Listener, marked_inputs
from bygones.attach.step_clock import trains
from bygones.attach.watched_process import Ending
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    NOT_RUN,
    Continuation,
    States,
    capture_sources,
    continuation_of,
    differing_leaves,
    ended_continuation,
    equal_states,
    fresh_leaves,
    other_leaves,
    plain_values,
    trained_tensors,
    units,
)
from bygones.core.errors import BygonesError, DesignError, RecipeError, ScriptError
from bygones.core.values import State
from bygones.training.sources import AbstractSource

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
    weights: Mapping[int, frozenset[str]]  # digest of each trained tensor, by boundary
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


@dataclass(frozen=True)
class ResumePoint:
    """State of a resumed run before its first step. `step`, `fetches`: its position in the whole run."""

    step: int
    fetches: int
    exact: bool  # whether its weights equal those of that boundary to the bit
    states: States
    streams_later: State  # the random streams at its first call of the model
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class ResumedState:
    """The resumed run. `again`: its state at a second interruption; `weights`: at every boundary."""

    start: ResumePoint | None
    continuation: Continuation
    again: States = field(default_factory=dict)
    weights: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ForkedArms:
    """State of the whole run at the same boundary, and the continuations of its arms by name."""

    states: States
    numbers: Mapping[str, Any]
    kinds: Mapping[str, str]  # "variable" for mere results, else the source's origin
    continuations: Mapping[str, Continuation]
    no_reset: Mapping[str, str] = field(default_factory=dict)


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
        self.rates: dict[int, tuple[float, ...]] = {}
        self.expected: KnownMemory | None = None
        self.label = ""
        self.marked: Inputs | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self.listener.recording_losses(), super().watching():
            yield

    def before_first(self) -> None:
        super().before_first()
        assert self.baseline is not None
        self.listener.attach(self.baseline.trained)

    def on_batch(self, batch: Any) -> None:
        self.listener.delivered(batch)

    def at_boundary(self, step: int) -> None:
        if step == self.look_at:
            self.check_optimizer()
        optimizers = self.clock.optimizers
        self.weights[step] = trained_tensors(optimizers)
        self.rates[step] = tuple(
            float(group["lr"]) for o in optimizers for group in o.param_groups if "lr" in group
        )
        if self.look_at <= step < self.look_at + _MEMORY_BOUNDARIES:
            live = self.find_live()
            known = self.expected or KnownMemory(frozenset(), frozenset())
            self.expected = KnownMemory(
                known.names | frozenset(live.sources), known.paths | live.changed
            )
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
            )
        )


# ------------------------------------------------------------------ the interrupted run


class InterruptedRun(AuditedRun):
    """Run to the script's end, or to the boundary `stop_at`; reply the number of steps."""

    def __init__(self, stop_at: int | None, *given: Any) -> None:
        super().__init__(*given, stops=frozenset() if stop_at is None else frozenset({stop_at}))

    def at_boundary(self, step: int) -> None:
        self.parent.reply_and_exit(step)

    def finish(self, ending: Ending) -> NoReturn:
        if ending.raised:
            self.parent.reply_and_exit(
                ScriptError(f"the interrupted run, {self.script}, {ending}.")
            )
        if self.clock.stops:
            (wanted,) = self.clock.stops
            where = f"step {wanted}, where it was to be interrupted"
            self.parent.reply_and_exit(self.ended_early(ending, where))
        self.parent.reply_and_exit(self.clock.step)


# ------------------------------------------------------------------ the resumed run


class ResumedRun(AuditedRun):
    """Resume, capture the state before the first step, and run to the boundary `end`."""

    def __init__(
        self, whole: ReferenceRun, interrupted_at: int, end: int, again: int | None, *given: Any
    ) -> None:
        super().__init__(*given)
        self.whole, self.interrupted_at, self.end = whole, interrupted_at, end
        self.again = again
        self.held_again: States = {}
        self.weights: dict[int, frozenset[str]] = {}
        self.start: ResumePoint | None = None
        self.before: tuple[States, Mapping[str, Any]] | None = None
        self.fetched = 0
        shown = sum(len(contents) for contents in whole.contents.values())
        self.limit = max(_MOST_EPOCHS_SKIPPED * shown, _FULL_CAPTURES)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching():
            self._module_hook = register_module_forward_pre_hook(self._before_module)
            yield

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
                self.before[0]["streams"] = sources["streams"].capture()  # type: ignore[index]

    def _before_module(self, module: nn.Module, *_: Any) -> None:
        """Called before each module: the first training call begins the first step."""
        if self.start is not None or not trains(module):
            return
        states, numbers = self._capture()
        before, numbers_before = self.before or (states, numbers)
        self._module_hook.remove()
        self.clock.record.batches.begin_here()
        step, exact = self._match_boundary()
        self.start = ResumePoint(step, 0, exact, before, states["streams"], numbers_before)
        self.last = max(self.end - step, 1)
        self.clock.stops = frozenset({self.last}) if self.again is None else None

    def _capture(self) -> tuple[dict[str, State], Mapping[str, Any]]:
        self.baseline = Baseline(self.file, self.clock, self.seed)
        live = self.find_live(self.whole.expected)
        return capture_sources(live), plain_values(live)

    def _match_boundary(self) -> tuple[int, bool]:
        """Return the boundary of the whole run with these weights, and whether they are equal to the bit.

        Of several boundaries the nearest to the interruption.
        """
        found = discover_objects(self.clock.optimizers, self.file, {})
        mine = trained_tensors(list(found.optimizers.values()))
        alike = {step: len(mine & theirs) for step, theirs in self.whole.weights.items()}
        most = max(alike.values(), default=0)
        exact = most == len(mine) and most > 0
        if most == 0 or most < len(mine) / 2:
            return self.interrupted_at, False
        best = [step for step, shared in alike.items() if shared == most]
        return min(best, key=lambda step: abs(step - self.interrupted_at)), exact

    def at_boundary(self, step: int) -> None:
        assert self.start is not None
        if self.again is not None:
            self.weights[self.start.step + step] = trained_tensors(self.clock.optimizers)
            if self.start.step + step == self.again:
                self.held_again = capture_sources(self.find_live(self.whole.expected))
        if step == self.last:
            live = self.find_live(self.whole.expected)
            self.parent.reply_and_exit(
                self._resumed_state(continuation_of(self, live, self.whole.inputs, 0))
            )

    def finish(self, ending: Ending) -> NoReturn:
        self._reply_ended(str(ending))

    def _reply_ended(self, how: str) -> NoReturn:
        self.parent.reply_and_exit(self._resumed_state(ended_continuation(self, how, 0)))

    def _resumed_state(self, continuation: Continuation) -> ResumedState:
        start = self.start
        if start is not None and continuation.contents and continuation.contents[0]:
            fetches = self._fetches_left_out(start.step, continuation.contents[0][0])
            start = replace(start, fetches=fetches)
            if fetches:
                continuation = replace(continuation, losses=(0.0, *continuation.losses[1:]))
        return ResumedState(start, continuation, self.held_again, self.weights)

    def _fetches_left_out(self, step: int, first: str) -> int:
        """Count the batches of an accumulation window before the one at which the resumed run begins."""
        window = self.whole.contents.get(step) or []
        return window.index(first) if first in window else 0


# ------------------------------------------------------------------ the carried run, and its arms


class ForkingRun(AuditedRun):
    """Run the whole run again, and fork its arms at the boundary where the resumed run begins.

    `only`: for a process that cannot be forked, the one arm that this process becomes. If it is empty, the
    run only replies the names of the arms.
    """

    def __init__(
        self, whole: ReferenceRun, resumed: ResumedState, end: int, only: str | None, *given: Any
    ) -> None:
        assert resumed.start is not None
        super().__init__(*given, stops=frozenset({resumed.start.step}))
        self.only = only
        self.whole, self.start, self.resumed, self.end = whole, resumed.start, resumed, end
        self.clock.fetch_delay = resumed.start.fetches
        self.streams_later: State = {}

    def at_boundary(self, step: int) -> None:
        if self.is_arm:
            live = self.find_live(self.whole.expected)
            start, inputs = self.start, self.whole.inputs
            continuation = continuation_of(self, live, inputs, start.step, start.fetches)
            self.parent.reply_and_exit(replace(continuation, streams_later=self.streams_later))
        if self.only is None:
            self.check_fork()
        self._check_past(step)
        live = self.find_live(self.whole.expected)
        held = capture_sources(live)
        continuations: dict[str, Continuation] = {}
        no_reset: dict[str, str] = {}
        for name, treat in self._arms(live, held, no_reset):
            if self._becomes(name, continuations):
                treat()
                return
        kinds = {
            name: "variable" if source.is_result else source.origin
            for name, source in live.sources.items()
        }
        self.parent.reply_and_exit(
            ForkedArms(held, plain_values(live), kinds, continuations, no_reset)
        )

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            ended = ended_continuation(self, str(ending), self.start.step, self.start.fetches)
            self.parent.reply_and_exit(ended)
        where = f"step {self.start.step}, where the resumed run begins"
        self.parent.reply_and_exit(self.ended_early(ending, where))

    def _check_past(self, step: int) -> None:
        """Raise unless data and losses so far are those of the whole run."""
        record, whole = self.clock.record, self.whole
        if record.losses != list(whole.losses[:step]) or any(
            record.batches.contents.get(s) != whole.contents.get(s) for s in range(step)
        ):
            raise ScriptError(
                f"{self.script} does not repeat itself with seed {self.seed}, so a resumed run cannot be "
                f"told from another one. Something in it is not decided by its seed."
            )

    def _arms(
        self, live: Live, held: States, no_reset: dict[str, str]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield each arm's name and treatment. Why a source cannot be reset is noted in `no_reset`."""
        yield "carried", lambda: None
        yield "sham", lambda: _restore_all(live, held)
        for name, source, leaves in units(held):
            mine = {leaf: held[source][leaf] for leaf in leaves}
            others = other_leaves(held[source], mine)
            memory = live.sources[source]
            try:
                fresh = fresh_leaves(live, source, leaves)
            except (DesignError, RecipeError) as error:
                no_reset[name] = str(error)
                fresh = None
            if fresh is not None and not equal_states(fresh, mine):
                yield f"reset {name}", partial(memory.restore, {**others, **fresh})
            resumed = differing_leaves(name, source, mine, self.start.states)
            if resumed is not None:
                yield f"resumed {name}", partial(_imitate, memory, {**others, **resumed})
        order = self._order_as_resumed()
        if order is not None:
            yield "resumed order", order

    def _becomes(self, name: str, continuations: dict[str, Continuation]) -> bool:
        """Fork an arm. Returns True in the arm, and False in this process once the arm has replied.

        A process that cannot be forked becomes the arm `only` itself.
        """
        if self.only is None:
            continuation = self.fork_continuation(self.end)
        elif name == self.only:
            continuation, self.is_arm = None, True
            self.clock.stop_only_at(self.end)
        else:
            continuation = NOT_RUN
        if continuation is not None:
            continuations[name] = continuation
            return False
        self.clock.fetch_delay = 0
        if (
            name == "carried"
        ):  # the streams at the first call of the model are compared in this arm only
            self._module_hook = register_module_forward_pre_hook(self._before_module)
        return True

    def _before_module(self, module: nn.Module, *_: Any) -> None:
        if trains(module):
            self._module_hook.remove()
            self.streams_later = self.find_live().sources["streams"].capture()

    def _order_as_resumed(self) -> Callable[[], None] | None:
        """Return what makes this run fetch the resumed run's batches; None if they are the same."""
        mine = [self.whole.indices.get(s) or [] for s in range(self.start.step, self.end)]
        mine[0] = mine[0][self.start.fetches :]
        theirs = list(self.resumed.continuation.indices)
        if not theirs or mine[: len(theirs)] == theirs[: len(mine)]:
            return None
        queue = [index for step in theirs for index in step]
        loader = self.clock.record.loader
        if loader is None or any(index is None for index in queue):
            return None
        return lambda: self.clock.override.begin(loader, QueuedIndices(queue))


def _restore_all(live: Live, states: States) -> None:
    for source, state in states.items():
        live.sources[source].restore(state)


def _imitate(source: AbstractSource, state: State) -> None:
    """Put the resumed run's state into a source, as far as it fits."""
    with suppress(RecipeError, KeyError):
        source.imitate(state)
