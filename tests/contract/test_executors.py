"""Every executor, same behaviours: all jobs, in any order, and the first error is the one that is seen.

Jobs are functions of `tests.helpers.executor_jobs`, since workers have to find them.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers import executor_jobs as jobs

from bygones.core.errors import BygonesError, DesignError, RecipeError, UnknownName, WorkerError
from bygones.store import Damaged
from bygones.study.executors import EXECUTORS, AbstractExecutor, Processes, Ray, Serial, Slurm
from bygones.study.executors.slurm import _opened
from bygones.study.executors.transport import pack_job, run_packed, unpack_result

pytestmark = pytest.mark.xdist_group("clusters")  # what they share is made once

MAKE: dict[str, Callable[[Path], AbstractExecutor]] = {
    "serial": lambda folder: Serial(),
    "processes": lambda folder: Processes(2),
    "ray": lambda folder: Ray(num_workers=2),
    "slurm": lambda folder: Slurm(2, folder, local=True),
}


def made(name: str, request: pytest.FixtureRequest) -> AbstractExecutor:
    """An executor of this name; a cluster's may need a session, or a folder for its logs."""
    if name == "ray":
        request.getfixturevalue("ray_session")
    if name == "slurm":
        pytest.importorskip("submitit", reason="needs bygones[slurm]")
        job = importlib.import_module("submitit.core.core").Job
        patch = request.getfixturevalue("monkeypatch")
        patch.setattr(job, "_results_timeout_s", 0)  # how long a dead job's result is waited for
    return MAKE[name](request.getfixturevalue("tmp_path_factory").mktemp("logs"))


@pytest.fixture(params=list(MAKE))
def executor(request) -> AbstractExecutor:
    return made(request.param, request)


@pytest.fixture(params=[name for name in MAKE if name != "serial"])
def elsewhere(request) -> AbstractExecutor:
    """An executor that has workers, which can die."""
    return made(request.param, request)


@pytest.fixture(autouse=True)
def no_orphans():
    """Whatever happens in a test, no worker is left at its end (multiprocessing's own tracker may be)."""
    yield
    end = time.monotonic() + 120.0
    while workers() and time.monotonic() < end:
        time.sleep(0.02)
    assert workers() == []


