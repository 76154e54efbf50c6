"""Jobs for the tests of executors, where workers find them; without torch, so that workers start fast."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def negative(number: int) -> int:
    return -number


def blocked_signals(_: int) -> bool:
    """Whether Ctrl-C is blocked here."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def note_or_raise(job: tuple[str, int, Exception | None]) -> int:
    """Notes that it has begun; raises an error, or where others follow one waits until it is ended.

    Where nobody ends it, it ends by itself at last: the test then counts too many.
    """
    folder, number, error = job
    (Path(folder) / str(number)).touch()
    if error is not None:
        raise error
    late = time.monotonic() + 30.0
    while number > 1 and time.monotonic() < late:
        time.sleep(0.02)
    return number


def die_once(job: tuple[str, int]) -> int:
    """Kills its own process the first time that any job comes to it with number 2."""
    folder, number = job
    died = Path(folder) / "died"
    if number == 2 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def make_way_once(job: tuple[str, int]) -> int:
    """Tells its own process, the first time, that it has to make way: the signal that Slurm is asked for."""
    folder, number = job
    asked = Path(folder) / "asked"
    if not asked.exists():
        asked.touch()
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(10)
    return number


class Awkward(Exception):
    """An error that can be packed and not be unpacked."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def raise_awkwardly(_: object) -> None:
    raise Awkward("quite", "odd")


def die(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def die_each_once(job: tuple[str, int]) -> int:
    """Kills its own process the first time that a number comes to it."""
    folder, number = job
    died = Path(folder) / f"died-{number}"
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def parent_and_torch(_: int) -> tuple[int, bool]:
    """Of whom the worker is a child, and whether it has torch although nobody has asked for it."""
    return os.getppid(), "torch" in sys.modules


def variable(name: str) -> str | None:
    return os.environ.get(name)


def prints_to_standard_error(_: int) -> bool:
    return sys.stdout is sys.stderr


def outlive(job: tuple[str, int]) -> int:
    """Notes of whom it is a child, and ends only once the test says that a machine is lost."""
    folder, number = job
    (Path(folder) / f"{number} {os.getppid()} {os.getpid()}").touch()
    while not (Path(folder) / "lost").exists():
        time.sleep(0.05)
    return number
