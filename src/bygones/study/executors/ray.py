"""Ray: jobs as tasks of a Ray cluster. The only file that imports ray."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from bygones.core.errors import WorkerError
from bygones.study.executors.base import AbstractExecutor
from bygones.study.executors.transport import line_of, pack_job, run_packed, unpack_result

_TRIES = 3  # how often a job is begun before the deaths of its workers are no bad luck any more
_PATIENCE = 5  # seconds, for a connection to be accepted
_CLIENT_PORT = 10001  # of ray:// without a port
_SHARED_MEMORY = 128 * 1024**2  # bytes; results are numbers, what is trained goes to the store


class Ray(AbstractExecutor):
    """Tasks of a Ray cluster, one core each; one whose worker or machine is lost is run again.

    `address`: of the cluster, as `ray.init` takes it (`auto`, `host:6379`, `ray://host:10001`). Without one
    a cluster of this machine's cores is started, and ended with the study; a session of Ray that the
    program has begun itself is used, and is left running. `num_workers`: how many jobs are under way at
    once; without it twice as many as find room, so that one that can grow sees what waits. `num_gpus`: of
    each job; Ray hides the GPUs from one that asks for none.
    """

    def __init__(
        self, address: str | None = None, num_workers: int | None = None, num_gpus: float = 0
    ) -> None:
        self.address = address
        self.num_workers = num_workers
        self.num_gpus = num_gpus

    def get_ready(self) -> None:
        """Look whether something listens at the address."""
        if self.address is not None and not _imported().is_initialized():
            _check_listening(self.address)

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        ray = _imported()
        parcels = [pack_job(function, job) for job in jobs]
        if parcels:
            with self._session(ray):
                yield from self._results(ray, parcels)

    def _results(self, ray: Any, parcels: list[bytes]) -> Iterator[Any]:
        task = ray.remote(num_cpus=1, num_gpus=self.num_gpus, max_retries=_TRIES - 1)(run_packed)
        room = ray.cluster_resources()
        places = room.get("GPU", 1) / self.num_gpus if self.num_gpus else room.get("CPU", 1)
        at_once = self.num_workers or max(2 * int(places), 1)
        todo = iter(parcels)
        running: list[Any] = []
        try:
            while True:
                while len(running) < at_once and (parcel := next(todo, None)) is not None:
                    running.append(task.remote(parcel))
                if not running:
                    return
                with _sentences(ray):
                    (finished,), running = ray.wait(running, num_returns=1)
                    outcome = ray.get(finished)
                yield unpack_result(outcome)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    @contextmanager
    def _session(self, ray: Any) -> Generator[None]:
        if ray.is_initialized():  # the process that initialised it shuts it down
            yield
            return
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
        if self.address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                "local",
                num_cpus=self.num_workers or os.cpu_count() or 1,
                object_store_memory=_SHARED_MEMORY,
                include_dashboard=False,
                **quiet,
            )
        else:
            try:
                with warnings.catch_warnings(action="ignore"):  # what they say, the error says too
                    ray.init(self.address, **quiet)
            except Exception as error:  # each way of connecting has errors of its own
                raise WorkerError(
                    f"no Ray cluster can be used at '{self.address}': {line_of(error)}. Expected the address "
                    f"of a running one with these versions of ray and Python, like ray://host:10001, and for "
                    f"one that asks for a token RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH set."
                ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise `WorkerError` where nothing listens at `[ray://]HOST:PORT`; Ray itself tries for minutes."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError:
        raise WorkerError(
            f"'{address}' is no address of a Ray cluster; expected one like ray://host:10001."
        ) from None
    if not host or (port is None and place.scheme != "ray"):
        return  # `auto`, or a name that Ray knows
    try:
        socket.create_connection((host, port or _CLIENT_PORT), timeout=_PATIENCE).close()
    except (OSError, UnicodeError) as error:
        raise WorkerError(
            f"nothing listens at '{address}' (tried for {_PATIENCE} seconds at most): {line_of(error)}. "
            f"Expected the address of a running Ray cluster, like ray://host:10001."
        ) from error


@contextmanager
def _sentences(ray: Any) -> Generator[None]:
    """Translate Ray's own errors into one sentence; a job's errors come back in its result."""
    lost = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
    )
    try:
        yield
    except lost as error:
        raise WorkerError(
            f"Ray's workers died {_TRIES} times in a row over the same job (killed, out of memory, or their "
            f"machine is gone?). What is finished is stored; run again to go on, with fewer workers."
        ) from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise WorkerError(
            f"Ray could not run a job: {line_of(error)}. What is finished is stored. Workers need bygones "
            f"and the packages and files that are here; run again to go on."
        ) from error


def _imported() -> Any:
    try:
        # Loaded for `_sentences`, which reads its errors through `ray`.
        import ray.exceptions  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise WorkerError(
            f"jobs on a Ray cluster need ray, which cannot be imported ({error}). Install it with: "
            f"pip install 'bygones[ray]'"
        ) from error
    return ray
