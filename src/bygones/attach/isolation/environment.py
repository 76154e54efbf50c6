"""A process with one thread and nothing of its own on the path: what a script is run and forked in."""

from __future__ import annotations

import os
import sys

# A process of several threads cannot be forked, and libraries read this when they are loaded. Hashes of
# strings differ between processes unless they are told not to; and with them the order of sets.
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


def begin_alone() -> None:
    """Begins this very command again under these settings, unless it is under them already.

    `-P`: the folder that one happens to be in is not searched for modules, until the script's own is.
    """
    if any(os.environ.get(name) != value for name, value in ALONE.items()):
        command = [sys.executable, "-P", "-m", "bygones", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ALONE})
