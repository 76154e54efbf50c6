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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.discovery import discover_objects
from bygones.attach.isolation.fork import Parent, fork, why_not_fork
from bygones.attach.isolation.script import Script
from bygones.attach.isolation.warmup import imported_libraries
from bygones.attach.live_run import Baseline, KnownMemory
from bygones.attach.probe_inputs import Inputs, Listener, marked_inputs
from bygones.attach.sources.variables import ScriptVariables
from bygones.attach.step_clock import trains
from bygones.attach.watched_process import CannotFork, WatchedProcess
from bygones.audit.continuation import (
    NOT_RUN,
    Continuation,
    States,
    capture_sources,
    continuation_of,
    differing_leaves,
    equal_states,
    fresh_leaves,
    numbers_of,
    other_leaves,
    shown_since,
    trained_tensors,
    units,
)
from bygones.core.errors import BygonesError, DesignError, RecipeError, ScriptError
from bygones.core.values import State

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


# ------------------------------------------------------------------ one process


# ------------------------------------------------------------------ the whole run


class WholeRun(WatchedProcess):
    """Runs to the end, and notes at each boundary what the other runs are to be compared with.

    `look_at`: the boundary at which it looks for memory; that of the interruption, as far as is known.
    """

    def __init__(self, look_at: int, *given: Any) -> None:
        super().__init__(*given)
        self.look_at = look_at
        self.modules_before = frozenset(sys.modules)
        self.clock.stops = None
        self.listener = Listener()
        self.clock.on_batch = self.listener.delivered
        self.weights: dict[int, frozenset[str]] = {}
        self.rates: dict[int, tuple[float, ...]] = {}
        self.expected: KnownMemory | None = None
        self.label = ""
        self.marked: Inputs | None = None

    def begins(self) -> None:
        self._hearing = self.listener.hearing_losses()
        self._hearing.__enter__()

    def before_first(self) -> None:
        super().before_first()
        assert self.first is not None
        self.listener.attach(self.first.trained)

    def at_boundary(self, step: int) -> None:
        if step == self.look_at and self.clock.slowest_optimizer() != self.script.clock:
            self.parent.reply_and_exit(self.clock.slowest_optimizer())
        self.weights[step] = trained_tensors(self.clock.seen)
        self.rates[step] = tuple(
            float(group["lr"]) for o in self.clock.seen for group in o.param_groups if "lr" in group
        )
        if self.look_at <= step < self.look_at + _LOOKS:
            live = self.live(None)
            known = self.expected or KnownMemory(frozenset(), frozenset())
            self.expected = KnownMemory(
                known.names | frozenset(live.sources), known.paths | live.changed
            )
            if step != self.look_at:
                return
            self.label = live.clocked_module(self.clock.seen[self.script.clock])
            self.marked = marked_inputs(live.trained)

    def ended(self, how: str) -> NoReturn:
        if self.expected is None:
            where = f"step {self.look_at}, where it was to be interrupted"
            self.parent.reply_and_exit(self.too_soon(how, where))
        if how != "came to its end":
            self.parent.reply_and_exit(
                ScriptError(f"{self.script} {how} after {self.clock.step} steps.")
            )
        inputs, why = self.marked, ""
        try:
            inputs = inputs or self.listener.inputs(self.label)
        except BygonesError as error:
            why = str(error)
        shown = self.clock.delivered
        self.parent.reply_and_exit(
            ReferenceRun(
                script=self.script,
                last=max(self.weights),
                steps=self.clock.step,
                weights=self.weights,
                indices=shown.indices,
                contents=shown.contents,
                losses=tuple(self.clock.losses),
                epochs=tuple(self.clock.epochs),
                backward_calls=tuple(self.clock.backward_calls),
                rates=self.rates,
                expected=self.expected,
                inputs=inputs,
                why_no_inputs=why,
                libraries=imported_libraries(self.modules_before),
            )
        )


# ------------------------------------------------------------------ the interrupted run


