"""Probes: read-only observations of a run between two steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from bygones.core.checks import check_fields
from bygones.core.errors import RecipeError
from bygones.training.recipe import Memory, Parts
from bygones.training.served_weights import served


@dataclass(frozen=True)
class AbstractProbe(ABC):
    """Base class of probes: a frozen rule that reads a float array [N inputs, C outputs] from the parts.

    `Run.observe` calls it between two steps, restores the modules' `training` flags and the global
    generators afterwards, and checks bit by bit that nothing else changed.
    """

    kind: ClassVar[Literal["logits", "values"]]
    headline: ClassVar[str] = ""  # the metric to report first, if not TV of logits or RMS of values

    def __post_init__(self) -> None:
        check_fields(self)

    def others(self) -> Mapping[str, AbstractProbe]:
        """Return the probes that read further models beside this one, by the name of the model."""
        return {}

    @abstractmethod
    def __call__(self, parts: Parts) -> np.ndarray:
        """Return the observed array, float [N, C]. Must not change the parts."""


def model_of(parts: Parts, name: str) -> nn.Module:
    """Return a model of a run: "model", "averages", or a module of `Parts.others` by its name.

    It holds the weights that its optimizer serves (`served_weights`). Raises RecipeError where the run has
    none of this name.
    """
    named = {"model": parts.model, "averages": parts.averages, **parts.others}
    found = named.get(name)
    module = found.value if isinstance(found, Memory) else found
    if isinstance(module, nn.Module):
        return served(module, parts.optimizers.values())
    held = [one for one, value in named.items() if isinstance(value, nn.Module)]
    raise RecipeError(
        f"the probe observes '{name}', which this recipe does not have as a model. It has: "
        f"{', '.join(held)}. Name a module in Parts(…, averages=…) or Parts(…, others=…)."
    )
