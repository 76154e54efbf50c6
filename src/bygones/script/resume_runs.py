"""The processes of a resume check: the whole run, the one that is interrupted, the one that resumes.

    whole        ──────────────────────────────▶ end        what each step was shown, which memory there is
    interrupted  ────────▶ ✕                                writes the script's own checkpoint
    resumed               ╰────────────────────▶ end        what it holds before its first step
    carried      ────────┬─────────────────────▶ end        the whole run again, forked where that is:
                         ├── sham, each source reset, each source as the resumed run held it

Each is the script as it is, in a process of its own. The resumed run sees the files of the interrupted one.
"""

from __future__ import annotations

import shutil
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.digest import same
from bygones.errors import BygonesError, DesignError, RecipeError, ScriptError
from bygones.ledger import quick
from bygones.script.children import ChildDied, Parent, fork, why_not_fork
from bygones.script.clock import Clock, trains
from bygones.script.files import Overlay, guarding_native_writes, part
from bygones.script.find import alive
from bygones.script.launch import Script, imported_libraries, run_script
from bygones.script.live import Expected, FirstLook, Live
from bygones.script.loaders import emulating
from bygones.script.loose import Loose
from bygones.script.probing import Inputs, Listener, marked_inputs, observe
from bygones.script.streams import but_keys
from bygones.script.twin import CannotFork, over_too_soon, redirect_output
from bygones.values import State

# Boundaries at which memory is looked for: what turns in a circle may look unchanged at one of them.
_LOOKS = 3
# Batches that a resumed run may skip while everything is copied before each of them.
_FULL_LOOKS = 100
# Times all batches of the whole run: one that has asked for so many and has not trained never will.
_SKIPPED = 3

States = Mapping[str, State]


@dataclass(frozen=True)
class Future:
    """What came of a run from the fork on, up to the last boundary that was looked at.

    `outputs`: of the trained module, then of each average of it. `indices` and `contents` of the batches of
    each step are told from the fork on, and so are `losses`.
    """

    outputs: Mapping[str, np.ndarray]
    states: Mapping[str, str]
    indices: tuple[Any, ...]
    contents: tuple[Any, ...]
    losses: tuple[float, ...]
    ended: str = ""  # how it ended before that boundary, in words
    streams_later: State = field(default_factory=dict)  # where its first step calls the model


_NOT_RUN = Future({}, {}, (), (), (), "was not run")


@dataclass(frozen=True)
class Whole:
    """What the uninterrupted run was seen to do and to have, up to its last boundary."""

    script: Script  # with the optimizer that its steps are counted by
    last: int
    steps: int
    weights: Mapping[int, frozenset[str]]  # a digest of each trained tensor, by boundary
    indices: Mapping[int, Any]
    contents: Mapping[int, list[str]]
    losses: tuple[float, ...]
    epochs: tuple[int, ...]
    descents: tuple[int, ...]
    rates: Mapping[int, tuple[float, ...]]
    expected: Expected
    inputs: Inputs | None
    why_no_inputs: str
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """What a resumed run held before its first step. `step`, `fetches`: where in the whole run that is."""

    step: int
    fetches: int
    exact: bool  # whether its weights are, to the bit, those of that boundary
    states: States
    streams_later: State  # the random streams where its first step calls the model
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Resumed:
    """`again`: what it held at the boundary of a second interruption, and its weights at every boundary."""

    start: Start | None
    future: Future
    again: States = field(default_factory=dict)
    weights: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Carried:
    """The whole run at the same boundary, and the futures of its arms by name."""

    states: States
    numbers: Mapping[str, Any]
    kinds: Mapping[str, str]  # "variable" for what hangs on the script's variables, else the origin
    futures: Mapping[str, Future]
    no_reset: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------ one process


