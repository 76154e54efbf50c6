"""A quantity of dynamics: it designs the arms that it needs, and is estimated from their outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import xarray as xr

from bygones.study.design import Study
from bygones.training.recipe import Recipe


@dataclass(frozen=True)
class AbstractQuantity(ABC):
    """One quantity that says what kind of memory it is. Its fields are its settings.

    To add a quantity, implement the two methods in a file, add a line to `QUANTITIES`, and give its test a
    world in which the exact answer is known.
    """

    @abstractmethod
    def design(self, recipe: Recipe, fork_at: int, seeds: Iterable[int]) -> Study:
        """Return the study whose outcomes the quantity is estimated from."""

    @abstractmethod
    def estimate(self, outcomes: xr.Dataset) -> Any:
        """Estimate the quantity from the outcomes of its study, with intervals over seeds.

        Returns an `Estimate`, or a record of several whose `str` is a sentence.
        """
