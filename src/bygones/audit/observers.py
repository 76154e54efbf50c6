"""Observer audit: find evaluation and saving code that changes the training run, and what it changes.

An *observer* is a stretch of the script's own code that calls the model without gradients, or saves, and in
which nothing is trained: from `eval()` to `train()`, a call of `torch.save`, a function of the script. Every
source is captured before and after it. Where one differs, two arms are forked right after the observer, and
in one of them the source is restored: if the two continue equally, to the bit, the change has no effect.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.isolation.fork import scratch_folder, why_not_fork
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import Live
from bygones.attach.step_clock import trains
from bygones.attach.watched_process import Ending, run_by_slowest
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    Continuation,
    States,
    capture_sources,
    continuation_of,
    ended_continuation,
    same_continuation,
    units,
)
from bygones.core.digest import same_bits

_CALLS_COMPARED = 3  # calls of each observer before and after which states are compared
_CALLS_PROFILED = 6  # calls of each function before and after which states are captured


@dataclass(frozen=True)
class Trace:
    """A source that an observer changed, whether that alters the run, and from which loss on."""

    source: str
    alters: bool
    first_loss: int | None = None


@dataclass(frozen=True)
class Observer:
    """A stretch of code that observes the run: its place, its number of calls, and what it changed."""

    place: str
    step: int  # the step after which it was first called
    calls: int
    traces: tuple[Trace, ...] = ()

    @property
    def alters(self) -> bool:
        return any(trace.alters for trace in self.traces)

    def __str__(self) -> str:
        if not self.traces:
            return f"{self.place} leaves the run as it was ({self.calls} looked at)."
        changes = []
        for trace in self.traces:
            if trace.alters:
                when = f", from the loss of step {trace.first_loss} on" if trace.first_loss else ""
                changes.append(f"changes {trace.source}, and the run is another one for it{when}")
            else:
                changes.append(f"changes {trace.source}, without consequence here")
        return f"{self.place} {'; '.join(changes)}."

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "alters": self.alters}


def find_observers(
    script: Script, home: Path, seed: int, until: int, horizon: int
) -> list[Observer]:
    """Run a script for `until` steps, or to its end, and find its observers. Arms run `horizon` steps."""
    check_script(script)
    warm()
    with scratch_folder() as folder:
        _, found = run_by_slowest(
            lambda script, parent: _ObservedRun(
                until, horizon, script, home, seed, folder / "run", parent
            ),
            script,
        )
    return sorted(found, key=lambda observer: (not observer.alters, observer.step, observer.place))


@dataclass
class _Stretch:
    """A running observer: the states at its beginning, and what it has done since."""

    place: str
    before: States
    modes: Mapping[int, bool]
    observes: bool = False
    trains: bool = False


class _ObservedRun(AuditedRun):
    def __init__(self, until: int, horizon: int, *given: Any) -> None:
        super().__init__(*given, stops=frozenset({until}))
        self.until, self.horizon = until, horizon
        # Functions of the script that are running, innermost last.
        self.under_way: list[tuple[CodeType, _Stretch | None]] = []
        self.evaluating: _Stretch | None = None
        self.found: dict[str, Observer] = {}
        self.calls_seen: dict[CodeType, int] = {}
        self.training_code: set[CodeType] = set()
        self._mine: dict[CodeType, bool] = {}
        self.busy = False
        self.saves = torch.save
        self.modes = nn.Module.train

    # ------------------------------------------------------------------ listening

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching():
            self._install_hooks()
            yield

    def before_backward(self) -> None:
        self._trains()

    def _install_hooks(self) -> None:
        run = self
        register_module_forward_pre_hook(self._before_module)

        def train(module: nn.Module, mode: bool = True) -> nn.Module:
            run._on_mode_change(module, mode)
            return run.modes(module, mode)

        def save(*args: Any, **settings: Any) -> Any:
            with run._saving():
                return run.saves(*args, **settings)

        nn.Module.train = train  # type: ignore[method-assign]
        torch.save = save
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Profile function: follow calls and returns of the functions in the script's folder."""
        if self.busy or event not in ("call", "return"):
            return
        code = frame.f_code
        if event == "return":
            if self.under_way and self.under_way[-1][0] is code:
                stretch = self.under_way.pop()[1]
                if stretch is not None and not stretch.trains:
                    self._end(stretch)
        elif code not in self.training_code and self._is_mine(code):
            calls_seen = self.calls_seen.get(code, 0)
            hold = calls_seen < _CALLS_PROFILED and self.clock.step > 0 and not self.is_arm
            self.calls_seen[code] = calls_seen + hold
            place = f"{code.co_name}() at {Path(code.co_filename).name}:{code.co_firstlineno}"
            self.under_way.append((code, self._begin(place) if hold else None))

    def _is_mine(self, code: CodeType) -> bool:
        known = self._mine.get(code)
        if known is None:
            file = code.co_filename
            known = self._mine[code] = (
                file.startswith(str(self.file.resolve().parent))
                and code.co_name
                not in ("<module>", "forward", "__getitem__", "__iter__", "__next__")
                and not code.co_name.startswith("<")
                and not code.co_flags & inspect.CO_GENERATOR  # generators are suspended and resumed
            )
        return known

    def _before_module(self, module: nn.Module, *given: Any) -> None:
        """Called before each module: with gradients it trains, without them it observes."""
        if self.busy or not any(True for _ in module.parameters()):
            return
        if trains(module):
            self._trains()
            return
        for _, stretch in self.under_way:
            if stretch is not None:
                stretch.observes = True
        if self.evaluating is not None:
            self.evaluating.observes = True

    def _trains(self) -> None:
        for running, stretch in self.under_way:
            self.training_code.add(running)
            if stretch is not None:
                stretch.trains = True
        if self.evaluating is not None and torch.is_grad_enabled():
            self.evaluating.trains = True

    def _on_mode_change(self, module: nn.Module, mode: bool) -> None:
        """Begin an observer at `eval()` of a trained module, and end it at `train()`."""
        if self.busy or self.is_arm or self.clock.step == 0 or self.baseline is None:
            return
        if not any(module is root for root in self.baseline.trained.values()):
            return
        if not mode and self.evaluating is None:
            self.evaluating = self._begin(f"the evaluation that begins at {self._script_line()}")
        elif mode and self.evaluating is not None:
            stretch, self.evaluating = self.evaluating, None
            if not stretch.trains:
                self._end(stretch, but_modes=True)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        hold = not self.busy and not self.is_arm and self.clock.step > 0
        stretch = self._begin(f"torch.save at {self._script_line()}") if hold else None
        try:
            yield
        finally:
            if stretch is not None:
                for _, outer in self.under_way:
                    if outer is not None:
                        outer.observes = True
                stretch.observes = True
                self._end(stretch)

    def _script_line(self) -> str:
        """Return the running line of the script, as file:line."""
        frame: FrameType | None = sys._getframe()
        folder = str(self.file.resolve().parent)
        while frame is not None and not frame.f_code.co_filename.startswith(folder):
            frame = frame.f_back
        if frame is None:
            return f"an unknown line of {self.file.name}"
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

    # ------------------------------------------------------------------ comparing

    def _begin(self, place: str) -> _Stretch | None:
        known = self.found.get(place)
        if self.baseline is None or (known is not None and known.calls >= _CALLS_COMPARED):
            return None
        live, states = self._capture()
        return _Stretch(place, states, _modes(live))

    def _end(self, stretch: _Stretch, *, but_modes: bool = False) -> None:
        """Compare the states before an observer and now; arms show whether a difference matters."""
        if not stretch.observes:
            return
        live, states = self._capture()
        changed = [
            (name, source, leaves)
            for name, source, leaves in units(stretch.before)
            if source in states
            and not all(
                same_bits(stretch.before[source][leaf], states[source].get(leaf)) for leaf in leaves
            )
        ]
        known = self.found.get(stretch.place, Observer(stretch.place, self.clock.step, 0))
        seen = {trace.source for trace in known.traces}
        traces = list(known.traces)
        modes = _modes(live)
        if not but_modes and any(modes.get(key) != mode for key, mode in stretch.modes.items()):
            if "the modules' mode" not in seen:
                traces.append(Trace("the modules' mode", True))
        new = [unit for unit in changed if unit[0] not in seen]
        if new:
            traces += self._traces(stretch, live, new)
            if self.is_arm:
                return
        self.found[stretch.place] = Observer(
            stretch.place, known.step, known.calls + 1, tuple(traces)
        )

    def _traces(
        self, stretch: _Stretch, live: Live, changed: list[tuple[str, str, list[str]]]
    ) -> list[Trace]:
        as_is = self._fork_twin(lambda: None)
        if as_is is None:
            return []
        traces = []
        for name, source, leaves in changed:
            before = {leaf: stretch.before[source][leaf] for leaf in leaves}

            def put_back(source: str = source, before: Mapping[str, Any] = before) -> None:
                kept = live.sources[source].capture()
                live.sources[source].restore({**kept, **before})

            other = self._fork_twin(put_back)
            if other is None:
                return traces
            alters = not same_continuation(
                as_is, other, but="streams" if source == "streams" else ""
            )
            losses = zip(as_is.losses, other.losses, strict=False)
            first = next((i for i, (a, b) in enumerate(losses) if a != b), None)
            traces.append(Trace(name, alters, None if first is None else self.clock.step + first))
        return traces

    def _fork_twin(self, change: Callable[[], None]) -> Continuation | None:
        """Fork an arm that makes `change`. Returns its continuation; None in the arm, or without forks."""
        if why_not_fork() is not None:
            return None
        self.since = self.clock.step
        continuation = self.fork_continuation(self.since + self.horizon)
        if continuation is None:
            sys.setprofile(None)
            change()
        return continuation

    def _capture(self) -> tuple[Live, dict[str, Any]]:
        self.busy = True
        try:
            live = self.find_live()
            return live, capture_sources(live)
        finally:
            self.busy = False

    # ------------------------------------------------------------------ ending

    def at_boundary(self, step: int) -> None:
        if self.is_arm:
            self.busy = True
            self.parent.reply_and_exit(continuation_of(self, self.find_live(), None, self.since))
        self._reply(Ending())

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            self.parent.reply_and_exit(ended_continuation(self, str(ending), self.since))
        self._reply(ending)

    def _reply(self, ending: Ending) -> NoReturn:
        sys.setprofile(None)
        if self.clock.optimizers:
            self.check_optimizer()
        if self.clock.step == 0 or ending.raised:
            self.parent.reply_and_exit(self.ended_early(ending, f"step {self.until}"))
        if self.evaluating is not None and self.evaluating.trains:
            place = self.evaluating.place
            trace = Trace("the modules' mode, in which training goes on", True)
            known = self.found.get(place, Observer(place, self.clock.step, 1))
            self.found[place] = Observer(place, known.step, known.calls, (*known.traces, trace))
        self.parent.reply_and_exit(list(self.found.values()))


def _modes(live: Live) -> dict[int, bool]:
    return {id(m): m.training for root in live.trained.values() for m in root.modules()}