class InterruptedRun(WatchedProcess):
    """Runs until it ends by itself, or to a boundary where it is ended; says how many steps it took."""

    def __init__(self, stop_at: int | None, *given: Any) -> None:
        super().__init__(*given)
        self.clock.stops = frozenset() if stop_at is None else frozenset({stop_at})

    def at_boundary(self, step: int) -> None:
        self.parent.reply_and_exit(step)

    def ended(self, how: str) -> NoReturn:
        if how.startswith("raised"):
            self.parent.reply_and_exit(ScriptError(f"the interrupted run, {self.script}, {how}."))
        if self.clock.stops:
            (wanted,) = self.clock.stops
            where = f"step {wanted}, where it was to be interrupted"
            self.parent.reply_and_exit(self.too_soon(how, where))
        self.parent.reply_and_exit(self.clock.step)


# ------------------------------------------------------------------ the resumed run


class ResumedRun(WatchedProcess):
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
        self.clock.on_fetch = self._about_to_fetch

    def begins(self) -> None:
        self._forwards = register_module_forward_pre_hook(self._called)

    def _about_to_fetch(self) -> None:
        """A resumed run may skip batches: the last one that it asks for before it trains is the first."""
        if self.start is None:
            self.fetched += 1
            if self.fetched > self.most:
                self.ended(f"asked for {self.most} batches (does it skip them for ever?)")
            if self.fetched <= _FULL_LOOKS or self.before is None:
                self.before = self._held()
            else:
                sources = self.live(self.whole.expected).sources
                self.before[0]["streams"] = sources["streams"].capture()  # type: ignore[index]

    def _called(self, module: nn.Module, *_: Any) -> None:
        """The first call of a trained module with gradients: here its first step begins."""
        if self.start is not None or not trains(module):
            return
        states, numbers = self._held()
        before, numbers_before = self.before or (states, numbers)
        self._forwards.remove()
        self.clock.delivered.begin_here()
        step, exact = self._where()
        self.start = ResumePoint(step, 0, exact, before, states["streams"], numbers_before)
        self.last = max(self.end - step, 1)
        self.clock.stops = frozenset({self.last}) if self.again is None else None

    def _held(self) -> tuple[dict[str, State], Mapping[str, Any]]:
        self.first = Baseline(self.path, self.clock, self.seed)
        live = self.live(self.whole.expected)
        return capture_sources(live), numbers_of(live)

    def _where(self) -> tuple[int, bool]:
        """The boundary of the whole run with these weights; of several, the nearest to where it stopped."""
        found = discover_objects(self.clock.seen, self.path, {})
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
            self.weights[self.start.step + step] = trained_tensors(self.clock.seen)
            if self.start.step + step == self.again:
                self.held_again = capture_sources(self.live(self.whole.expected))
        if step == self.last:
            live = self.live(self.whole.expected)
            self.parent.reply_and_exit(
                self._said(continuation_of(self, live, self.whole.inputs, 0))
            )

    def ended(self, how: str) -> NoReturn:
        self.parent.reply_and_exit(self._said(Continuation({}, {}, *shown_since(self, 0), how)))

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


