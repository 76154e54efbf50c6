"""Plain numbers out of a model that is not a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from bygones.core.errors import RecipeError
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Parts


@dataclass(frozen=True)
class Values(AbstractProbe):
    """Outputs of the model in evaluation mode on the probe set, as they are: float64 [N, C].

    For regressions and for the closed-form worlds. `parts.probe_set[0]` are the inputs.
    """

    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.probe_set is None:
            raise RecipeError(
                "the recipe gives no probe_set. Return Parts(…, probe_set=(inputs, …))."
            )
        parts.model.eval()
        with torch.no_grad():
            outputs = parts.model(parts.probe_set[0]).double().cpu().numpy()
        return outputs.reshape(len(outputs), -1).copy()
