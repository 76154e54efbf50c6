"""Watched process: run a script in a child process of its own, with its optimizer steps counted.

    WatchedScript     runs a script under a step clock
    WatchedProcess    does so in a forked child: output to files, an overlay over the working directory,
                      loader workers emulated, and one reply to the parent

Subclasses say what happens at the boundaries and when the script has ended.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from bygones.attach.discovery import own_frames
from bygones.attach.isolation.fork import (
    Child,
    ChildDied,
    Parent,
    fork,
    read_reply,
    why_not_fork,
)
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter
from bygones.attach.isolation.overlay import Overlay, detach_overlay, guarding_native_writes
from bygones.attach.isolation.progress_bars import without_redrawing
from bygones.attach.isolation.script import Script, run_script
from bygones.attach.job.rank import Rank
from bygones.attach.live_run import Baseline, KnownMemory, Live
from bygones.attach.sources.liveness import carried_names
from bygones.attach.step_clock import Clock, ClockCallbacks, own_errors
from bygones.attach.worker_emulation import emulating
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.text import describe_error, format_count, show
from bygones.training.generators import generator_state, global_generators


@dataclass(frozen=True)
class Ending:
    """How a script ended. `error`: what it raised, `SystemExit` included; None at the end of its code."""

    error: BaseException | None = None

    @property
    def raised(self) -> bool:
        """Whether an exception other than `SystemExit` ended the script."""
        return self.error is not None and not isinstance(self.error, SystemExit)

    @property
    def failed(self) -> bool:
        """Whether Python would exit with a code other than 0."""
        return self.raised or getattr(self.error, "code", None) not in (None, 0)

    def __str__(self) -> str:
        match self.error:
            case None:
                return "came to its end"
            case SystemExit(code=code):
                return f"called sys.exit({show(code)})"
            case error:
                return describe_error(error)


class WatchedScript(ClockCallbacks):
    """A script that runs in this process under a step clock. `clock`: settings of `Clock`."""

    def __init__(self, script: Script, home: Path, seed: int, **clock: Any) -> None:
        self.script, self.home, self.seed = script, home, seed
        self.key_seed = (
            seed  # what the keys of the script's random streams and order are derived from
        )
        self.file = home / script.path
        self.clock = Clock(script.clock, self, **clock)
        self.rank: Rank | None = None  # of a job of several processes
        self.baseline: Baseline | None = None

    def execute(self) -> Ending:
        """Run the script to its end. Raises `BygonesError` for what bygones refuses."""
        try:
            with self.watching():
                number = 0 if self.rank is None else self.rank.number
                run_script(self.script, self.seed, self.home, number)
        except BygonesError:
            raise
        except SystemExit as leaving:
            return Ending(SystemExit(leaving.code))  # the script's own keeps its frames alive
        except BaseException as error:
            return Ending(error)
        return Ending()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Install the hooks that are active while the script runs."""
        with self.clock.listening():
            yield

    def before_first(self) -> None:
        """Keep what the script holds before its first update."""
        self.baseline = self.baseline or self.find_baseline()
        self.baseline.carried = carried_names(own_frames(self.file))

    def find_baseline(self) -> Baseline:
        """Return what the script holds now, which is what "new" will mean."""
        return Baseline(self.file, self.clock, self.key_seed)

    def find_live(
        self,
        known: KnownMemory | None = None,
        shown: Mapping[int, Sequence[Any]] = MappingProxyType({}),
    ) -> Live:
        """Find the sources of memory that the script has now; see `Live`."""
        assert self.baseline is not None
        return Live(self.file, self.clock, self.key_seed, self.baseline, shown, known)


