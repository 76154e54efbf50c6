"""Every executor, same behaviours: all jobs, in any order, and the first error is the one that is seen.

Jobs are functions of `tests.executor_jobs`, since workers have to find them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import executor_jobs as jobs

from bygones.errors import BygonesError, RecipeError, UnknownName, WorkerError
from bygones.executors import EXECUTORS, AbstractExecutor, Processes, Serial
from bygones.store import Damaged

MAKE: dict[str, Callable[[], AbstractExecutor]] = {
    "serial": Serial,
    "processes": lambda: Processes(2),
}


@pytest.fixture(params=MAKE.values(), ids=list(MAKE))
def executor(request) -> AbstractExecutor:
    return request.param()


@pytest.fixture(autouse=True)
def no_orphans():
    """Whatever happens in a test, no worker is left at its end (multiprocessing's own tracker may be)."""
    yield
    end = time.monotonic() + 5.0
    while workers() and time.monotonic() < end:
        time.sleep(0.02)
    assert workers() == []


def workers() -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            command = (status.parent / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and "spawn_main" in command:
            found.append(command)
    return found


def test_every_executor_is_tested_here():
    assert set(MAKE) == set(EXECUTORS)


def test_all_results_come_whatever_their_order(executor):
    assert list(executor.map(jobs.negative, [])) == []
    assert sorted(executor.map(jobs.negative, [3])) == [-3]
    assert sorted(executor.map(jobs.negative, list(range(7)))) == [-6, -5, -4, -3, -2, -1, 0]


@pytest.mark.parametrize(
    "error",
    [RecipeError("a.b: 'c'."), UnknownName("no such."), Damaged("gone."), ValueError("odd")],
    ids=lambda error: type(error).__name__,
)
def test_the_first_error_stops_the_rest_and_comes_as_it_was_raised(executor, error, tmp_path):
    work = [(str(tmp_path), i, error if i == 1 else None) for i in range(40)]
    results = executor.map(jobs.note_or_raise, work)
    with pytest.raises(type(error)) as caught:
        list(results)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if isinstance(error, BygonesError):
        assert caught.value.exit_code == error.exit_code
    assert len(list(tmp_path.iterdir())) < 30


def test_a_consumer_may_leave_early(executor):
    results = executor.map(jobs.negative, list(range(20)))
    assert next(results) <= 0
    results.close()  # type: ignore[attr-defined]


def test_a_consumer_may_raise(executor):
    def leave(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(map(leave, executor.map(jobs.negative, list(range(20)))))


def test_a_worker_that_is_killed_is_replaced_and_its_job_is_run_again(tmp_path):
    results = Processes(2).map(jobs.die_once, [(str(tmp_path), i) for i in range(4)])
    assert sorted(results) == [0, 1, 2, 3]
    assert (tmp_path / "died").exists()


def test_deaths_are_forgiven_as_long_as_jobs_get_finished(tmp_path):
    results = Processes(1).map(jobs.die_each_once, [(str(tmp_path), i) for i in range(5)])
    assert sorted(results) == [0, 1, 2, 3, 4]


def test_a_worker_that_dies_again_and_again_is_given_up(tmp_path):
    with pytest.raises(
        WorkerError, match=r"died 3 times in a row.*Try fewer --workers\.$"
    ) as caught:
        list(Processes(1).map(jobs.die, [str(tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 3
    assert "\n" not in str(caught.value)


def test_a_job_that_cannot_travel_is_an_error_and_not_a_hang():
    with pytest.raises(Exception, match=r"pickle|local object"):
        list(Processes(1).map(jobs.negative, [lambda: 0]))


def test_ctrl_c_is_held_back_only_while_workers_start():
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert list(Processes(1).map(jobs.blocked_signals, [0])) == [True]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
