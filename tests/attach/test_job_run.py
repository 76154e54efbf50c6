"""Of several ranks that fail, the one that is the reason is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bygones.attach.isolation.fork import Parent
from bygones.attach.job.rank import Rank
from bygones.attach.job.run import run_job
from bygones.core.errors import ScriptError


@dataclass
class Process:
    """A rank that does this instead of running a script."""

    do: Callable[[Rank], str]
    parent: Parent
    rank: Rank | None = None

    def run(self, *, empty: bool = True) -> None:
        assert self.rank is not None
        self.rank.begin()
        self.parent.reply_and_exit(ScriptError(self.do(self.rank)))


def fail(rank: Rank, *, after: float, reply_after: float = 0.0) -> str:
    time.sleep(after)
    rank.note_failure()
    time.sleep(reply_after)
    return "it has lost another rank" if rank.number == 0 else "it is the reason"


def die(after: float) -> str:
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def error_of(folder: Path, *ranks: Callable[[Rank], str]) -> str:
    with pytest.raises(ScriptError) as error:
        run_job(lambda number, parent: Process(ranks[number], parent), len(ranks), folder / "job")
    return str(error.value)


def test_a_rank_that_died_is_named_although_another_one_fails_earlier(tmp_path: Path) -> None:
    said = error_of(tmp_path, lambda rank: fail(rank, after=0), lambda _: die(after=0.2))
    assert said.startswith("rank 1 of 2 was killed")


def test_the_rank_that_failed_first_is_named_although_another_one_replies_earlier(
    tmp_path: Path,
) -> None:
    said = error_of(
        tmp_path,
        lambda rank: fail(rank, after=0.2),
        lambda rank: fail(rank, after=0, reply_after=0.3),
    )
    assert said == "rank 1 of 2: it is the reason"
