"""Probes: read-only observations of a run between two steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bygones.training.recipe import Parts


@dataclass(frozen=True)
class AbstractProbe(ABC):
    """Base class of probes: a frozen rule that reads a float array [N inputs, C outputs] from the parts.

    `Run.observe` calls it between two steps, restores the modules' `training` flags and the global
    generators afterwards, and checks bit by bit that nothing else changed.
    """

    kind: ClassVar[Literal["logits", "values"]]
    headline: ClassVar[str] = ""  # the metric to report first, if not TV of logits or RMS of values

    @abstractmethod
    def __call__(self, parts: Parts) -> np.ndarray:
        """Return the observed array, float [N, C]. Must not change the parts."""
