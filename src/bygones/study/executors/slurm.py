"""Slurm: jobs of a Slurm cluster, through submitit. The only file that imports submitit."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bygones.core.errors import DesignError, WorkerError
from bygones.study.executors.base import AbstractExecutor
from bygones.study.executors.transport import line_of, pack_job, run_packed, unpack_result

_TRIES = 3  # how often a job is submitted before its deaths are no bad luck any more
_LOOK_EVERY = 0.2  # seconds
# submitit's names on every kind of cluster; others are Slurm's own.
_PLAIN = ("name", "timeout_min", "mem_gb", "gpus_per_node")


class Slurm(AbstractExecutor):
    """Jobs in Slurm's queue, `num_workers` at once, one core each; one that dies is submitted again.

    `folder`: where submitit keeps scripts, logs and results, on a disk that all machines share.
    `local`: as processes of this machine, to try it out. `parameters`: what Slurm is asked for, as submitit
    names it: `timeout_min` (an hour unless said otherwise), `mem_gb`, `gpus_per_node`, `partition`, `qos`, …
    A job that runs out of time, or has to make way for others, is put back in the queue, and goes on from
    the last snapshot that it stored.
    """

    def __init__(
        self, num_workers: int, folder: Path | str, local: bool = False, **parameters: Any
    ) -> None:
        self.num_workers = self._most = num_workers
        self.folder = Path(folder)
        self.local = local
        self.parameters = {"name": "bygones", "timeout_min": 60, **parameters}

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        submitit = _imported()
        todo = deque((pack_job(function, job), 1) for job in jobs)
        queue = self._queue(submitit) if todo else None
        running: dict[Any, tuple[bytes, int]] = {}
        try:
            while todo or running:
                while todo and len(running) < self._most:
                    parcel, tries = todo.popleft()
                    running[self._submitted(submitit, queue, parcel)] = (parcel, tries)
                for job in [job for job in running if job.done()]:
                    parcel, tries = running.pop(job)
                    outcome = self._outcome(submitit, job)
                    if outcome is not None:
                        yield _opened(outcome)
                    elif tries < _TRIES:
                        todo.append((parcel, tries + 1))
                    else:
                        raise WorkerError(
                            f"a job died {tries} times in a row (killed, out of memory or out of time?). "
                            f"What is finished is stored; its last words are in {job.paths.stderr}. Ask for "
                            f"more memory or time, and run again to go on."
                        )
                time.sleep(_LOOK_EVERY if running else 0)
        finally:
            self._cancel(list(running))

    def _queue(self, submitit: Any) -> Any:
        if not self.local and shutil.which("sbatch") is None:
            raise WorkerError(
                "there is no `sbatch` here, so nothing can be handed to Slurm. Run this where Slurm's "
                "commands are, or choose another --executor."
            )
        queue = submitit.AutoExecutor(
            self.folder.absolute(), cluster="local" if self.local else "slurm"
        )
        asked = {n if n in _PLAIN else f"slurm_{n}": v for n, v in self.parameters.items()}
        try:
            queue.update_parameters(cpus_per_task=1, **asked)
        except (NameError, AssertionError) as error:
            raise DesignError(f"Slurm cannot be asked for that: {line_of(error, 0)}.") from error
        return queue

    def _submitted(self, submitit: Any, queue: Any, parcel: bytes) -> Any:
        try:
            return queue.submit(_Errand(parcel))
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise WorkerError(
                f"a job could not be handed to Slurm: {line_of(error)}. What is finished is stored; run "
                f"again to go on."
            ) from error

    def _outcome(self, submitit: Any, job: Any) -> bytes | None:
        """The packed result; None if the job died or was stopped before it had one."""
        utils = submitit.core.utils
        try:
            return job.result()
        except utils.UncompletedJobError:
            return None
        except utils.FailedJobError as error:
            raise WorkerError(
                f"a job did not come as far as its work; {job.paths.stderr} says why. Workers need bygones "
                f"and the packages and files that are here, in the same places."
            ) from error

    def _cancel(self, jobs: list[Any]) -> None:
        for job in jobs:
            job.cancel(check=False)
        while self.local and not all([job.done() for job in jobs]):  # none outlives the study
            time.sleep(0.02)


@dataclass(frozen=True)
class _Errand:
    """A packed job that may be preempted: submitit calls `checkpoint`, and Slurm queues it again."""

    parcel: bytes

    def __call__(self) -> bytes:
        return run_packed(self.parcel)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _opened(outcome: bytes) -> Any:
    """The result. submitit says by an error amid the training that a job may not be begun anew."""
    try:
        return unpack_result(outcome)
    except Exception as error:
        if "Job not requeued because" not in str(error):
            raise
        raise WorkerError(
            "a job ran out of time again and again. What is finished is stored; run again to go on, with a "
            "longer timeout_min (SBATCH_TIMELIMIT on the command line)."
        ) from error


def _imported() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise WorkerError(
            f"jobs on a Slurm cluster need submitit, which cannot be imported ({error}). Install it with: "
            f"pip install 'bygones[slurm]'"
        ) from error
    return submitit
