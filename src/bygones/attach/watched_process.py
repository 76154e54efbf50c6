"""A watched process: one that runs a script alone, with its steps counted."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bygones.attach.isolation.fork import ChildDied, Parent, fork
from bygones.attach.isolation.overlay import Overlay, detach_overlay, guarding_native_writes
from bygones.attach.isolation.script import Script, run_script
from bygones.attach.live_run import Baseline, KnownMemory, Live
from bygones.attach.step_clock import Clock
from bygones.attach.worker_emulation import emulating
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.text import format_count


class WatchedProcess(ABC):
    """A process that runs a script from its beginning, watched; what it found it says to its parent."""

    def __init__(self, script: Script, home: Path, seed: int, folder: Path, parent: Parent) -> None:
        self.script, self.home, self.seed, self.folder = script, home, seed, folder
        self.parent = parent
        self.clock = Clock(script.clock)
        self.clock.delivered.keeping = True
        self.clock.ends_epochs = True  # what an epoch's end saves belongs to the run so far
        self.clock.before_first = self.before_first
        self.clock.at_boundary = self.at_boundary
        self.first: Baseline | None = None
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
            self.parent.reply_and_exit(error)
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
        self.first = self.first or Baseline(self.path, self.clock, self.seed)

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
        detach_overlay(folder / "files", also={self.folder: folder})

    def live(self, expected: KnownMemory | None) -> Live:
        assert self.first is not None
        return Live(self.path, self.clock, self.seed, self.first, {}, expected)


def in_child(make: Callable[[Parent], WatchedProcess], *, anew: bool = True) -> Any:
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


class CannotFork(ScriptError):
    """This process cannot be forked; `why` in words. Replaying is the way then."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def over_too_soon(
    script: Script,
    how: str,
    step: int,
    where: str,
    clock: Clock,
    advice: str = "Choose an earlier --fork-at or shorter --horizons",
) -> ScriptError:
    """The sentence for a script that ended before it could be studied."""
    if not clock.seen:
        return ScriptError(
            f"{script.path} {how} without a step of any torch optimizer in this process, so there is no "
            f"boundary to fork at. Expected a script that calls optimizer.step() itself; training in a "
            f"process that it starts cannot be followed."
        )
    steps = format_count(step, "optimizer step")
    return ScriptError(
        f"{script.path} {how} after {steps}, before {where}. {advice}, or let the script "
        f"train for longer."
    )


def redirect_output(folder: Path) -> None:
    """Lets what is printed from now on go to files of this process's own; there is nothing to read."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
