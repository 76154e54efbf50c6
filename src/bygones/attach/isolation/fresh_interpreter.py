"""Fresh interpreter: a new Python with other environment variables, in which watched processes run.

Some settings are read when Python starts, so a forked child cannot change them: the seed of string hashes.
The new Python imports torch while this process goes on, and then forks a child for each run, as this process
does. This module imports no torch, so that the new Python can be started before that.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from bygones.attach.isolation.environment import HASH_SEED, other_hash_seed

# Garbage collection is off until all is imported (see `warm`), which takes a fifth less time so.
_SERVER = (
    "import gc, signal, sys; gc.disable(); signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); "
    "from bygones.attach.isolation.interpreter_server import main; main(sys.argv[1:])"
)


class FreshInterpreter:
    """A new Python that runs watched processes. Use as a context; it ends with this process.

    `environment`: variables that differ from this process's. `forks`: whether each process runs in a fork
    of it; otherwise the first one runs in the new Python itself, and there can be no second.
    """

    def __init__(self, environment: Mapping[str, str], *, forks: bool = True) -> None:
        self._forks = forks
        self._socket, theirs = socket.socketpair()
        number = str(theirs.fileno())
        # Ctrl-C is for all processes of a terminal; until the new one has begun it would print a traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._python = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVER, number, str(os.getpid())],
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def __enter__(self) -> FreshInterpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._python.kill()
        self._python.wait()

    def run(self, process: Any, writer: int, **how: Any) -> None:
        """Run a process that replies to the pipe `writer`.

        The process begins with the states of the global generators in `how["states"]`. If the new Python is
        gone, nothing replies.
        """
        self._send((process, {**how, "forks": self._forks}), writer)

    def warm(self, libraries: tuple[str, ...]) -> None:
        """Import libraries there, for the processes to come; this process goes on meanwhile."""
        if libraries:
            self._send(libraries)

    def _send(self, message: Any, *descriptors: int) -> None:
        """Send a message by a pipe of its own, so that several processes may ask at once."""
        reader, writer = os.pipe()
        try:
            socket.send_fds(self._socket, [b"?"], [reader, *descriptors])
        except (BrokenPipeError, ConnectionResetError):
            os.close(writer)
            return
        finally:
            os.close(reader)
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
            pickle.dump(message, pipe)


def other_hashes() -> AbstractContextManager[FreshInterpreter | None]:
    """Start a Python with another seed of string hashes; None if the user has fixed it."""
    seed = other_hash_seed()
    return nullcontext() if seed is None else FreshInterpreter({HASH_SEED: seed})


def receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the next message and the descriptors that came with it; None when the other side is gone."""
    said, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    if not said:
        return None
    reader, *others = descriptors
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read(), others
