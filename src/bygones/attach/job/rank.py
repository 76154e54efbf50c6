"""Rank: one process of a job, its environment, and where all ranks write how far they are.

    Roster   a small file that the processes of a job and the one that started them map into memory: who
             is there, how many steps each has taken, and who cannot go on
    Rank     one process: it meets the others before the script begins

A rank that has replied waits until it is ended, together with all others. Otherwise its sockets would be
closed while another rank is still in the last step, and that one would be disturbed.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

from bygones.attach.isolation.fork import Parent

ADDRESS = "127.0.0.1"
REPLY_SIZE = struct.Struct("!Q")  # of a rank's reply, before it
# Writes a rank's stack: a signal that hardly any script uses.
STACK_SIGNAL = signal.SIGRTMIN + 7 if sys.platform == "linux" else signal.SIGUSR2
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_READY, _STEPS, _FAILED, _SAID = range(4)  # columns of the roster
_PAUSE, _LOOK = 0.002, 0.1  # seconds between two looks: at other ranks, at the parent


class Roster:
    """How far the ranks of a job are. Every process of the job has the file `path` mapped into its memory."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._rows = np.memmap(path, np.int64, "r+", shape=(size, 4))

    @classmethod
    def create(cls, path: Path, size: int) -> Roster:
        np.memmap(path, np.int64, "w+", shape=(size, 4)).flush()
        return cls(path, size)

    def enter(self, number: int) -> None:
        """Note that a rank is there, and wait for all others."""
        self._rows[number, _READY] = 1
        while not self._rows[:, _READY].all():
            time.sleep(_PAUSE)

    def count_step(self, number: int) -> None:
        self._rows[number, _STEPS] += 1

    def note_failure(self, number: int) -> None:
        """Note that a rank cannot go on, so that the others would wait for it in vain."""
        self._rows[number, _FAILED] = time.monotonic_ns()

    def agree(self, number: int, value: int) -> int:
        """Return the number 0 or more that rank 0 gives here; other ranks wait for it."""
        if number == 0:
            self._rows[0, _SAID] = value + 1
        while not self._rows[0, _SAID]:
            time.sleep(_PAUSE)
        return int(self._rows[0, _SAID]) - 1

    def steps(self) -> list[int]:
        """Return the number of optimizer steps that each rank has taken."""
        return self._rows[:, _STEPS].tolist()

    def failures(self) -> list[int]:
        """Return the ranks that have noted that they cannot go on, the first first."""
        at = self._rows[:, _FAILED].tolist()
        return sorted((n for n in range(self.size) if at[n]), key=lambda n: at[n])

    @property
    def has_failed(self) -> bool:
        """Whether some rank cannot go on."""
        return bool(self._rows[:, _FAILED].any())


@dataclass(frozen=True)
class Rank:
    """One process of a job of `size`. `folder`: that of the whole job; `port`: of its rendezvous."""

    number: int
    size: int
    port: int
    folder: Path

    @property
    def output(self) -> Path:
        """The folder for what this rank prints; rank 0 leads, so that of the job."""
        return self.folder if self.number == 0 else self.folder / f"rank{self.number}"

    @property
    def stack_file(self) -> Path:
        return self.output / "stack.txt"

    @cached_property
    def roster(self) -> Roster:
        return Roster(self.folder / "roster", self.size)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that torchrun sets. A process beside the ranks keeps the store of the rendezvous."""
        number, size = str(self.number), str(self.size)
        return {
            "RANK": number,
            "LOCAL_RANK": number,
            "ROLE_RANK": number,
            "GROUP_RANK": "0",
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            "ROLE_WORLD_SIZE": size,
            "GROUP_WORLD_SIZE": "1",
            "ROLE_NAME": "default",
            "MASTER_ADDR": ADDRESS,
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", _LOOPBACK),
        }

    def begin(self) -> None:
        """Take the place of this rank in this process, and wait until all ranks have.

        The process leads a group of its own, so that what the script starts can be ended with it.
        """
        with suppress(PermissionError):
            os.setpgid(0, 0)
        os.environ.update(self.environment)
        file = os.open(self.stack_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        faulthandler.register(STACK_SIGNAL, file, all_threads=False)
        self.roster.enter(self.number)

    def note_failure(self, error: BaseException | None = None) -> None:
        """Note that this rank cannot go on, and print the traceback of what its script raised."""
        if error is not None and not isinstance(error, SystemExit):
            place = error.__traceback__
            while place is not None and _is_ours(place.tb_frame):
                place = place.tb_next
            traceback.print_exception(type(error), error, place)
            sys.stderr.flush()
        self.roster.note_failure(self.number)

    @contextmanager
    def counting_steps(self) -> Iterator[None]:
        """Count optimizer steps in the roster while the script runs."""
        process = os.getpid()

        def count(*_: Any) -> None:
            if os.getpid() == process:
                self.roster.count_step(self.number)

        hook = register_optimizer_step_post_hook(count)
        try:
            yield
        finally:
            hook.remove()


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("bygones")


@dataclass(frozen=True)
class ParentOfRank(Parent):
    """The parent of a rank: after its reply, the process waits until it is ended with the other ranks."""

    def send_and_exit(self, data: bytes) -> NoReturn:
        """Send a reply, and wait to be ended."""
        parent = os.getppid()
        self.write(REPLY_SIZE.pack(len(data)) + data)
        while os.getppid() == parent:
            time.sleep(_LOOK)
        self.leave()
