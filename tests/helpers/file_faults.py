"""Faults at file events: a command that is killed, or finds no room, at the n-th thing it does to a file.

An *event* is an audit event of Python that changes a file system: a file opened for writing, a folder made, a
file or folder renamed or removed. A command is run in a fork of this process.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from bygones.cli.app import main

Fault = Literal["none", "kill", "full", "limit"]
_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link"}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), what it said as errors, and its events."""

    code: int
    err: str
    events: int


def run_with(
    fault: Fault, at: int, folder: Path, arguments: list[str], below: Path | None = None
) -> Ended:
    """Run a command in a fork, with a fault at event `at`, counted from 1; "limit": no file above `at` bytes.

    `below`: only events on paths below this folder count (default: `folder`).
    """
    said, counted = folder.parent / "said", folder.parent / "counted"
    pid = os.fork()
    if pid == 0:
        _run(fault, at, folder, arguments, below or folder, said, counted)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    events = counted.stat().st_size if counted.exists() else 0
    return Ended(code, said.read_text(errors="replace"), events)


def _run(
    fault: Fault,
    at: int,
    folder: Path,
    arguments: list[str],
    below: Path,
    said: Path,
    counted: Path,
) -> NoReturn:
    os.setsid()
    os.chdir(folder)
    for number, path in ((1, Path(os.devnull)), (2, said)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
    tally = os.open(counted, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644)
    place, seen = str(below.resolve()), 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal seen
        if not _changes(event, details) or not _is_below(details, place):
            return
        seen += 1
        os.write(tally, b".")
        if seen == at and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if seen >= at and fault == "full" and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fault == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, resource.RLIM_INFINITY))
    sys.addaudithook(watch)
    sys.argv, code = ["bygones", *arguments], 0
    try:
        main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        code = 99
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _changes(event: str, details: tuple[Any, ...]) -> bool:
    if event == "open":
        flags = details[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in _EVENTS


def _is_below(details: tuple[Any, ...], place: str) -> bool:
    path = details[0]
    return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(
        os.fsdecode(path)
    ).startswith(place)
