"""Process pool: one worker process with one thread for each core of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

from bygones.core.errors import WorkerError
from bygones.study.executors.base import AbstractExecutor
from bygones.study.executors.transport import pack_job, run_packed, unpack_result

_PATIENCE = 3  # how often a pool may lose a worker while not one job gets finished
# What takes long to import: a job itself, with torch, and what torch and sklearn import on first use.
_TAKES_LONG = ["bygones.study.segment", "torch._inductor.config", "scipy.stats"]
_START = "forkserver" if sys.platform == "linux" else "spawn"


class Processes(AbstractExecutor):
    """`num_workers` processes with one torch thread each; a worker that dies is replaced.

    A fork of a process that has used torch's threads may hang. So on Linux workers are forks of a server
    that has imported torch, once for all of them, and done nothing else; elsewhere they are started afresh.
    Either way, a program that uses this must guard its own start with `if __name__ == "__main__":`.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        self.num_workers = self._most = num_workers or os.cpu_count() or 1

    def get_ready(self) -> None:
        if _START == "forkserver":
            forkserver.set_forkserver_preload(_TAKES_LONG)
            with _signals_wait():
                forkserver.ensure_running()

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        todo = {index: pack_job(function, job) for index, job in enumerate(jobs)}
        setbacks = 0
        while todo:
            self.get_ready()
            pool = ProcessPoolExecutor(
                min(self._most, len(todo)),
                multiprocessing.get_context(_START),
                initializer=_prepare_worker,
                initargs=(dict(os.environ),),
            )
            try:
                with _signals_wait():
                    futures = {
                        pool.submit(run_packed, parcel): index for index, parcel in todo.items()
                    }
                for future in _as_they_finish(futures):
                    result = unpack_result(future.result())
                    del todo[futures[future]]
                    setbacks = 0
                    yield result
            except BrokenProcessPool:
                setbacks += 1
                if setbacks >= _PATIENCE:
                    raise WorkerError(
                        f"worker processes died {setbacks} times in a row without finishing a job (killed, "
                        f"or out of memory?). What is finished is stored. Try fewer workers or lanes."
                    ) from None
            finally:
                with _signals_wait():
                    _stop(pool)


def _as_they_finish(futures: dict[Future[Any], int]) -> Iterator[Future[Any]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        # Finished jobs first: if the pool broke, they count all the same.
        yield from sorted(done, key=lambda f: isinstance(f.exception(), BrokenProcessPool))


def _stop(pool: ProcessPoolExecutor) -> None:
    workers = list((pool._processes or {}).values())  # 3.14 has terminate_workers; until then
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


@contextmanager
def _signals_wait() -> Generator[None]:
    """Let Ctrl-C and SIGTERM wait while workers are started or ended, so that each is known and ended.

    Workers inherit that Ctrl-C is blocked, so that it kills none as it starts. Here that is not enough:
    where other threads do not block it, Python hears of it through them.
    """
    resource_tracker.ensure_running()  # some versions let Ctrl-C through again once they have begun it
    came: list[int] = []
    heard = signal.SIGINT, signal.SIGTERM
    mine = threading.current_thread() is threading.main_thread()
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in heard
        if mine and signal.getsignal(number) is not None
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _prepare_worker(environment: dict[str, str]) -> None:
    """Initialise a worker: it ignores Ctrl-C, writes nothing to standard output, and dies with its parent.

    Its environment is the parent's of now, and not of when the server that forked it was begun.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
