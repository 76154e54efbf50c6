"""Forking, and what parent and child say. Every child is waited for, and none outlives its parent."""

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


@dataclass(frozen=True)
class Child:
    """A process that was forked off, and the pipe on which it says how it ended."""

    pid: int
    pipe: int

    def wait(self) -> Any:
        """What the child said, once it is gone; None if it died without a word."""
        said = b""
        while chunk := os.read(self.pipe, 1 << 20):
            said += chunk
        os.close(self.pipe)
        os.waitpid(self.pid, 0)
        return pickle.loads(said) if said else None  # from our own child, never from a file

    def stop(self) -> None:
        """Ends the child, and so all of its own children."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.pipe)
        os.waitpid(self.pid, 0)


@dataclass(frozen=True)
class Parent:
    """The way back to the process that this one was forked from."""

    pipe: int

    def reply_and_exit(self, message: Any, *, flush: bool = True) -> NoReturn:
        """Says how it went, and ends this process without running anything that the parent will run too."""
        if flush:
            flush_all()
        said = memoryview(pickle.dumps(message))
        while said:
            said = said[os.write(self.pipe, said) :]
        os._exit(0)


def fork(*, flush: bool = True) -> Child | Parent:
    """Two processes go on from here: in one this is the child, in the other the parent.

    What Python's files hold back is written out first, or both would write it; a child that writes
    nothing (`flush=False`) need not wait for that.
    """
    if flush:
        flush_all()
    reader, writer = os.pipe()
    above, drawn = os.getpid(), random.getstate()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    os.close(reader)
    random.setstate(drawn)  # Python seeds it anew in every child
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    _die_with_parent(above)
    return Parent(writer)


def run_in_fork(work: Callable[[], Any]) -> Any:
    """Computes something where it leaves no trace, not even in files; errors come through."""
    side = fork(flush=False)
    if isinstance(side, Parent):
        side.reply_and_exit(_tried(work), flush=False)
    said = side.wait()
    if said is None:
        raise ChildDied("it was killed (out of memory?)")
    came, error = said
    if error is not None:
        raise error
    return came


def spawn_fork(work: Callable[[], Any]) -> Child:
    """Begins something in a child; its `wait` gives (what came of it, the error)."""
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
        except Exception:  # what cannot travel is said in words
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def as_they_end(children: Mapping[int, Any]) -> Iterator[int]:
    """Pipes of children as they have something to say or are gone."""
    while children:
        ready, _, _ = select.select(list(children), [], [])
        yield from ready


class ChildDied(Exception):
    """A child ended without a word: killed, or out of memory."""


def why_not_fork() -> str | None:
    """What keeps this process from being forked, in words; None if nothing does."""
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
    """A folder for a while. Not tempfile's own, which any child that ends would take away with it."""
    folder = tempfile.mkdtemp(prefix="bygones-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent(parent: int) -> None:
    """On Linux, a child whose parent is killed is killed too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
