"""The processes of a resume check: the whole run, the one that is interrupted, the one that resumes.

    whole        ──────────────────────────────▶ end        what each step was shown, which memory there is
    interrupted  ────────▶ ✕                                writes the script's own checkpoint
    resumed               ╰────────────────────▶ end        what it holds before its first step
    carried      ────────┬─────────────────────▶ end        the whole run again, forked where that is:
                         ├── sham, each source reset, each source as the resumed run held it

Each is the script as it is, in a process of its own. The resumed run sees the files of the interrupted one.
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
    numbers_of,
    other_leaves,
    trained_tensors,
    units,
)
from bygones.core.errors import BygonesError, DesignError, RecipeError, ScriptError
from bygones.core.values import State
from bygones.training.sources import AbstractSource

# Boundaries at which memory is looked for: what turns in a circle may look unchanged at one of them.
_LOOKS = 3
# Batches that a resumed run may skip while everything is copied before each of them.
_FULL_LOOKS = 100
# Times all batches of the whole run: one that has asked for so many and has not trained never will.
_SKIPPED = 3


@dataclass(frozen=True)
class ReferenceRun:
    """What the uninterrupted run was seen to do and to have, up to its last boundary."""

    script: Script  # with the optimizer that its steps are counted by
    last: int
    steps: int
    weights: Mapping[int, frozenset[str]]  # a digest of each trained tensor, by boundary
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
    """What a resumed run held before its first step. `step`, `fetches`: where in the whole run that is."""

    step: int
    fetches: int
    exact: bool  # whether its weights are, to the bit, those of that boundary
    states: States
    streams_later: State  # the random streams where its first step calls the model
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class ResumedState:
    """`again`: what it held at the boundary of a second interruption, and its weights at every boundary."""

    start: ResumePoint | None
    future: Continuation
    again: States = field(default_factory=dict)
    weights: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ForkedArms:
    """The whole run at the same boundary, and the futures of its arms by name."""

    states: States
    numbers: Mapping[str, Any]
    kinds: Mapping[str, str]  # "variable" for what hangs on the script's variables, else the origin
    futures: Mapping[str, Continuation]
    no_reset: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------ the whole run


class WholeRun(AuditedRun):
    """Runs to the end, and notes at each boundary what the other runs are to be compared with.

    `look_at`: the boundary at which it looks for memory; that of the interruption, as far as is known.
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
        if self.look_at <= step < self.look_at + _LOOKS:
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
    """Runs until it ends by itself, or to a boundary where it is ended; says how many steps it took."""

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
    """Resumes, is looked at before its first step, and goes on to the last boundary of the whole run."""

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
        self.most = max(_SKIPPED * shown, _FULL_LOOKS)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching():
            self._module_hook = register_module_forward_pre_hook(self._called)
            yield

    def on_fetch(self) -> None:
        """A resumed run may skip batches: the last one that it asks for before it trains is the first."""
        if self.start is None:
            self.fetched += 1
            if self.fetched > self.most:
                self._reply_ended(f"asked for {self.most} batches (does it skip them for ever?)")
            if self.fetched <= _FULL_LOOKS or self.before is None:
                self.before = self._held()
            else:
                sources = self.find_live(self.whole.expected).sources
                self.before[0]["streams"] = sources["streams"].capture()  # type: ignore[index]

    def _called(self, module: nn.Module, *_: Any) -> None:
        """The first call of a trained module with gradients: here its first step begins."""
        if self.start is not None or not trains(module):
            return
        states, numbers = self._held()
        before, numbers_before = self.before or (states, numbers)
        self._module_hook.remove()
        self.clock.record.batches.begin_here()
        step, exact = self._where()
        self.start = ResumePoint(step, 0, exact, before, states["streams"], numbers_before)
        self.last = max(self.end - step, 1)
        self.clock.stops = frozenset({self.last}) if self.again is None else None

    def _held(self) -> tuple[dict[str, State], Mapping[str, Any]]:
        self.baseline = Baseline(self.file, self.clock, self.seed)
        live = self.find_live(self.whole.expected)
        return capture_sources(live), numbers_of(live)

    def _where(self) -> tuple[int, bool]:
        """The boundary of the whole run with these weights; of several, the nearest to where it stopped."""
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
                self._said(continuation_of(self, live, self.whole.inputs, 0))
            )

    def finish(self, ending: Ending) -> NoReturn:
        self._reply_ended(str(ending))

    def _reply_ended(self, how: str) -> NoReturn:
        self.parent.reply_and_exit(self._said(ended_continuation(self, how, 0)))

    def _said(self, future: Continuation) -> ResumedState:
        start = self.start
        if start is not None and future.contents and future.contents[0]:
            fetches = self._fetches_on(start.step, future.contents[0][0])
            start = replace(start, fetches=fetches)
            if fetches:
                future = replace(future, losses=(0.0, *future.losses[1:]))
        return ResumedState(start, future, self.held_again, self.weights)

    def _fetches_on(self, step: int, first: str) -> int:
        """How many batches of an accumulation window the resumed run leaves out: it begins in its middle."""
        window = self.whole.contents.get(step) or []
        return window.index(first) if first in window else 0


# ------------------------------------------------------------------ the carried run, and its arms


class ForkingRun(AuditedRun):
    """The whole run again, forked where the resumed one begins: one child for each arm.

    `only`: of a process that cannot be forked, the one arm that this run goes on as. If it is empty, the
    run only says which arms there are.
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
            future = continuation_of(self, live, inputs, start.step, start.fetches)
            self.parent.reply_and_exit(replace(future, streams_later=self.streams_later))
        if self.only is None:
            self.check_fork()
        self._check_past(step)
        live = self.find_live(self.whole.expected)
        held = capture_sources(live)
        futures: dict[str, Continuation] = {}
        no_reset: dict[str, str] = {}
        for name, treat in self._arms(live, held, no_reset):
            if self._becomes(name, futures):
                treat()
                return
        kinds = {
            name: "variable" if source.is_result else source.origin
            for name, source in live.sources.items()
        }
        self.parent.reply_and_exit(ForkedArms(held, numbers_of(live), kinds, futures, no_reset))

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

    def _becomes(self, name: str, futures: dict[str, Continuation]) -> bool:
        """Fork an arm. True in the arm; in this process False, once the arm's continuation is known.

        A process that cannot be forked becomes the arm `only` itself.
        """
        if self.only is None:
            future = self.fork_continuation(self.end)
        elif name == self.only:
            future, self.is_arm = None, True
            self.clock.stop_only_at(self.end)
        else:
            future = NOT_RUN
        if future is not None:
            futures[name] = future
            return False
        self.clock.fetch_delay = 0
        if (
            name == "carried"
        ):  # the streams at the first call of the model are compared in this arm only
            self._module_hook = register_module_forward_pre_hook(self._called)
        return True

    def _called(self, module: nn.Module, *_: Any) -> None:
        if trains(module):
            self._module_hook.remove()
            self.streams_later = self.find_live().sources["streams"].capture()

    def _order_as_resumed(self) -> Callable[[], None] | None:
        """Return what makes this run fetch the resumed run's batches; None if they are the same."""
        mine = [self.whole.indices.get(s) or [] for s in range(self.start.step, self.end)]
        mine[0] = mine[0][self.start.fetches :]
        theirs = list(self.resumed.future.indices)
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