class Watched(ABC):
    """A process that runs a script from its beginning, watched; what it found it says to its parent."""

    def __init__(self, script: Script, home: Path, seed: int, folder: Path, parent: Parent) -> None:
        self.script, self.home, self.seed, self.folder = script, home, seed, folder
        self.parent = parent
        self.clock = Clock(script.clock)
        self.clock.delivered.keeping = True
        self.clock.ends_epochs = True  # what an epoch's end saves belongs to the run so far
        self.clock.before_first = self.before_first
        self.clock.at_boundary = self.at_boundary
        self.first: FirstLook | None = None
        self.arm: Parent | None = None  # of a twin: who waits for its future

    def run(self, *, anew: bool = True) -> NoReturn:
        """`anew`: in an empty folder of its own; else in the one where the interrupted run left its files."""
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
        redirect_output(self.folder / ("printed" if anew else "printed-resumed"))
        Overlay(self.home, self.folder / "files", allowed=(self.folder,)).enter()
        try:
            with self.clock.listening(), guarding_native_writes(), emulating():
                self.begins()
                run_script(self.script, self.seed, self.home)
        except BygonesError as error:
            self.parent.say(error)
        except SystemExit as leaving:
            self.ended(f"called sys.exit({leaving.code!r})" if leaving.code else "came to its end")
        except BaseException as error:
            self.ended(f"raised {type(error).__name__}: {error}")
        self.ended("came to its end")

    @property
    def path(self) -> Path:
        return self.home / self.script.path

    def begins(self) -> None:  # noqa: B027 - most have nothing to do there
        """Before the script's first line."""

    def before_first(self) -> None:
        self.first = self.first or FirstLook(self.path, self.clock, self.seed)

    @abstractmethod
    def at_boundary(self, step: int) -> None:
        """At each boundary that the clock stops at."""

    @abstractmethod
    def ended(self, how: str) -> NoReturn:
        """The script is over (how, in words), and something has to be said."""
        raise NotImplementedError

    def too_soon(self, how: str, where: str) -> ScriptError:
        """The sentence for a script that ended before the step that was asked about."""
        advice = "Choose earlier steps"
        return over_too_soon(self.script, how, self.clock.step, where, self.clock, advice)

    def goes_on_as_arm(self, side: Parent, until: int) -> None:
        """From here on, this process is a twin that was forked off, with a folder of its own."""
        self.arm = side
        self.clock.go_on_here()
        self.clock.wait_for(until)
        folder = self.folder / "arm"
        shutil.rmtree(folder, ignore_errors=True)
        part(folder / "files", also={self.folder: folder})

    def live(self, expected: Expected | None) -> Live:
        assert self.first is not None
        return Live(self.path, self.clock, self.seed, self.first, {}, expected)

    def future(self, live: Live, inputs: Inputs | None, since: int, fetches: int = 0) -> Future:
        """What came of this run since a step, seen from here."""
        states = {
            name: quick(but_keys(source.capture()))
            for name, source in live.sources.items()
            if name != "order" and not (isinstance(source, Loose) and source.origin != "averaging")
        }
        outputs = {} if inputs is None else outputs_of(live, inputs)
        return Future(outputs, states, *self.shown(since, fetches))

    def shown(self, since: int, fetches: int = 0) -> tuple[Any, Any, tuple[float, ...]]:
        """Indices, contents and losses of the steps since a boundary, or since so many batches after it.

        Where the boundary lies inside an accumulation window, the first loss is that of a part: left out.
        """
        delivered, steps = self.clock.delivered, range(since, self.clock.step)
        indices = [delivered.indices.get(step) or [] for step in steps]
        contents = [delivered.contents.get(step) or [] for step in steps]
        losses = self.clock.losses[since:]
        if fetches and steps:
            indices[0], contents[0], losses[0] = indices[0][fetches:], contents[0][fetches:], 0.0
        return tuple(indices), tuple(contents), tuple(losses)