class WatchedProcess(WatchedScript, ABC):
    """A forked child that runs a script from its first line and sends one reply to its parent.

    `folder`: where its output and its overlay lie. `allowed`: folders that it may write to directly.
    `emulates`: whether the workers of data loaders are emulated in this process.
    """

    advice = "Choose an earlier step"  # if the script ends too early

    def __init__(
        self,
        script: Script,
        home: Path,
        seed: int,
        folder: Path,
        parent: Parent,
        *,
        allowed: Sequence[Path] = (),
        emulates: bool = True,
        **clock: Any,
    ) -> None:
        super().__init__(script, home, seed, **clock)
        self.folder, self.parent, self.emulates = folder, parent, emulates
        self.allowed = tuple(allowed) or (folder,)
        self.is_arm = False  # whether it was forked off another watched process

    # ------------------------------------------------------------------ running

    def run(self, *, empty: bool = True) -> NoReturn:
        """Run the script, and exit with a reply. `empty`: delete what earlier runs left in the folder.

        The ranks of a job share one overlay: what one of them writes is there for all.
        """
        if empty:
            shutil.rmtree(self.folder, ignore_errors=True)
        redirect_output(self.folder if self.rank is None else self.rank.output)
        Overlay(self.home, self.folder / "files", allowed=self.allowed).enter()
        try:
            if self.rank is not None:
                self.rank.begin()
            ending = self.execute()
            if self.rank is not None and ending.failed:
                self.rank.note_failure(ending.error)
            with own_errors:
                self.finish(ending)
        except BygonesError as error:
            self.refuse(error)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Install the hooks that are active while the script runs."""
        workers = emulating() if self.emulates else nullcontext()
        steps = nullcontext() if self.rank is None else self.rank.counting_steps()
        with super().watching(), guarding_native_writes(), without_redrawing(), workers, steps:
            yield

    def refuse(self, error: BygonesError) -> NoReturn:
        """Reply that the script cannot be studied."""
        self.parent.reply_and_exit(error)

    @abstractmethod
    def finish(self, ending: Ending) -> NoReturn:
        """Reply after the script has ended."""
        raise NotImplementedError

    def check_optimizer(self) -> None:
        """Reply and exit if steps are counted by an optimizer that does not close a round."""
        slowest = self.clock.slowest_optimizer()
        if slowest != self.script.clock:
            self.parent.reply_and_exit(CountBy(slowest))

    def ended_early(self, ending: Ending, where: str) -> ScriptError:
        """Return the error of a script that ended before `where`, the step that is needed."""
        path, step = self.script.path, self.clock.step
        if not self.clock.optimizers:
            return ScriptError(
                f"{path} {ending} without a step of any torch optimizer in this process, so there is no "
                f"boundary to fork at. Expected a script that calls optimizer.step() itself; training in a "
                f"process that it starts cannot be followed."
            )
        steps = format_count(step, "optimizer step")
        return ScriptError(
            f"{path} {ending} after {steps}, before {where}. {self.advice}, or let the script "
            f"train for longer."
        )

    # ------------------------------------------------------------------ forking arms

    def check_fork(self) -> None:
        """Reply `CannotFork` and exit if something in this process keeps it from being forked."""
        why = why_not_fork()
        if why is not None:
            self.refuse(CannotFork(str(self.script), why))

    def fork_arm(self, folder: Path) -> Child | None:
        """Fork this process. Returns the child; in the child, which goes on as an arm, None.

        The arm has its own overlay and output in `folder`, and replies to this process.
        """
        side = fork()
        if isinstance(side, Child):
            return side
        self.parent, self.is_arm = side, True
        self.clock.follow_this_process()
        shutil.rmtree(folder, ignore_errors=True)
        detach_overlay(folder / "files", also={self.folder: folder})
        self.folder = folder
        return None

    def wait_for_arm(self, arm: Child) -> Any:
        """Return an arm's reply, or None if it was killed. An error that it replied refuses this run too."""
        reply = arm.wait()
        if isinstance(reply, BygonesError):
            self.refuse(reply)
        return reply


# ------------------------------------------------------------------ in the parent


@dataclass(frozen=True)
class CountBy:
    """Reply: the steps have to be counted by this optimizer, which closes a round."""

    optimizer: int


class CannotFork(ScriptError):
    """A process that cannot be forked; `why` in words. Its arms can be run from the start instead."""

    def __init__(self, script: str, why: str) -> None:
        super().__init__(f"{script} cannot be forked, since {why}.")
        self.script, self.why = script, why

    def __reduce__(self) -> Any:
        return CannotFork, (self.script, self.why)


def run_in_child(
    make: Callable[[Parent], WatchedProcess],
    *,
    empty: bool = True,
    killed: str = "the script was killed (out of memory?).",
    interpreter: FreshInterpreter | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    meanwhile: Callable[[], object] = lambda: None,
) -> Any:
    """Run a watched process in a forked child and return its reply. `meanwhile()` is called while it runs.

    With another `interpreter` it is forked there. With other variables in the `environment` it is a new
    Python, which is not forked: they may start threads.
    Raises the `BygonesError` that it replied, and `ScriptError` with the sentence `killed` if it died.
    """
    if environment:
        with FreshInterpreter(environment, forks=False) as interpreter:
            reply = _run_elsewhere(make, interpreter, empty, meanwhile)
    elif interpreter is not None:
        reply = _run_elsewhere(make, interpreter, empty, meanwhile)
    else:
        reply = _run_here(make, empty, meanwhile)
    if reply is None:
        raise ScriptError(killed) from ChildDied()
    if isinstance(reply, BygonesError):
        raise reply
    return reply


def _run_here(
    make: Callable[[Parent], WatchedProcess], empty: bool, meanwhile: Callable[[], object]
) -> Any:
    side = fork()
    if isinstance(side, Parent):
        make(side).run(empty=empty)
    try:
        meanwhile()
    except BaseException:
        side.stop()
        raise
    return side.wait()


def _run_elsewhere(
    make: Callable[[Parent], WatchedProcess],
    interpreter: FreshInterpreter,
    empty: bool,
    meanwhile: Callable[[], object],
) -> Any:
    """Run a watched process in another Python, with the states that the global generators have here."""
    reader, writer = os.pipe()
    states = {name: generator_state(g) for name, g in global_generators().items()}
    interpreter.run(make(Parent(writer)), writer, empty=empty, states=states)
    os.close(writer)
    try:
        meanwhile()
    except BaseException:  # nobody waits for the reply any more
        os.close(reader)
        raise
    return read_reply(reader)


def run_by_slowest(
    make: Callable[[Script, Parent], WatchedProcess], script: Script, **how: Any
) -> tuple[Script, Any]:
    """Run a watched process as `run_in_child(…, **how)` does, counting by the optimizer that closes a round.

    Which one that is shows once the optimizers have taken turns, so a second run may be needed. Returns
    the script with that optimizer, and the reply.
    """
    reply = run_in_child(lambda parent: make(script, parent), **how)
    if isinstance(reply, CountBy):
        script = replace(script, clock=reply.optimizer)
        how.pop("meanwhile", None)  # it was called
        reply = run_in_child(lambda parent: make(script, parent), **how)
    return script, reply


def redirect_output(folder: Path) -> None:
    """Redirect standard output and error to files in `folder`, and standard input to nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
