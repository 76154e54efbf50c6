"""Features: the representation of the probe set in one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bygones.core.catalogue import unknown_name
from bygones.core.errors import RecipeError
from bygones.training.probes.base import AbstractProbe, model_of
from bygones.training.recipe import Parts


@dataclass(frozen=True)
class Features(AbstractProbe):
    """The outputs of one layer on the probe set, in evaluation mode: float [N, D].

        φ(x) = output of `layer` while model.eval()(x) is computed,  no gradients

    `layer`: a name of `model.named_modules()`, such as "3" or "encoder.block1"; the output for an input
    is flattened to D numbers. Compare features by the metrics for representations (`cka`, `procrustes`,
    `rsa`), which are invariant to rotations. float64 stays float64; everything else becomes float32.
    Reads through a forward hook, which is removed even if the model raises. Raises `RecipeError` unless
    the layer is called once and returns a tensor with a row for each input.
    """

    layer: str
    kind: ClassVar[Literal["logits", "values"]] = "values"
    headline: ClassVar[str] = "cka"

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.probe_set is None:
            raise RecipeError(
                "the recipe gives no probe_set, so there is nothing to observe a layer on. "
                "Return Parts(…, probe_set=(inputs, …))."
            )
        model = model_of(parts, "model")
        layers = dict(model.named_modules())
        if self.layer not in layers:
            raise unknown_name("layer", self.layer, (name for name in layers if name))
        seen: list[Any] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.append(output.detach().clone() if isinstance(output, Tensor) else output)

        model.eval()
        hook = layers[self.layer].register_forward_hook(keep)
        try:
            with torch.no_grad():
                model(parts.probe_set[0])
        finally:
            hook.remove()
        return self._flatten(seen, len(parts.probe_set[0]))

    def _flatten(self, seen: list[Any], num_inputs: int) -> np.ndarray:
        if len(seen) != 1:
            raise RecipeError(
                f"layer '{self.layer}' was called {len(seen)} times for one prediction, so its output "
                f"is not one representation; name a layer that is called once."
            )
        (output,) = seen
        if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != num_inputs:
            found = (
                list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            )
            raise RecipeError(
                f"layer '{self.layer}' must give one tensor with a row for each of the {num_inputs} "
                f"probe inputs; it gave {found}."
            )
        wide = output if output.dtype == torch.float64 else output.float()
        return wide.cpu().numpy().reshape(num_inputs, -1).copy()
