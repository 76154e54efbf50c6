"""Interpreter server: the side of a fresh interpreter that runs what it is given."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Mapping
from typing import Any, NoReturn

from bygones.attach.isolation.fork import Parent, die_with_parent, fork
from bygones.attach.isolation.fresh_interpreter import receive
from bygones.attach.isolation.warmup import warm
from bygones.attach.watched_process import WatchedProcess
from bygones.training.generators import global_generators, set_generator_state


def main(arguments: list[str]) -> None:
    """Serve the process that started this one, until it is gone. Arguments: a socket, and the parent's id."""
    descriptor, parent = map(int, arguments)
    die_with_parent(parent)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    warm()
    while (request := receive(connection)) is not None:
        # The bytes were written by our own parent; pickles are never read from a file.
        message, writers = pickle.loads(request[0]), request[1]
        if not writers:
            warm(message)
            continue
        process, how = message
        process.parent = Parent(writers[0])
        if not how.pop("forks"):
            _run(process, **how)
        side = fork()
        if isinstance(side, Parent):
            os.close(side.pipe)
            connection.close()
            _run(process, **how)
        os.close(writers[0])
        side.wait()


def _run(process: WatchedProcess, *, empty: bool, states: Mapping[str, Any]) -> NoReturn:
    for name, generator in global_generators().items():
        set_generator_state(generator, states[name])
    process.run(empty=empty)
