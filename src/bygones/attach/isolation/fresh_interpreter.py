"""Fresh interpreter: run a watched process in a new Python, with other environment variables.

    python -P -m bygones.attach.isolation.fresh_interpreter FILE_DESCRIPTOR EMPTY

Some settings are read when Python starts, so a forked child cannot change them: the seed of string hashes.
The process is handed over in an unnamed file that only this child can read, with the states of the global
generators, as a forked child would have them.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, NoReturn

from bygones.attach.isolation.warmup import warm
from bygones.training.generators import generator_state, global_generators, set_generator_state


def become_fresh(process: Any, environment: Mapping[str, str], *, empty: bool) -> NoReturn:
    """Replace this forked child by a new Python that runs `process` and replies to the same parent."""
    file = tempfile.TemporaryFile()
    states = {name: generator_state(g) for name, g in global_generators().items()}
    pickle.dump((process, states), file)
    file.seek(0)
    for descriptor in (file.fileno(), process.parent.pipe):
        os.set_inheritable(descriptor, True)
    module = "bygones.attach.isolation.fresh_interpreter"
    command = [sys.executable, "-P", "-m", module, str(file.fileno()), str(int(empty))]
    os.execve(sys.executable, command, {**os.environ, **environment})


def main(arguments: list[str]) -> None:
    """Run the process that these command line arguments hand over."""
    descriptor, empty = arguments
    with os.fdopen(int(descriptor), "rb") as file:
        process, states = pickle.load(file)
    os.set_inheritable(process.parent.pipe, False)
    warm()
    for name, generator in global_generators().items():
        set_generator_state(generator, states[name])
    process.run(empty=empty == "1")


if __name__ == "__main__":
    main(sys.argv[1:])
