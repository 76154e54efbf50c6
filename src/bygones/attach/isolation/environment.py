"""Process environment: one thread, fixed string hashes and a clean module path, as forking requires."""

from __future__ import annotations

import os
import signal
import sys

# A process with several threads cannot be forked, and libraries read their number when they are loaded.
# String hashes are random in each process unless the seed is set, and so is the order of sets. The last
# variable says who set it: one that the user has set is kept in every run.
HASH_SEED, HASH_SEED_IS = "PYTHONHASHSEED", "BYGONES_HASH_SEED_IS"
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    HASH_SEED: "0",
    HASH_SEED_IS: "chosen",
}


def begin_alone() -> None:
    """Replace this process by the same command with the environment `ALONE`, unless it is set already.

    `-P` keeps the working directory off `sys.path`, as running the script itself would.
    """
    wanted = ALONE | _hash_seed_of_user()
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-P", "-m", "bygones", *sys.argv[1:]]
        # Until the new one can say a sentence; it lets them through again.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        os.execve(sys.executable, command, {**os.environ, **wanted})


def _hash_seed_of_user() -> dict[str, str]:
    """Return the hash seed that the user has set; empty if there is none."""
    value, kind = os.environ.get(HASH_SEED, ""), os.environ.get(HASH_SEED_IS)
    if kind == "chosen" or not value.isdigit():
        return {}
    return {HASH_SEED: value, HASH_SEED_IS: "the user's"}


def other_hash_seed() -> str | None:
    """Return another seed of string hashes than this process has; None if the user has fixed it."""
    if _hash_seed_of_user():
        return None
    value = os.environ.get(HASH_SEED, "")
    return str(int(value) + 1 if value.isdigit() else 1)


def describe_circumstances(*, is_job: bool = False) -> str:
    """Say what was the same in all runs of a resume check, and what was not."""
    held = "host name, time zone, folder for temporary files and number of threads"
    if is_job:
        return f"All runs had the same {held}, and the same hash seed (PYTHONHASHSEED)."
    if other_hash_seed() is None:
        return f"All runs had the same {held}, and the hash seed that PYTHONHASHSEED sets."
    return f"All runs had the same {held}; the resumed run had another hash seed (PYTHONHASHSEED)."
