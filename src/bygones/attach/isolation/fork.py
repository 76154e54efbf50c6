"""Forking: run a child process and read its reply. A parent waits for its children; none outlives it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import random
import select
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bygones.attach.isolation.overlay import flush_all

# A script may replace or remove them in its own process, which is this one.
_FORK, _EXIT, _PIPE, _GETPID = os.fork, os._exit, os.pipe, os.getpid


@dataclass(frozen=True)
class Child:
    """A forked child, and the pipe from which its reply is read."""

    pid: int
    pipe: int

    def wait(self) -> Any:
        """Wait until the child has exited. Returns its reply; None if it died without one."""
        data = _read_all(self.pipe)
        os.waitpid(self.pid, 0)
        return _unpack(data)

    def stop(self) -> None:
        """Kill the child, and thereby its own children."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.pipe)
        os.waitpid(self.pid, 0)


@dataclass(frozen=True)
class Parent:
    """The parent of this process, and the pipe to which the reply is written."""

    pipe: int

    def reply_and_exit(self, message: Any, *, flush: bool = True) -> NoReturn:
        """Send a reply and exit at once, without exit handlers: the parent runs them too."""
        if flush:
            flush_all()
        self.send_and_exit(pickle.dumps(message))

    def send_and_exit(self, data: bytes) -> NoReturn:
        """Send the bytes of a reply and exit."""
        self.write(data)
        self.leave()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.pipe, rest) :]

    def leave(self) -> NoReturn:
        """Exit at once."""
        _EXIT(0)


def read_reply(pipe: int) -> Any:
    """Return the reply that a process writes to a pipe; None if it died without one."""
    return _unpack(_read_all(pipe))


def _read_all(pipe: int) -> bytes:
    data = bytearray()
    while chunk := os.read(pipe, 1 << 20):
        data += chunk
    os.close(pipe)
    return bytes(data)


def _unpack(data: bytes) -> Any:
    # The bytes were written by our own child; pickles are never read from a file.
    return pickle.loads(data) if data else None


def fork(*, flush: bool = True) -> Child | Parent:
    """Fork this process. Returns the child in the parent, and the parent in the child.

    Buffered output is flushed first, or both processes would write it; `flush=False` skips this for a
    child that writes nothing.
    """
    if flush:
        flush_all()
    reader, writer = _PIPE()
    above, drawn = _GETPID(), random.getstate()
    pid = _FORK()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    os.close(reader)
    random.setstate(drawn)  # Python reseeds it in every child
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    die_with_parent(above)
    return Parent(writer)


def run_in_fork(work: Callable[[], Any]) -> Any:
    """Return `work()`, computed in a forked child, so that it changes nothing here. Raises what it raises."""
    side = fork(flush=False)
    if isinstance(side, Parent):
        side.reply_and_exit(_tried(work), flush=False)
    reply = side.wait()
    if reply is None:
        raise ChildDied("it was killed (out of memory?)")
    result, error = reply
    if error is not None:
        raise error
    return result


def spawn_fork(work: Callable[[], Any]) -> Child:
    """Start `work()` in a forked child, whose reply is (result, error)."""
    side = fork()
    if isinstance(side, Child):
        return side
    side.reply_and_exit(_tried(work))


def _tried(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        try:
            pickle.dumps(error)
        except Exception:  # replace an exception that cannot be pickled
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def as_they_end(children: Mapping[int, Any]) -> Iterator[int]:
    """Yield the pipes of children, by pipe, as they reply or exit."""
    while children:
        ready, _, _ = select.select(list(children), [], [])
        yield from ready


class ChildDied(Exception):
    """A child died without a reply: killed, or out of memory."""


def why_not_fork() -> str | None:
    """Return what keeps this process from being forked, in words; None if it can be."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA is in use, and a fork cannot share it"
    alive = multiprocessing.active_children()
    if alive:
        return f"it keeps {len(alive)} process{'es' if len(alive) > 1 else ''} of its own at work"
    names = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if names:
        return f"it runs threads ({', '.join(names[:3])}), which a fork would lose"
    tasks = Path("/proc/self/task")
    count = len(list(tasks.iterdir())) if tasks.is_dir() else 1
    if count > 1:
        return f"a library in it runs {count - 1} thread{'s' if count > 2 else ''} of its own"
    return None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder. `tempfile`'s own would be deleted by the first child that exits."""
    folder = tempfile.mkdtemp(prefix="bygones-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            _EXIT(1)
