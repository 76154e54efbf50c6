"""The command's own process: its output in UTF-8, and an end with a sentence however it is ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

leave: Callable[[int], NoReturn] = os._exit


class Terminated(BaseException):
    """SIGTERM has come."""


def stop_at_once() -> None:
    """Let Ctrl-C and SIGTERM end this process with a sentence where nothing is to be put away.

    That is before a command begins and after it has ended; see `ends_in_a_sentence` for what is between.
    """
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is usual:
            signal.signal(number, _stop_now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, set(_USUAL))


def _stop_now(number: int, _: Any) -> NoReturn:
    said = "stopped" if number == signal.SIGINT else "ended by SIGTERM"
    with suppress(OSError):
        os.write(2, f"bygones: {said}.\n".encode())
    leave(128 + number)


_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def write_utf8() -> None:
    """Write UTF-8 whatever the locale is; what no text can hold, like half a surrogate pair, is escaped."""
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        if str(getattr(stream, "encoding", "utf-8")).lower() not in ("utf-8", "utf8"):
            with suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextmanager
def ends_in_a_sentence(arguments: Sequence[str]) -> Iterator[None]:
    """Raise where this process would end without a word: by SIGTERM, or by `os._exit` in a recipe's code.

    Neither is changed in forked children, nor where the arguments run a script in this process itself.
    """
    earlier = _adopt_orphans() if "--" in arguments else set()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _usual_handlers():
        if "--" in arguments and tuple(arguments[:2]) in _SCRIPT_HERE:
            yield
            return
        with _raising(earlier if "--" in arguments else None):
            yield


@contextmanager
def _usual_handlers() -> Iterator[None]:
    """Put Python's own handlers in the place of those of `stop_at_once`, and those back at the end."""
    quick = [number for number in _USUAL if signal.getsignal(number) is _stop_now]
    for number in quick:
        signal.signal(number, _USUAL[number])
    try:
        yield
    finally:
        for number in quick:
            signal.signal(number, _stop_now)


@contextmanager
def _raising(earlier: set[int] | None) -> Iterator[None]:
    """Raise for SIGTERM and `os._exit`. `earlier`: end all children at the end but these; None ends none."""
    here, before = os.getpid(), signal.getsignal(signal.SIGTERM)

    def exit_aloud(status: int = 0) -> NoReturn:
        if os.getpid() != here:
            leave(status)
        raise SystemExit(status)

    os._exit = exit_aloud
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        if earlier is not None:
            _end_orphans(earlier)
        os._exit = leave
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def _adopt_orphans() -> set[int]:
    """Become the parent of what the processes of a script leave behind (Linux only), to end it.

    Returns the children that there are already.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    return _children()


def _children() -> set[int]:
    return {pid for pid, parent in _parents() if parent == os.getpid()}


def _end_orphans(earlier: set[int]) -> None:
    """Kill the children that came since, and theirs, which are then ours: arms have been waited for."""
    for _ in range(_GENERATIONS):
        children = _children() - earlier
        if not children:
            return
        for pid in children:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(OSError):
                os.waitpid(pid, 0)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process of this machine with its parent."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            yield int(status.parent.name), int(status.read_text().rpartition(")")[2].split()[1])


_SET_CHILD_SUBREAPER = 36
_GENERATIONS = 20
_SCRIPT_HERE = {("ledger", "write"), ("script", "ledger")}


def _raise_terminated(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one ends it at once
    raise Terminated


def _as_if_nothing_were_caught() -> None:
    """Give a forked child what it would have had."""
    os._exit = leave
    if signal.getsignal(signal.SIGTERM) is _raise_terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_as_if_nothing_were_caught)


def describe(error: OSError) -> str:
    """Return the sentence for an error of the file system that nothing else has put in words."""
    place = (
        f"{error.filename}: " if error.filename is not None else "the output cannot be written: "
    )
    why = error.strerror or str(error)
    return f"{place}{why}. Check the place, and the room there. What is finished is stored."


def drop_output() -> None:
    """Let go of what standard output could not take, so that Python does not try again as it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