def outputs_of(live: Live, inputs: Inputs) -> dict[str, np.ndarray]:
    """What the trained module says, and each average or teacher that is made like it: at the very end."""
    label, _, name = inputs.module.partition("/")
    if label not in live.trained and len(live.trained) == 1:  # another path leads to it in this run
        (label,) = live.trained
        inputs = replace(inputs, module=f"{label}/{name}")
    seen = {"": observe(inputs, live)[0]}
    for other, module in live.averaging.items():
        alike = _like(module, live.trained.get(label), name) if inputs.function is None else None
        if alike is not None:
            with suppress(Exception):  # it is made like the model, and yet cannot be called like it
                seen[other] = observe(inputs, live, alike)[0]
    return seen


def _like(module: nn.Module, trained: nn.Module | None, name: str) -> nn.Module | None:
    """The part of an average that stands for the observed part of the trained module."""
    if trained is None:
        return None
    wanted = trained.get_submodule(name)
    shapes = [p.shape for p in wanted.parameters()]
    for one in module.modules():
        if type(one) is type(wanted) and [p.shape for p in one.parameters()] == shapes:
            return one
    return None


def trained_tensors(optimizers: list[Any]) -> frozenset[str]:
    """A digest of each tensor that optimizers update, with a number for equal ones."""
    tensors: list[Tensor] = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    seen: Counter[str] = Counter()
    found = set()
    for tensor in tensors:
        value = quick(tensor)
        seen[value] += 1
        found.add(f"{value}/{seen[value]}")
    return frozenset(found)


def in_child(make: Callable[[Parent], Watched], *, anew: bool = True) -> Any:
    """Runs one such process to its end, and gives what it said; refusals come through as errors."""
    side = fork()
    if isinstance(side, Parent):
        make(side).run(anew=anew)
    said = side.wait()
    if said is None:
        raise ScriptError("the script was killed (out of memory?).") from ChildDied()
    if isinstance(said, BygonesError):
        raise said
    return said


# ------------------------------------------------------------------ the whole run


class WholeRun(Watched):
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
        self.expected: Expected | None = None
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
        if step == self.look_at and self.clock.closes_a_round() != self.script.clock:
            self.parent.say(self.clock.closes_a_round())
        self.weights[step] = trained_tensors(self.clock.seen)
        self.rates[step] = tuple(
            float(group["lr"]) for o in self.clock.seen for group in o.param_groups if "lr" in group
        )
        if self.look_at <= step < self.look_at + _LOOKS:
            live = self.live(None)
            known = self.expected or Expected(frozenset(), frozenset())
            self.expected = Expected(
                known.names | frozenset(live.sources), known.paths | live.changed
            )
            if step != self.look_at:
                return
            self.label = live.clocked_module(self.clock.seen[self.script.clock])
            self.marked = marked_inputs(live.trained)

    def ended(self, how: str) -> NoReturn:
        if self.expected is None:
            where = f"step {self.look_at}, where it was to be interrupted"
            self.parent.say(self.too_soon(how, where))
        if how != "came to its end":
            self.parent.say(ScriptError(f"{self.script} {how} after {self.clock.step} steps."))
        inputs, why = self.marked, ""
        try:
            inputs = inputs or self.listener.inputs(self.label)
        except BygonesError as error:
            why = str(error)
        shown = self.clock.delivered
        self.parent.say(
            Whole(
                script=self.script,
                last=max(self.weights),
                steps=self.clock.step,
                weights=self.weights,
                indices=shown.indices,
                contents=shown.contents,
                losses=tuple(self.clock.losses),
                epochs=tuple(self.clock.epochs),
                descents=tuple(self.clock.descents),
                rates=self.rates,
                expected=self.expected,
                inputs=inputs,
                why_no_inputs=why,
                libraries=imported_libraries(self.modules_before),
            )
        )


# ------------------------------------------------------------------ the interrupted run


