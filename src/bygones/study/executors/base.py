"""The executor interface: map a function over jobs, in processes here or elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class AbstractExecutor(ABC):
    """Runs jobs and yields their results as they finish, in any order.

    Jobs are independent and may be run again: what they finish lies in the store, and a job that finds
    its work done returns at once. So an executor needs no memory of its own.
    """

    num_workers: int | None = 1  # how many jobs go on at once; None: as many as there is room for

    def get_ready(self) -> None:  # noqa: B027 - most have nothing to begin
        """Start in the background what takes long and needs no jobs, such as worker processes.

        Raises `WorkerError` where it is plain already that no job can run.
        """

    @abstractmethod
    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield results of `function(job)` as they finish. The first error stops the rest, and is raised."""