class ForkingRun(WatchedProcess):
    """The whole run again, forked where the resumed one begins: one child for each arm.

    `only`: of a process that cannot be forked, the one arm that this run goes on as. If it is empty, the
    run only says which arms there are.
    """

    def __init__(
        self, whole: ReferenceRun, resumed: ResumedState, end: int, only: str | None, *given: Any
    ) -> None:
        super().__init__(*given)
        assert resumed.start is not None
        self.only = only
        self.whole, self.start, self.resumed, self.end = whole, resumed.start, resumed, end
        self.clock.stops = frozenset({resumed.start.step})
        self.clock.fetches_on = resumed.start.fetches
        self.streams_later: State = {}

    def at_boundary(self, step: int) -> None:
        if self.arm is not None:
            live = self.live(self.whole.expected)
            future = continuation_of(
                self, live, self.whole.inputs, self.start.step, self.start.fetches
            )
            self.arm.reply_and_exit(replace(future, streams_later=self.streams_later))
        why = why_not_fork()
        if why is not None and self.only is None:
            self.parent.reply_and_exit(CannotFork(f"{self.script} cannot be forked: {why}"))
        if self.clock.losses != list(self.whole.losses[:step]) or any(
            self.clock.delivered.contents.get(s) != self.whole.contents.get(s) for s in range(step)
        ):
            raise ScriptError(
                f"{self.script} does not repeat itself with seed {self.seed}, so a resumed run cannot be "
                f"told from another one. Something in it is not decided by its seed."
            )
        live = self.live(self.whole.expected)
        held = capture_sources(live)
        futures: dict[str, Continuation] = {}
        no_reset: dict[str, str] = {}
        for name in ("carried", "sham"):
            if self._fork(futures, name):
                if name == "sham":
                    for source, state in held.items():
                        live.sources[source].restore(state)
                return
        for name, source, leaves in units(held):
            mine = {leaf: held[source][leaf] for leaf in leaves}
            try:
                fresh = fresh_leaves(live, source, leaves)
            except (DesignError, RecipeError) as error:
                no_reset[name] = str(error)
                fresh = None
            if fresh is not None and not equal_states(fresh, mine):
                if self._fork(futures, f"reset {name}"):
                    live.sources[source].restore({**other_leaves(held[source], mine), **fresh})
                    return
            as_resumed = differing_leaves(name, source, mine, self.start.states)
            if as_resumed is not None and self._fork(futures, f"resumed {name}"):
                held_by = live.sources[source]
                with suppress(RecipeError, KeyError):
                    if isinstance(held_by, ScriptVariables):
                        held_by.imitate(as_resumed)
                    else:
                        held_by.restore({**other_leaves(held[source], mine), **as_resumed})
                return
        order = self._order_as_resumed()
        if order is not None and self._fork(futures, "resumed order"):
            order()
            return
        kinds = {
            name: "variable"
            if isinstance(s, ScriptVariables) and s.origin != "averaging"
            else s.origin
            for name, s in live.sources.items()
        }
        self.parent.reply_and_exit(ForkedArms(held, numbers_of(live), kinds, futures, no_reset))

    def _fork(self, futures: dict[str, Continuation], name: str) -> bool:
        """True in the child, which goes on as this arm; in the parent, once the arm's future is known."""
        if self.only is not None and name != self.only:
            futures[name] = NOT_RUN
            return False
        side = self.parent if self.only is not None else fork(flush=False)
        if isinstance(side, Parent):
            self.clock.fetches_on = 0
            if self.only is None:
                self.goes_on_as_arm(side, self.end)
            else:
                self.arm = side
                self.clock.wait_for(self.end)
            if name == "carried":  # of the other arms nobody asks where the streams are later
                self._forwards = register_module_forward_pre_hook(self._called)
            return True
        said = side.wait()
        futures[name] = (
            said
            if isinstance(said, Continuation)
            else Continuation({}, {}, (), (), (), "was killed")
        )
        return False

    def _called(self, module: nn.Module, *_: Any) -> None:
        if trains(module):
            self._forwards.remove()
            self.streams_later = self.live(None).sources["streams"].capture()

    def ended(self, how: str) -> NoReturn:
        if self.arm is not None:
            seen = shown_since(self, self.start.step, self.start.fetches)
            self.arm.reply_and_exit(Continuation({}, {}, *seen, how))
        where = f"step {self.start.step}, where the resumed run begins"
        self.parent.reply_and_exit(self.too_soon(how, where))

    def _order_as_resumed(self) -> Any:
        """Shows what the resumed run was shown, if that was something else; None if it was not."""
        mine = [self.whole.indices.get(s) or [] for s in range(self.start.step, self.end)]
        mine[0] = mine[0][self.start.fetches :]
        theirs = list(self.resumed.future.indices)
        if not theirs or mine[: len(theirs)] == theirs[: len(mine)]:
            return None
        waiting = [index for step in theirs for index in step]
        if self.clock.loader is None or any(index is None for index in waiting):
            return None

        def as_resumed(iterator: Any, index: Any) -> Any:
            return waiting.pop(0) if waiting else index

        def begin() -> None:
            assert self.clock.loader is not None
            self.clock.replace_on, self.clock.replace = self.clock.loader._dataset, as_resumed

        return begin


# ------------------------------------------------------------------ states
