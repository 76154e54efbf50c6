"""Values: the outputs of a model that is not a classifier, such as a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from bygones.core.errors import RecipeError
from bygones.training.probes.base import AbstractProbe, model_of
from bygones.training.recipe import Parts


@dataclass(frozen=True)
class Values(AbstractProbe):
    """The model's outputs on the probe set, in evaluation mode: float64 [N, C].

    `parts.probe_set[0]` are the inputs. `of`, `also`: which models, as in `Logits`. Raises `RecipeError` if
    the recipe has no probe set or no such model.
    """

    of: str = "model"
    also: tuple[str, ...] = ()
    kind: ClassVar[Literal["logits", "values"]] = "values"

    def others(self) -> dict[str, AbstractProbe]:
        return {name: Values(name) for name in self.also if name != self.of}

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.probe_set is None:
            raise RecipeError(
                "the recipe gives no probe_set, so there is nothing to observe the function on. "
                "Return Parts(…, probe_set=(inputs, …))."
            )
        module = model_of(parts, self.of)
        module.eval()
        with torch.no_grad():
            outputs = module(parts.probe_set[0]).double().cpu().numpy()
        return outputs.reshape(len(outputs), -1).copy()