class InterruptedRun(Watched):
    """Runs until it ends by itself, or to a boundary where it is ended; says how many steps it took."""

    def __init__(self, stop_at: int | None, *given: Any) -> None:
        super().__init__(*given)
        self.clock.stops = frozenset() if stop_at is None else frozenset({stop_at})

    def at_boundary(self, step: int) -> None:
        self.parent.say(step)

    def ended(self, how: str) -> NoReturn:
        if how.startswith("raised"):
            self.parent.say(ScriptError(f"the interrupted run, {self.script}, {how}."))
        if self.clock.stops:
            (wanted,) = self.clock.stops
            where = f"step {wanted}, where it was to be interrupted"
            self.parent.say(self.too_soon(how, where))
        self.parent.say(self.clock.step)


# ------------------------------------------------------------------ the resumed run


class ResumedRun(Watched):
    """Resumes, is looked at before its first step, and goes on to the last boundary of the whole run."""

    def __init__(
        self, whole: Whole, interrupted_at: int, end: int, again: int | None, *given: Any
    ) -> None:
        super().__init__(*given)
        self.whole, self.interrupted_at, self.end = whole, interrupted_at, end
        self.again = again
        self.held_again: States = {}
        self.weights: dict[int, frozenset[str]] = {}
        self.start: Start | None = None
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
        self.start = Start(step, 0, exact, before, states["streams"], numbers_before)
        self.last = max(self.end - step, 1)
        self.clock.stops = frozenset({self.last}) if self.again is None else None

    def _held(self) -> tuple[dict[str, State], Mapping[str, Any]]:
        self.first = FirstLook(self.path, self.clock, self.seed)
        live = self.live(self.whole.expected)
        return captured(live), numbers_of(live)

    def _where(self) -> tuple[int, bool]:
        """The boundary of the whole run with these weights; of several, the nearest to where it stopped."""
        found = alive(self.clock.seen, self.path, {})
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
                self.held_again = captured(self.live(self.whole.expected))
        if step == self.last:
            live = self.live(self.whole.expected)
            self.parent.say(self._said(self.future(live, self.whole.inputs, 0)))

    def ended(self, how: str) -> NoReturn:
        self.parent.say(self._said(Future({}, {}, *self.shown(0), how)))

    def _said(self, future: Future) -> Resumed:
        start = self.start
        if start is not None and future.contents and future.contents[0]:
            fetches = self._fetches_on(start.step, future.contents[0][0])
            start = replace(start, fetches=fetches)
            if fetches:
                future = replace(future, losses=(0.0, *future.losses[1:]))
        return Resumed(start, future, self.held_again, self.weights)

    def _fetches_on(self, step: int, first: str) -> int:
        """How many batches of an accumulation window the resumed run leaves out: it begins in its middle."""
        window = self.whole.contents.get(step) or []
        return window.index(first) if first in window else 0


# ------------------------------------------------------------------ the carried run, and its arms


