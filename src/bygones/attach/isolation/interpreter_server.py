"""Interpreter server: the side of a fresh interpreter that runs what it is given.

python -P -m bygones.attach.isolation.interpreter_server FILE_DESCRIPTOR PARENT
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from bygones.attach.isolation.fork import Parent, die_with_parent, fork
from bygones.attach.isolation.fresh_interpreter import receive
from bygones.attach.isolation.warmup import warm
from bygones.attach.watched_process import WatchedProcess
from bygones.training.generators import global_generators, set_generator_state


def main(arguments: list[str]) -> None:
    """Serve the process that started this one, until it is gone."""
    descriptor, parent = map(int, arguments)
    die_with_parent(parent)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    warm()
    imported: tuple[str, ...] = ()
    while (request := receive(connection)) is not None:
        # The bytes were written by our own parent; pickles are never read from a file.
        process, libraries, how = pickle.loads(request[0])
        process.parent = Parent(request[1])
        if not how.pop("forks"):
            _run(process, **how)
        if libraries != imported:
            imported = libraries
            warm(libraries)
        side = fork()
        if isinstance(side, Parent):
            os.close(side.pipe)
            connection.close()
            _run(process, **how)
        os.close(request[1])
        side.wait()


def _run(process: WatchedProcess, *, empty: bool, states: Mapping[str, Any]) -> NoReturn:
    for name, generator in global_generators().items():
        set_generator_state(generator, states[name])
    process.run(empty=empty)


if __name__ == "__main__":
    main(sys.argv[1:])
