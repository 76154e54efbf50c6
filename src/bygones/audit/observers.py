"""Observer audit: find evaluation and saving code that changes the training run, and what it changes.

An *observer* is a stretch of the script's own code that calls the model without gradients, or saves, and in
which nothing is trained: from `eval()` to `train()`, a block without gradients, a call of `torch.save`, a
function of the script. Every source, and the mode of each module, is captured before and after it. Where one
differs, two arms are forked right after the observer, and in one of them it is put back: if the two
continue equally, to the bit, the change has no effect. Where they do not, the next call of the observer shows
whether it is one at all: if its outputs are disturbed and later losses differ, training goes on from them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.autograd.grad_mode import inference_mode, no_grad, set_grad_enabled
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bygones.attach.isolation.fork import scratch_folder, why_not_fork
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import Baseline, Live
from bygones.attach.step_clock import trains
from bygones.attach.watched_process import Ending, run_by_slowest
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    Continuation,
    capture_sources,
    continuation_of,
    ended_continuation,
    same_continuation,
)
from bygones.audit.disturbed_outputs import disturb_outputs
from bygones.audit.traces import (
    MODES,
    Change,
    Look,
    Observer,
    Trace,
    changed_modes,
    changes_between,
    look_at,
    put_modes_back,
)
from bygones.core.first_difference import first_differing_index

_CALLS_COMPARED = 3  # calls of each observer before and after which states are compared
_CALLS_CAPTURED = 6  # calls of each stretch before and after which states are captured
_MOST_PARTS = 8  # variables of one change that are put back one by one
_WITHOUT_GRADIENTS = (no_grad, inference_mode, set_grad_enabled)


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


@dataclass(frozen=True)
class _RatedContinuation(Continuation):
    """A continuation with the learning rates of each update."""

    rates: tuple[tuple[float, ...], ...] = ()


@dataclass(eq=False)
class _Stretch:
    """A running stretch of code: the run at its beginning, and what it has done since.

    `frame`: the function of the script in which it began. `inner`: places of blocks in it, which need no line
    of their own if it observes as a whole. `compared`: whether its states were compared, so that only the
    modules' modes are left to judge.
    """

    place: str
    baseline: Baseline
    before: Look
    frame: FrameType | None
    inner: list[str] = field(default_factory=list)
    observes: bool = False
    without_gradients: bool = False
    trains: bool = False
    compared: bool = False


class _ObservedRun(AuditedRun):
    def __init__(self, until: int, horizon: int, *given: Any) -> None:
        super().__init__(*given, stops=frozenset({until}))
        self.until, self.horizon = until, horizon
        # Functions of the script that are running, innermost last.
        self.under_way: list[tuple[CodeType, _Stretch | None]] = []
        self.blocks: dict[int, _Stretch] = {}  # open blocks without gradients, by context manager
        self.evaluating: _Stretch | None = None
        self.found: dict[str, Observer] = {}
        self.captured: dict[str, int] = {}
        self.judged: set[str] = set()  # places of which it is known whether training uses them
        self.training_code: set[CodeType] = set()
        self.rates: list[tuple[float, ...]] = []
        self._mine: dict[CodeType, bool] = {}
        self.busy = False
        self.has_optimizer = False
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
        run, made = self, Optimizer.__init__
        register_module_forward_pre_hook(self._before_module)
        register_optimizer_step_pre_hook(self._before_update)

        def train(module: nn.Module, mode: bool = True) -> nn.Module:
            run._on_mode_change(module, mode)
            return run.modes(module, mode)

        def save(*args: Any, **settings: Any) -> Any:
            with run._saving():
                return run.saves(*args, **settings)

        def make(optimizer: Optimizer, *args: Any, **settings: Any) -> None:
            run.has_optimizer = True
            made(optimizer, *args, **settings)

        for kind in _WITHOUT_GRADIENTS:
            self._follow_blocks(kind)
        Optimizer.__init__ = make  # type: ignore[method-assign]
        nn.Module.train = train  # type: ignore[method-assign]
        torch.save = save
        sys.setprofile(self._profile)

    def _follow_blocks(self, kind: Any) -> None:
        """Begin and end a stretch where the script's own code enters and leaves such a block."""
        run, enter, leave = self, kind.__enter__, kind.__exit__

        def enter_block(block: Any) -> Any:
            run._on_block(block, sys._getframe(1))
            return enter(block)

        def leave_block(block: Any, *error: Any) -> Any:
            left = leave(block, *error)
            run._after_block(block)
            return left

        kind.__enter__, kind.__exit__ = enter_block, leave_block

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Profile function: follow calls and returns of the functions in the script's folder."""
        if self.busy or event not in ("call", "return"):
            return
        code = frame.f_code
        if event == "return":
            if self.under_way and self.under_way[-1][0] is code:
                stretch = self.under_way.pop()[1]
                if self.evaluating is not None and self.evaluating.frame is frame:
                    self._end_evaluation(judge_modes=stretch is None)
                if stretch is not None and not stretch.trains:
                    self._end(stretch)
                    for place in stretch.inner if stretch.place in self.found else ():
                        self.found.pop(place, None)
        elif code not in self.training_code and self._is_mine(code):
            self.under_way.append((code, self._begin(_place_of(code), frame)))

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

    def _open_stretches(self) -> Iterator[_Stretch]:
        yield from (stretch for _, stretch in self.under_way if stretch is not None)
        yield from self.blocks.values()
        if self.evaluating is not None:
            yield self.evaluating

    def _before_module(self, module: nn.Module, *given: Any) -> None:
        """Called before each module: with gradients it trains, without them it observes."""
        if self.busy or not any(True for _ in module.parameters()):
            return
        if trains(module):
            self._trains()
            return
        for stretch in self._open_stretches():
            stretch.observes = True
            stretch.without_gradients |= not torch.is_grad_enabled()

    def _trains(self) -> None:
        self.training_code |= {running for running, _ in self.under_way}
        for stretch in self._open_stretches():
            stretch.trains |= stretch is not self.evaluating or torch.is_grad_enabled()

    def _before_update(self, *given: Any) -> None:
        """Judge the modes that an evaluation left, if training goes on in them."""
        self.rates.append(
            tuple(
                float(g["lr"]) for o in self.clock.optimizers for g in o.param_groups if "lr" in g
            )
        )
        stretch = self.evaluating
        if self.busy or self.is_arm or stretch is None or not stretch.without_gradients:
            return
        self.evaluating = None
        self._compare_modes(stretch)

    def _on_mode_change(self, module: nn.Module, mode: bool) -> None:
        """Begin an evaluation at `eval()` of a trained module, and end it at `train()`."""
        if self.busy or self.is_arm or not self.has_optimizer:
            return
        if mode and self.evaluating is not None and self._is_trained(module):
            self._end_evaluation(judge_modes=False)
        elif not mode and self.evaluating is None and self._is_trained(module):
            frame = self._script_frame()
            place = f"the evaluation that begins at {self._line_of(frame)}"
            self.evaluating = self._begin(place, frame)

    def _is_trained(self, module: nn.Module) -> bool:
        baseline = self.baseline or self._first_look()
        return baseline is not None and any(module is m for m in baseline.trained.values())

    def _end_evaluation(self, *, judge_modes: bool) -> None:
        """Compare the states; `judge_modes`: keep it open, until training goes on, to judge the modes."""
        stretch = self.evaluating
        assert stretch is not None
        self.evaluating = stretch if judge_modes else None
        if not stretch.trains and not stretch.compared:
            stretch.compared = True
            self._end(stretch, but_modes=True)

    def _on_block(self, block: Any, frame: FrameType) -> None:
        if self.busy or self.is_arm or torch.is_grad_enabled() is False:
            return
        if not frame.f_code.co_filename.startswith(str(self.file.resolve().parent)):
            return
        if self.clock.step and any(self._covers(*running) for running in self.under_way):
            return
        place = f"the stretch without gradients that begins at {self._line_of(frame)}"
        stretch = self._begin(place, frame)
        if stretch is not None:
            self.blocks[id(block)] = stretch
            outer = self.under_way[-1][1] if self.under_way else None
            if outer is not None:
                outer.inner.append(place)

    def _covers(self, code: CodeType, stretch: _Stretch | None) -> bool:
        """Test whether a running function observes as a whole, so that its blocks need not be compared."""
        if stretch is not None:
            return not stretch.trains
        return code not in self.training_code and _place_of(code) in self.found

    def _after_block(self, block: Any) -> None:
        stretch = self.blocks.pop(id(block), None)
        evaluating = self.evaluating
        if self.busy or self.is_arm:
            return
        if stretch is not None and not stretch.trains:
            self._end(stretch)
        if evaluating is not None and evaluating.without_gradients and torch.is_grad_enabled():
            self._end_evaluation(judge_modes=True)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        stretch = None if self.busy else self._begin(f"torch.save at {self._script_line()}", None)
        try:
            yield
        finally:
            if stretch is not None and not self.is_arm:
                for outer in self._open_stretches():
                    outer.observes |= outer is not self.evaluating
                stretch.observes = True
                self._end(stretch)

    def _script_frame(self) -> FrameType | None:
        """Return the innermost running frame of the script's own code."""
        frame: FrameType | None = sys._getframe()
        folder = str(self.file.resolve().parent)
        while frame is not None and not frame.f_code.co_filename.startswith(folder):
            frame = frame.f_back
        return frame

    def _script_line(self) -> str:
        return self._line_of(self._script_frame())

    def _line_of(self, frame: FrameType | None) -> str:
        """Return the running line of a frame, as file:line."""
        if frame is None:
            return f"an unknown line of {self.file.name}"
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

    # ------------------------------------------------------------------ comparing

    def _begin(self, place: str, frame: FrameType | None) -> _Stretch | None:
        """Look at the run where a stretch begins; None if it was seen often enough or nothing can train."""
        known = self.found.get(place)
        if self.is_arm or not self.has_optimizer or self.captured.get(place, 0) >= _CALLS_CAPTURED:
            return None
        if known is not None and known.calls >= _CALLS_COMPARED:
            return None
        baseline = self.baseline or self._first_look()
        if baseline is None:
            return None
        self.captured[place] = self.captured.get(place, 0) + 1
        if known is not None and known.alters and place not in self.judged:
            self.found[place] = replace(known, feeds=self._feeds(place))
            if self.is_arm:
                return None
        return _Stretch(place, baseline, self._look(baseline), frame)

    def _first_look(self) -> Baseline | None:
        """Return the run as it is before its first update; None if no module is to be trained yet."""
        self.busy = True
        try:
            baseline = Baseline(self.file, self.clock, self.key_seed)
        finally:
            self.busy = False
        return baseline if baseline.trained else None

    def _look(self, baseline: Baseline) -> Look:
        self.busy = True
        try:
            live = Live(self.file, self.clock, self.key_seed, baseline, {})
            return look_at(live, capture_sources(live))
        finally:
            self.busy = False

    def _end(self, stretch: _Stretch, *, but_modes: bool = False) -> None:
        """Compare the run before an observer and now; arms show whether a difference matters."""
        if not stretch.observes or self.is_arm:
            return
        changes = list(changes_between(stretch.before, self._look(stretch.baseline)))
        if but_modes and not stretch.without_gradients:  # it may reach as far as the next epoch
            changes = [change for change in changes if change.name != "scheduler"]
        self._judge(stretch.place, changes, [] if but_modes else changed_modes(stretch.before))

    def _compare_modes(self, stretch: _Stretch) -> None:
        self._judge(stretch.place, [], changed_modes(stretch.before), is_call=not stretch.compared)

    def _judge(
        self,
        place: str,
        changes: list[Change],
        modes: list[tuple[nn.Module, bool]],
        *,
        is_call: bool = True,
    ) -> None:
        """Add what is new among the changes to the observer of this place, with what a twin shows of it."""
        known = self.found.get(place, Observer(place, self.clock.step, 0))
        seen = {trace.source for trace in known.traces}
        new = [change for change in changes if change.name not in seen]
        traces: list[Trace] = []
        modes = [] if MODES in seen else modes
        if new or modes:
            traces = self._traces(new, modes)
            if self.is_arm:
                return
        self.found[place] = replace(
            known, calls=known.calls + is_call, traces=(*known.traces, *traces)
        )

    def _traces(self, changes: list[Change], modes: list[tuple[nn.Module, bool]]) -> list[Trace]:
        """Return a trace for each change. In an arm, return early."""
        why = why_not_fork()
        if why is not None:
            named = [Trace(c.name, False, None, c.names, why) for c in changes]
            return [*named, *([Trace(MODES, False, None, (), why)] if modes else [])]
        as_is = self._fork_twin(lambda: None)
        if as_is is None:
            return []
        traces: list[Trace] = []
        for change in changes:
            traces += self._traces_of(change, as_is)
            if self.is_arm:
                return traces
        if modes:
            other = self._fork_twin(lambda: put_modes_back(modes))
            if other is not None:
                traces.append(self._trace(MODES, (), as_is, other))
        return traces

    def _traces_of(self, change: Change, as_is: Continuation) -> list[Trace]:
        """Return the trace of a change; of several variables, of those alone that alter the run."""
        other = self._fork_twin(change.put_back)
        if other is None:
            return []
        whole = self._trace(change.name, change.names, as_is, other)
        parts = change.parts()
        if not whole.alters or not 1 < len(parts) <= _MOST_PARTS:
            return [whole]
        guilty = []
        for part in parts:
            other = self._fork_twin(part.put_back)
            if other is None:
                return []
            if self._trace(part.name, part.names, as_is, other).alters:
                guilty += part.names
        return [replace(whole, leaves=tuple(guilty) or whole.leaves)]

    def _trace(
        self, name: str, leaves: tuple[str, ...], as_is: Continuation, other: Continuation
    ) -> Trace:
        but = "streams" if name.startswith("streams/") else ""
        index = first_differing_index(as_is.losses, other.losses)
        first = None if index is None else self.clock.step + index
        return Trace(name, not same_continuation(as_is, other, but=but), first, leaves)

    def _feeds(self, place: str) -> bool:
        """Test whether training goes on from what the stretch that begins here computes.

        In one of two arms the outputs of its calls are disturbed. A loss that differs while all learning
        rates are equal was computed from them. In an arm the return value means nothing.
        """
        self.judged.add(place)
        if why_not_fork() is not None:
            return False
        as_is = self._fork_twin(lambda: None)
        if as_is is None:
            return False
        other = self._fork_twin(disturb_outputs)
        if other is None or other.ended != as_is.ended:
            return False
        index = first_differing_index(as_is.losses, other.losses)
        assert isinstance(as_is, _RatedContinuation)
        assert isinstance(other, _RatedContinuation)
        return index is not None and as_is.rates[: index + 1] == other.rates[: index + 1]

    def _fork_twin(self, change: Callable[[], None]) -> Continuation | None:
        """Fork an arm that makes `change`. Returns its continuation; None in the arm."""
        self.since = self.clock.step
        continuation = self.fork_continuation(self.since + self.horizon)
        if continuation is None:
            sys.setprofile(None)
            self.rates = []
            change()
        return continuation

    # ------------------------------------------------------------------ ending

    def at_boundary(self, step: int) -> None:
        if self.is_arm:
            self.busy = True
            self._reply_arm(continuation_of(self, self.find_live(), None, self.since))
        self._reply(Ending())

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            self._reply_arm(ended_continuation(self, str(ending), self.since))
        self._reply(ending)

    def _reply_arm(self, continuation: Continuation) -> NoReturn:
        rated = _RatedContinuation(**vars(continuation), rates=tuple(self.rates))
        self.parent.reply_and_exit(rated)

    def _reply(self, ending: Ending) -> NoReturn:
        sys.setprofile(None)
        if self.clock.optimizers:
            self.check_optimizer()
        if self.clock.step == 0 or ending.raised:
            self.parent.reply_and_exit(self.ended_early(ending, f"step {self.until}"))
        self.parent.reply_and_exit(list(self.found.values()))


def _place_of(code: CodeType) -> str:
    return f"{code.co_name}() at {Path(code.co_filename).name}:{code.co_firstlineno}"
