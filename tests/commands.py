"""Commands of `bygones`, each run in a fork of one process that is warm: a start of its own costs seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bygones.script.alone import ALONE

ALONE_HERE = {**os.environ, **ALONE}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Commands = Callable[..., Said]  # (folder, *arguments)


def start_server(*warmed: str) -> subprocess.Popen[str]:
    """A process that runs scripts must be single-threaded, which a test runner is not.

    `warmed`: modules that it imports beforehand, if others than usual.
    """
    command = [sys.executable, "-P", str(Path(__file__).parent / "script_server.py"), *warmed]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ALONE_HERE, text=True
    )


def ask(server: subprocess.Popen[str], folder: Path, *arguments: object) -> Said:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([[str(a) for a in arguments], str(folder)]) + "\n")
    server.stdin.flush()
    return Said(*json.loads(server.stdout.readline()))


def stop_server(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    server.wait(timeout=60)
