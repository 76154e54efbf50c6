"""Interrupt a command at some moment, and look at how it ends and what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.commands import ALONE_HERE

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SENTENCES = {signal.SIGINT: "bygones: stopped.", signal.SIGTERM: "bygones: ended by SIGTERM."}


@dataclass(frozen=True)
class Interrupted:
    """How a command ended: its exit code, what it said as errors, and who was left of its session."""

    code: int
    err: str
    left: list[str]

    def what_is_wrong(self, sent: signal.Signals) -> str:
        """What is wrong with such an end, in words; "" if nothing is. It may have come to its end before."""
        if self.left:
            return f"left: {self.left}"
        if re.search(r"Traceback|KeyboardInterrupt|Exception ignored|Terminated", self.err):
            return f"more than a sentence: {self.err}"
        if self.code in (0, 1):
            return ""
        if self.code != CODES[sent]:
            return f"exit code {self.code}: {self.err}"
        last = self.err.strip().splitlines()[-1:]
        if len(last) != 1 or not last[0].startswith(SENTENCES[sent]):
            return f"no sentence: {self.err}"
        return ""


class Started:
    """A command of `bygones` in a session of its own, as in a terminal; its errors go to a file."""

    def __init__(self, folder: Path, arguments: Sequence[object]) -> None:
        self.said = folder / "said"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bygones", *map(str, arguments)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=ALONE_HERE,
                start_new_session=True,
                preexec_fn=_heed_ctrl_c,
            )

    def send(self, what: signal.Signals) -> Interrupted:
        """Send Ctrl-C to the whole group, as a terminal does, or SIGTERM to the leader; wait for the end."""
        with_all = what is signal.SIGINT
        if self.process.poll() is None:
            (os.killpg if with_all else os.kill)(self.process.pid, what)
        code = self.process.wait(timeout=300)  # of what hangs
        late = time.monotonic() + 60
        while (left := session_of(self.process.pid)) and time.monotonic() < late:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return Interrupted(code, self.said.read_text(errors="replace"), list(left.values()))

    def has_begun(self) -> bool:
        """Whether it catches or blocks SIGTERM: before that Python itself starts, and has no sentence."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return True
        masks = dict(re.findall(r"^(SigCgt|SigBlk):\s*(\w+)$", status, re.MULTILINE))
        return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks.values())

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until a condition is met, or the command has ended."""
        late = time.monotonic() + 300  # of what hangs
        while not met() and self.process.poll() is None:
            assert time.monotonic() < late
            time.sleep(0.005)


def _heed_ctrl_c() -> None:
    """Whoever runs the tests in the background may have Ctrl-C ignored, which commands would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def session_of(leader: int) -> dict[int, str]:
    """The living processes of a session, with the start of their command lines."""
    found: dict[int, str] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                said = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(status.parent.name)] = said.decode(errors="replace")[:200]
        except (OSError, ValueError):
            continue
    return found
