"""Process environment: one thread, fixed string hashes and a clean module path, as forking requires."""

from __future__ import annotations

import os
import sys

# A process with several threads cannot be forked, and libraries read their number when they are loaded.
# String hashes are random in each process unless the seed is set, and so is the order of sets.
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


def begin_alone() -> None:
    """Replace this process by the same command with the environment `ALONE`, unless it is set already.

    `-P` keeps the working directory off `sys.path`, as running the script itself would.
    """
    if any(os.environ.get(name) != value for name, value in ALONE.items()):
        command = [sys.executable, "-P", "-m", "bygones", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ALONE})