def workers(of: int | None = None) -> list[str]:
    """The commands of workers that this process, or the server that forks them for it, has begun."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            command = (status.parent / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(parent) != (of or os.getpid()) or state == "Z":
            continue
        if "forkserver" in command and of is None:
            found += workers(of=int(status.parent.name))
        elif "spawn_main" in command or "forkserver" in command or "submitit" in command:
            found.append(command)
    return found


def test_every_executor_is_tested_here():
    assert set(MAKE) == set(EXECUTORS)


def test_all_results_come_whatever_their_order(executor):
    assert list(executor.map(jobs.negative, [])) == []
    assert sorted(executor.map(jobs.negative, [3])) == [-3]
    assert sorted(executor.map(jobs.negative, list(range(3)))) == [-2, -1, 0]


ERRORS = [RecipeError("a.b: 'c'."), UnknownName("no such."), Damaged("gone."), ValueError("odd")]


@pytest.mark.parametrize(
    ("executor", "error"),
    [
        *((name, error) for name in ("serial", "processes", "ray") for error in ERRORS),
        ("slurm", ERRORS[0]),  # each of its jobs takes a second, and all errors go the same way
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    indirect=["executor"],
)
def test_the_first_error_stops_the_rest_and_comes_as_it_was_raised(executor, error, tmp_path):
    work = [(str(tmp_path), i, error if i == 1 else None) for i in range(40)]  # the rest would wait
    results = executor.map(jobs.note_or_raise, work)
    with pytest.raises(type(error)) as caught:
        list(results)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if isinstance(error, BygonesError):
        assert caught.value.exit_code == error.exit_code
    assert len(list(tmp_path.iterdir())) <= 4  # those two, and one more for each of two workers


def test_a_consumer_may_leave_early(executor):
    results = executor.map(jobs.negative, list(range(20)))
    assert next(results) <= 0
    results.close()  # type: ignore[attr-defined]


def test_a_consumer_may_raise(executor):
    def leave(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(map(leave, executor.map(jobs.negative, list(range(20)))))


def test_a_worker_that_is_killed_is_replaced_and_its_job_is_run_again(elsewhere, tmp_path):
    results = elsewhere.map(jobs.die_once, [(str(tmp_path), i) for i in range(3)])
    assert sorted(results) == [0, 1, 2]
    assert (tmp_path / "died").exists()


def test_deaths_are_forgiven_as_long_as_jobs_get_finished(tmp_path):
    results = Processes(1).map(jobs.die_each_once, [(str(tmp_path), i) for i in range(5)])
    assert sorted(results) == [0, 1, 2, 3, 4]


def test_a_worker_that_dies_again_and_again_is_given_up(tmp_path):
    with pytest.raises(
        WorkerError, match=r"died 3 times in a row.*Try fewer workers or lanes\.$"
    ) as caught:
        list(Processes(1).map(jobs.die, [str(tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_job_that_kills_each_of_its_workers_is_given_up(name, request, tmp_path):
    with pytest.raises(
        WorkerError, match=r"died 3 times in a row.*is stored.*run again to go on"
    ) as caught:
        list(made(name, request).map(jobs.die, [str(tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 3
    assert "\n" not in str(caught.value)


def test_a_job_that_slurm_interrupts_is_put_back_in_the_queue(request, tmp_path):
    made("slurm", request)
    slurm = Slurm(1, tmp_path / "logs", local=True, timeout_min=5)  # so short that it has run out
    assert list(slurm.map(jobs.make_way_once, [(str(tmp_path), 3)])) == [3]
    assert (tmp_path / "asked").exists()


def test_a_job_that_slurm_interrupts_too_often_is_no_error_of_the_recipe(tmp_path: Path):
    said = (
        "the recipe raised UncompletedJobError: Job not requeued because: timed-out too many times."
    )
    outcome = run_packed(pack_job(jobs.note_or_raise, (str(tmp_path), 0, RecipeError(said))))
    with pytest.raises(WorkerError, match=r"ran out of time again and again\. What is finished"):
        _opened(outcome)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "serial"])
def test_a_job_that_cannot_travel_is_told_before_anything_is_started(name, tmp_path):
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}.get(name, "bygones"))
    work = MAKE[name](tmp_path / "logs").map(jobs.note_or_raise, [1, lambda: 0])
    with pytest.raises(DesignError, match=r"cannot be sent to a worker.*pickle") as caught:
        next(work)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("name", ["processes", "ray"])
def test_what_a_worker_cannot_import_is_one_sentence(name, request, monkeypatch):
    only_here = types.ModuleType("only_here")
    kind = type("Kind", (), {"__module__": "only_here"})
    only_here.Kind = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    with pytest.raises(WorkerError, match=r"No module named 'only_here'\. Workers need"):
        list(made(name, request).map(jobs.negative, [kind()]))


def test_an_error_that_cannot_travel_is_told_in_words():
    outcome = run_packed(pack_job(jobs.raise_awkwardly, None))
    with pytest.raises(WorkerError, match=r"^a job raised Awkward: quite odd\.$"):
        unpack_result(outcome)


def test_an_error_remembers_where_it_was_raised(tmp_path: Path):
    outcome = run_packed(pack_job(jobs.note_or_raise, (str(tmp_path), 0, ValueError("odd"))))
    with pytest.raises(ValueError, match="odd") as caught:
        unpack_result(outcome)
    assert "in note_or_raise" in caught.value.__notes__[0]


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_package_that_is_missing_is_named_with_what_brings_it(
    name, package, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WorkerError, match=rf"need {package}.*pip install 'bygones\[{name}\]'$"):
        list(MAKE[name](tmp_path).map(jobs.negative, [0]))


def test_slurm_needs_its_commands(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs bygones[slurm]")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="there is no `sbatch` here"):
        list(Slurm(1, tmp_path).map(jobs.negative, [0]))


def test_what_slurm_is_asked_for_is_checked(tmp_path):
    pytest.importorskip("submitit", reason="needs bygones[slurm]")
    asked = Slurm(1, tmp_path, local=True, partition="long", timeout_min=9)
    assert list(asked.map(jobs.negative, [])) == []
    with pytest.raises(DesignError, match=r"Unknown argument 'partitoin'"):
        list(Slurm(1, tmp_path, local=True, partitoin="long").map(jobs.negative, [0]))


def test_an_address_where_no_ray_is_says_so(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs bygones[ray]")

    def refuse(*arguments: object, **settings: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(WorkerError, match=r"no Ray cluster can be used at 'ray://x:1': ray client"):
        list(Ray("ray://x:1").map(jobs.negative, [0]))


@pytest.mark.parametrize("kind", ["{}:{}", "ray://{}:{}"])
def test_an_address_where_nothing_listens_says_so_at_once(kind, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs bygones[ray]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("tried for minutes"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        with pytest.raises(WorkerError, match=r"nothing listens at.*Connection refused"):
            Ray(kind.format(*taken.getsockname())).get_ready()
    for odd in ("ray://x:99999", "ray://[::"):
        with pytest.raises(WorkerError, match="is no address of a Ray cluster"):
            Ray(odd).get_ready()
    Ray("auto").get_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are started afresh")
def test_torch_is_imported_once_for_all_workers():
    executor = Processes(2)
    first, second = (list(executor.map(jobs.parent_and_torch, range(4))) for _ in range(2))
    assert {torch for _, torch in first} == {True}
    assert len({server for server, _ in first + second} - {os.getpid()}) == 1


def test_workers_have_the_environment_of_now(monkeypatch):
    """And not that of when the server that forks them was begun."""
    for value in ("first", "second"):
        monkeypatch.setenv("BYGONES_TEST", value)
        assert list(Processes(1).map(jobs.variable, ["BYGONES_TEST"])) == [value]
    monkeypatch.delenv("BYGONES_TEST")
    assert list(Processes(1).map(jobs.variable, ["BYGONES_TEST"])) == [None]


def test_what_a_worker_prints_is_no_part_of_the_results():
    assert list(Processes(1).map(jobs.prints_to_standard_error, [0])) == [True]


def test_ctrl_c_is_held_back_only_while_workers_start():
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert list(Processes(1).map(jobs.blocked_signals, [0])) == [True]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
