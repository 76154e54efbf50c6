"""Run a job: start its ranks, collect their replies, and end all of them together.

No rank outlives the others, and none outlives this process. A rank that fails is named, with its own
traceback; so are ranks that wait for each other in vain, each with the place in the script where it waits.
"""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from bygones.attach.isolation.fork import Child, ChildDied, Parent, fork
from bygones.attach.job.rank import REPLY_SIZE, STACK_SIGNAL, ParentOfRank, Rank, Roster
from bygones.attach.job.rendezvous import Rendezvous
from bygones.attach.job.stacks import describe_stack
from bygones.core.errors import BygonesError, ScriptError, Unexpected
from bygones.core.text import format_count

_LOOK = 0.1  # seconds between two looks at ranks that have not replied
_GRACE = 5.0  # seconds without work that ranks get when another cannot go on
_BUSY = 0.05  # part of a core that a rank at work takes at least
_FOR_STACKS = 3.0  # seconds to wait for the stacks of ranks
_FOR_THE_DEAD = 1.0  # seconds in which a rank may turn out dead, once another one has failed
_MOST_LINES = 12  # of a traceback


class Process(Protocol):
    """A process that takes the place of a rank."""

    rank: Rank | None

    def run(self, *, empty: bool = True) -> Any: ...


@dataclass(frozen=True)
class Patience:
    """When ranks count as hanging: after so many seconds without a step of any rank.

    `idle`: and without work of any that is still to reply. `busy`: although one is at work.
    """

    idle: float = 60.0
    busy: float = 3600.0


def run_job(
    make: Callable[[int, Parent], Process],
    size: int,
    folder: Path,
    *,
    empty: bool = True,
    name: str = "the script",
    patience: Patience | None = None,
) -> list[Any]:
    """Run the ranks of a job, each in a forked child, and return their replies by rank.

    `make`: makes the process of a rank. `folder`: of the job; it is emptied first unless `empty` is False.
    A rank that waited for one that could not go on is ended; its reply is None.
    Raises the `BygonesError` of the first rank that replied one, named; `ScriptError` if a rank died, or if
    the ranks hang.
    """
    if empty:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    roster = Roster.create(folder / "roster", size)
    rendezvous = Rendezvous.open()
    job = Job(name, size, folder, roster, patience or Patience())
    try:
        for number in range(size):
            rank = Rank(number, size, rendezvous.port, folder)
            rank.output.mkdir(exist_ok=True)
            side = fork()
            if isinstance(side, Parent):
                rendezvous.listener.close()
                _become(rank, make, side)
            job.children[number] = side
        job.store = rendezvous.serve()
        return job.collect()
    finally:
        job.end()


def _become(rank: Rank, make: Callable[[int, Parent], Process], side: Parent) -> NoReturn:
    """Run the process of a rank. It never returns to what the parent does next."""
    try:
        process = make(rank.number, ParentOfRank(side.pipe))
        process.rank = rank
        process.run(empty=False)
    finally:
        side.leave()


