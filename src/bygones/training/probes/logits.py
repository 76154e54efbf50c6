"""Logits: a classifier's outputs on the probe set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from bygones.core.errors import RecipeError
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Parts


@dataclass(frozen=True)
class Logits(AbstractProbe):
    """The logits on `parts.probe_set`, in evaluation mode: float32 [N, C].

        f(x) = model.eval()(x),  no gradients       p(y|x) = softmax(f(x))

    `of`: "model", or "averages" to observe the averaged weights instead. Raises `RecipeError` if the
    recipe has no probe set or no averages.
    """

    of: str = "model"
    kind: ClassVar[Literal["logits", "values"]] = "logits"

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.probe_set is None:
            raise RecipeError(
                "the recipe gives no probe_set, so there is nothing to observe the function on. "
                "Return Parts(…, probe_set=(inputs, labels))."
            )
        module = parts.averages if self.of == "averages" else parts.model
        if module is None:
            raise RecipeError(
                f"the probe observes '{self.of}', which this recipe does not have. Return "
                f"Parts(…, averages=…), or observe 'model'."
            )
        module.eval()
        with torch.no_grad():
            return module(parts.probe_set[0]).float().cpu().numpy().copy()
