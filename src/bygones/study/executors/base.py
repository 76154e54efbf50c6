"""What an executor is: something that maps a function over jobs, somewhere."""

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
        """Begins in the background what takes long and needs no jobs; what is done meanwhile hides it."""

    @abstractmethod
    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Results of `function(job)`, as they come. The first error stops the rest and is raised."""
