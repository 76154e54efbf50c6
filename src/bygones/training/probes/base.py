"""What a probe is: something that looks at a run between two steps and leaves no trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bygones.training.recipe import Parts


@dataclass(frozen=True)
class AbstractProbe(ABC):
    """A frozen rule that reads an array off the parts: float [num_inputs N, num_outputs C].

    The run calls it between two steps, with every module's `training` flag and every global generator
    kept safe, and checks by digest that nothing else was changed.
    """

    kind: ClassVar[Literal["logits", "values"]]
    headline: ClassVar[str] = ""  # the distance to lead with, if not TV of logits or RMS of values

    @abstractmethod
    def __call__(self, parts: Parts) -> np.ndarray:
        """What is observed of the function at this boundary."""
