"""Fresh interpreter: a new Python with other environment variables, in which watched processes run.

Some settings are read when Python starts, so a forked child cannot change them: the seed of string hashes.
The new Python imports torch while this process goes on, and then forks a child for each run, as this process
does. This module imports no torch, so that the new Python can be started before that.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bygones.attach.isolation.environment import HASH_SEED, other_hash_seed

_SERVER = "bygones.attach.isolation.interpreter_server"
_SIZE = struct.Struct("!Q")  # of a message, before it


class FreshInterpreter:
    """A new Python that runs watched processes. Use as a context; it ends with this process.

    `environment`: variables that differ from this process's. `forks`: whether each process runs in a fork
    of it; otherwise the first one runs in the new Python itself, and there can be no second.
    """

    def __init__(self, environment: Mapping[str, str], *, forks: bool = True) -> None:
        self._forks = forks
        self._socket, theirs = socket.socketpair()
        number = str(theirs.fileno())
        self._python = subprocess.Popen(
            [sys.executable, "-P", "-m", _SERVER, number, str(os.getpid())],
            env={**os.environ, **environment},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()

    def __enter__(self) -> FreshInterpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._python.kill()
        self._python.wait()

    def run(self, process: Any, writer: int, libraries: tuple[str, ...], **how: Any) -> None:
        """Run a process that replies to the pipe `writer`; `libraries` are imported before, once.

        The process begins with the states of the global generators in `how["states"]`. If the new Python is
        gone, nothing replies.
        """
        message = pickle.dumps((process, libraries, {**how, "forks": self._forks}))
        try:
            socket.send_fds(self._socket, [_SIZE.pack(len(message))], [writer])
            self._socket.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            return


def other_hashes() -> AbstractContextManager[FreshInterpreter | None]:
    """Start a Python with another seed of string hashes; None if the user has fixed it."""
    seed = other_hash_seed()
    return nullcontext() if seed is None else FreshInterpreter({HASH_SEED: seed})


def receive(connection: socket.socket) -> tuple[bytes, int] | None:
    """Return the next message and the pipe that came with it; None when the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, _SIZE.size, 1)
    if len(head) < _SIZE.size:
        return None
    (size,), message = _SIZE.unpack(head), bytearray()
    while len(message) < size:
        message += (chunk := connection.recv(min(size - len(message), 1 << 20)))
        if not chunk:
            return None
    return bytes(message), descriptors[0]
