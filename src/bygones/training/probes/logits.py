"""Logits: a classifier's outputs on the probe set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from bygones.core.errors import RecipeError
from bygones.training.probes.base import AbstractProbe, model_of
from bygones.training.recipe import Parts


@dataclass(frozen=True)
class Logits(AbstractProbe):
    """The logits on `parts.probe_set`, in evaluation mode: float32 [N, C].

        f(x) = model.eval()(x),  no gradients       p(y|x) = softmax(f(x))

    `of`: "model", "averages", or the name of a module in `Parts.others`, a teacher say. `also`: further
    models that are observed beside it, by the same names. Raises `RecipeError` if the recipe has no probe
    set or no such model.
    """

    of: str = "model"
    also: tuple[str, ...] = ()
    kind: ClassVar[Literal["logits", "values"]] = "logits"

    def others(self) -> dict[str, AbstractProbe]:
        return {name: Logits(name) for name in self.also if name != self.of}

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.probe_set is None:
            raise RecipeError(
                "the recipe gives no probe_set, so there is nothing to observe the function on. "
                "Return Parts(…, probe_set=(inputs, labels))."
            )
        module = model_of(parts, self.of)
        module.eval()
        with torch.no_grad():
            return module(parts.probe_set[0]).float().cpu().numpy().copy()