@dataclass
class Job:
    """The running processes of a job. `replies`: what each rank has replied so far."""

    name: str
    size: int
    folder: Path
    roster: Roster
    patience: Patience
    children: dict[int, Child] = field(default_factory=dict)
    store: Child | None = None
    replies: dict[int, Any] = field(default_factory=dict)

    def collect(self) -> list[Any]:
        """Return the replies of all ranks, once all have replied."""
        watch = _Progress(self.roster)
        while waiting := self._waiting():
            ready = self._read_replies(waiting, _LOOK)
            if any(isinstance(self.replies[number], BygonesError) for number in ready):
                self._await_the_dead()
            self._check_replies()
            if not ready:
                watch.look({n: self._pid(n) for n in self._waiting()})
                if self.roster.has_failed and watch.idle > min(_GRACE, self.patience.idle):
                    break
                if watch.idle > self.patience.idle or watch.still > self.patience.busy:
                    raise ScriptError(self._describe_hang(watch))
        return [self.replies.get(number) for number in range(self.size)]

    def end(self) -> None:
        """End every process of the job at once, with those that the script has started."""
        for number, child in self.children.items():
            _kill_group(self._pid(number))
            with suppress(OSError):
                os.close(child.pipe)
        for child in self.children.values():
            os.waitpid(child.pid, 0)
        if self.store is not None:
            self.store.stop()

    def _await_the_dead(self) -> None:
        """Wait a moment for a rank that died: where it did, others fail since they have lost it."""
        until = time.monotonic() + _FOR_THE_DEAD
        while (left := until - time.monotonic()) > 0 and None not in self.replies.values():
            waiting = self._waiting()
            if not waiting:
                break
            self._read_replies(waiting, left)

    def _read_replies(self, waiting: Mapping[int, Child], seconds: float) -> list[int]:
        """Wait so long for replies, read those that have come, and return the numbers of their ranks."""
        pipes = {child.pipe: number for number, child in waiting.items()}
        ready, _, _ = select.select(list(pipes), [], [], seconds)
        numbers = sorted(pipes[pipe] for pipe in ready)
        for number in numbers:
            self.replies[number] = _read(waiting[number].pipe)
        return numbers

    def _waiting(self) -> dict[int, Child]:
        return {n: child for n, child in self.children.items() if n not in self.replies}

    def _pid(self, number: int) -> int:
        return self.children[number].pid

    def _check_replies(self) -> None:
        """Raise if a rank died or replied an error: of several one that died, else the first that failed."""
        for number, reply in sorted(self.replies.items()):
            if reply is None:
                raise ScriptError(
                    f"{self._named(number)} was killed (out of memory?), after "
                    f"{format_count(self.roster.steps()[number], 'step')}."
                ) from ChildDied()
        for number in [*self.roster.failures(), *sorted(self.replies)]:
            reply = self.replies.get(number)
            if isinstance(reply, Unexpected):
                raise reply
            if isinstance(reply, BygonesError):
                place = self._traceback(number)
                raise ScriptError(f"{self._named(number)}: {reply}{place}") from reply

    def _named(self, number: int) -> str:
        return f"rank {number} of {self.size}"

    def _traceback(self, number: int) -> str:
        """Return the traceback that a rank has printed last, on lines of its own; empty if there is none."""
        file = Rank(number, self.size, 0, self.folder).output / "stderr.txt"
        with suppress(OSError):
            lines = file.read_text(errors="replace").splitlines()
            begin = [i for i, line in enumerate(lines) if line.startswith("Traceback (")]
            if begin:
                return "\n" + "\n".join(lines[begin[-1] :][-_MOST_LINES:])
        return ""

    def _describe_hang(self, watch: _Progress) -> str:
        """Say how far each rank is, and where it waits."""
        steps, waiting = self.roster.steps(), self._waiting()
        files = {n: Rank(n, self.size, 0, self.folder).stack_file for n in waiting}
        for number in waiting:
            with suppress(ProcessLookupError):
                os.kill(self._pid(number), STACK_SIGNAL)
        until = time.monotonic() + _FOR_STACKS
        while time.monotonic() < until and not all(map(_is_written, files.values())):
            time.sleep(_LOOK)
        said = []
        for number in range(self.size):
            taken = format_count(steps[number], "step")
            where = f"is in {describe_stack(files[number])}" if number in files else "is done"
            said.append(f"rank {number} has taken {taken} and {where}")
        seconds = max(watch.idle, watch.still)
        return (
            f"the ranks of {self.name} hang: none has taken a step for {seconds:.0f} seconds. "
            f"{'; '.join(said)}. Each rank has to take the same steps and call the same collectives. If this "
            f"is no hang, give it longer by --patience SECONDS."
        )


class _Progress:
    """How long no rank has taken a step (`still`), and none has been at work either (`idle`), in seconds."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._steps, self._seconds = roster.steps(), dict[int, float]()
        self._stepped = self._worked = self._looked = time.monotonic()
        self.still = self.idle = 0.0

    def look(self, pids: Mapping[int, int]) -> None:
        """Look at the ranks that are still to reply."""
        now = time.monotonic()
        steps, seconds = self._roster.steps(), {n: _cpu_seconds(pid) for n, pid in pids.items()}
        used = sum(seconds[n] - self._seconds.get(n, 0.0) for n in seconds)
        if steps != self._steps:
            self._stepped = now
        if steps != self._steps or used > _BUSY * (now - self._looked):
            self._worked = now
        self._steps, self._seconds, self._looked = steps, seconds, now
        self.still, self.idle = now - self._stepped, now - self._worked


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_written(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _read(pipe: int) -> Any:
    """Return a rank's reply; None if it died without one. A child of the script's may hold the pipe open."""
    head = _read_exactly(pipe, REPLY_SIZE.size)
    body = None if head is None else _read_exactly(pipe, REPLY_SIZE.unpack(head)[0])
    # The bytes were written by our own child; pickles are never read from a file.
    return None if body is None else pickle.loads(body)


def _read_exactly(pipe: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(pipe, min(size - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _kill_group(pid: int) -> None:
    """Kill a rank, and all that it has started in its group."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
