"""Watched jobs: run the ranks of a job as watched processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bygones.attach.isolation.fork import Parent
from bygones.attach.isolation.script import Script
from bygones.attach.job.run import run_job
from bygones.attach.watched_process import CountBy, WatchedProcess

MakeRank = Callable[[Script, int, Parent], WatchedProcess]


def run_ranks(make: MakeRank, script: Script, folder: Path, **how: Any) -> tuple[Script, list[Any]]:
    """Run each rank of a job as a watched process (see `run_job`); return the script, and replies by rank.

    The script that is returned counts by the optimizer that closes a round: where several take turns, that
    may need a second run. `make`: makes the process of a rank.
    """

    def run(script: Script) -> list[Any]:
        name, size = script.path, script.processes
        return run_job(lambda n, parent: make(script, n, parent), size, folder, name=name, **how)

    replies = run(script)
    counted = [reply.optimizer for reply in replies if isinstance(reply, CountBy)]
    if counted:
        script = replace(script, clock=counted[0])
        replies = run(script)
    return script, replies
