"""Launch command: read how a launcher (`torchrun`) would start a script, so that it can be started here.

Understood are `torchrun …`, `python -m torch.distributed.run …` and `python -m torch.distributed.launch …`,
by torch's own parser of these options.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bygones.core.errors import DesignError

_MODULES = ("torch.distributed.run", "torch.distributed.launch")


@dataclass(frozen=True)
class Launch:
    """A script as a launcher starts it: its path, its arguments, and the number of its processes."""

    script: str
    arguments: tuple[str, ...]
    processes: int


def read_launch(words: Sequence[str]) -> Launch | None:
    """Read a launch command; None if the words do not begin with a launcher.

    Raises `DesignError` for what cannot be started here: several machines, a module, a restart.

    >>> read_launch(["torchrun", "--standalone", "--nproc-per-node", "2", "train.py", "--lr", "1"])
    Launch(script='train.py', arguments=('--lr', '1'), processes=2)
    >>> read_launch(["train.py", "torchrun"]) is None
    True
    """
    options = _options_of_launcher(words)
    return None if options is None else _read_torchrun(options)


def is_launch(words: Sequence[str]) -> bool:
    """Test whether the words begin with a launcher."""
    return _options_of_launcher(words) is not None


def _options_of_launcher(words: Sequence[str]) -> list[str] | None:
    """Return the words after the launcher; None if there is none."""
    name = PurePath(words[0]).name if words else ""
    if name == "torchrun":
        return list(words[1:])
    if name.startswith("python") and not name.endswith(".py"):
        if len(words) > 2 and words[1] == "-m" and words[2] in _MODULES:
            return list(words[3:])
    return None


def _read_torchrun(options: list[str]) -> Launch:
    given = _parse(options)
    if given.module or given.no_python or given.run_path:
        raise DesignError(
            "torchrun's -m, --no-python and --run-path are not followed. Expected the path of a Python file, "
            "like `-- torchrun --nproc-per-node 2 train.py`."
        )
    if given.nnodes.split(":")[-1] != "1":
        raise DesignError(
            f"--nnodes {given.nnodes}: a job is followed on one machine only. Leave the option out, and give "
            f"all processes by --nproc-per-node."
        )
    if not str(given.nproc_per_node).isdigit() or int(given.nproc_per_node) < 1:
        raise DesignError(
            f"--nproc-per-node {given.nproc_per_node}: expected a number of processes, 1 or more, so that "
            f"every run has as many."
        )
    if given.max_restarts:
        raise DesignError(
            f"--max-restarts {given.max_restarts}: a job that is started again is another run. Leave the "
            f"option out."
        )
    return Launch(
        given.training_script, tuple(given.training_script_args), int(given.nproc_per_node)
    )


def _parse(options: list[str]) -> Any:
    """Parse torchrun's options; its parser would print its usage and exit."""
    from torch.distributed.run import get_args_parser

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            return get_args_parser().parse_args(options)
        except SystemExit:
            reason = said.getvalue().strip().rpartition("error: ")[2].splitlines()
    raise DesignError(
        f"torchrun does not take these arguments: {' '.join(options)}"
        + (f" ({reason[-1]})." if reason else ".")
        + " Expected `-- torchrun --nproc-per-node N script.py …`."
    ) from None