class CarriedRun(Watched):
    """The whole run again, forked where the resumed one begins: one child for each arm.

    `only`: of a process that cannot be forked, the one arm that this run goes on as. If it is empty, the
    run only says which arms there are.
    """

    def __init__(
        self, whole: Whole, resumed: Resumed, end: int, only: str | None, *given: Any
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
            future = self.future(live, self.whole.inputs, self.start.step, self.start.fetches)
            self.arm.say(replace(future, streams_later=self.streams_later))
        why = why_not_fork()
        if why is not None and self.only is None:
            self.parent.say(CannotFork(f"{self.script} cannot be forked: {why}"))
        if self.clock.losses != list(self.whole.losses[:step]) or any(
            self.clock.delivered.contents.get(s) != self.whole.contents.get(s) for s in range(step)
        ):
            raise ScriptError(
                f"{self.script} does not repeat itself with seed {self.seed}, so a resumed run cannot be "
                f"told from another one. Something in it is not decided by its seed."
            )
        live = self.live(self.whole.expected)
        held = captured(live)
        futures: dict[str, Future] = {}
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
                fresh = _fresh(live, source, leaves)
            except (DesignError, RecipeError) as error:
                no_reset[name] = str(error)
                fresh = None
            if fresh is not None and not _equal(fresh, mine):
                if self._fork(futures, f"reset {name}"):
                    live.sources[source].restore({**_rest(held[source], mine), **fresh})
                    return
            as_resumed = differing_leaves(name, source, mine, self.start.states)
            if as_resumed is not None and self._fork(futures, f"resumed {name}"):
                held_by = live.sources[source]
                with suppress(RecipeError, KeyError):
                    if isinstance(held_by, Loose):
                        held_by.imitate(as_resumed)
                    else:
                        held_by.restore({**_rest(held[source], mine), **as_resumed})
                return
        order = self._order_as_resumed()
        if order is not None and self._fork(futures, "resumed order"):
            order()
            return
        kinds = {
            name: "variable" if isinstance(s, Loose) and s.origin != "averaging" else s.origin
            for name, s in live.sources.items()
        }
        self.parent.say(Carried(held, numbers_of(live), kinds, futures, no_reset))

    def _fork(self, futures: dict[str, Future], name: str) -> bool:
        """True in the child, which goes on as this arm; in the parent, once the arm's future is known."""
        if self.only is not None and name != self.only:
            futures[name] = _NOT_RUN
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
            said if isinstance(said, Future) else Future({}, {}, (), (), (), "was killed")
        )
        return False

    def _called(self, module: nn.Module, *_: Any) -> None:
        if trains(module):
            self._forwards.remove()
            self.streams_later = self.live(None).sources["streams"].capture()

    def ended(self, how: str) -> NoReturn:
        if self.arm is not None:
            seen = self.shown(self.start.step, self.start.fetches)
            self.arm.say(Future({}, {}, *seen, how))
        where = f"step {self.start.step}, where the resumed run begins"
        self.parent.say(self.too_soon(how, where))

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


def captured(live: Live) -> dict[str, State]:
    """What every source holds here; the order is compared by what is shown."""
    states: dict[str, State] = {}
    for name, source in live.sources.items():
        if name != "order":
            states[name] = source.capture()
    return states


def numbers_of(live: Live) -> dict[str, Any]:
    """Plain values of the script's variables, by path: clues, where no source explains a difference."""
    return {
        place.path: place.value
        for source in live.sources.values()
        for place in getattr(source, "places", {}).values()
        if isinstance(place.value, bool | int | float | str)
    }


def units(states: States) -> list[tuple[str, str, list[str]]]:
    """What is checked as one: (name, source, leaves). Each random stream is one of its own."""
    found: list[tuple[str, str, list[str]]] = []
    for source, state in states.items():
        if source == "streams":
            for stream in sorted({leaf.rpartition("/")[0] for leaf in state}):
                found.append((f"streams/{stream}", source, [f"{stream}/state"]))
        else:
            found.append((source, source, list(state)))
    return found


def differing_leaves(name: str, source: str, mine: State, theirs: States) -> dict[str, Any] | None:
    """The unit as the other run holds it; None if it is the same, or if there is no such thing yet."""
    if source not in theirs:
        return None
    other = theirs[source]
    leaves = set(mine) | (set(other) if source != "streams" else set())
    if source == "streams":
        leaves = {leaf for leaf in leaves if leaf in other}
    if all(leaf in mine and leaf in other and same(mine[leaf], other[leaf]) for leaf in leaves):
        return None
    return {leaf: other[leaf] for leaf in other if leaf in leaves}


def _rest(state: State, mine: State) -> dict[str, Any]:
    return {leaf: value for leaf, value in state.items() if leaf not in mine}


def _fresh(live: Live, source: str, leaves: list[str]) -> dict[str, Any]:
    fresh = live.sources[source].fresh()
    return {k: v for k, v in fresh.items() if source != "streams" or k in leaves}


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(same(one[leaf], other[leaf]) for leaf in one)
