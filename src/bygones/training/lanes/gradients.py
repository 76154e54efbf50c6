"""Batched gradients: vmap of the gradient over lanes, traced once by `make_fx`, then replayed.

    losses, gradients = vmap(grad_and_value(loss(model(inputs), labels)))        over the lanes

The trace is a flat list of operations: the Python code of a forward pass runs once and not again. So a
model whose forward pass depends on changing Python state cannot have lanes; the agreement test in
lane_width.py detects such a model, since its lanes end elsewhere than single runs.

Dropout keeps the random stream of each seed: the masks are drawn lane by lane, by torch's own dropout of
a tensor of ones, as in a single run, and are passed in. vmap refuses any other random draw in the model.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from bygones.training.lanes.batchnorm import batch_norm
from bygones.training.lanes.cuda_graphs import capture_graph
from bygones.training.lanes.graph_passes import simplify
from bygones.training.lanes.stack import NotBatchable

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Mask:
    """One call of dropout: ones with the memory layout of its input in one lane, and its probability."""

    ones: Tensor  # random numbers are drawn in memory order, so the layout matters
    p: float


class _DropoutFromMasks(TorchFunctionMode):
    """Replaces dropout within a forward pass: by given masks, or, without any, notes which are needed."""

    def __init__(self, masks: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.masks = None if masks is None else list(masks)
        self.needed: list[Mask] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.batch_norm and self.masks is not None:
            return batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        if self.masks is None:
            self.needed.append(Mask(torch.ones_like(input), p))
            return input
        mask = self.masks.pop(0)
        return input.mul_(mask) if inplace else input * mask


class Gradients:
    """The batched gradient of a stack, for batches of one shape. Call it with a batch.

    `masks`: the dropout calls of one lane. `noise`: the masks of all lanes, filled by `draw`. Raises
    `NotBatchable` if torch cannot batch the forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        parameters: Tensors,
        buffers: Tensors,
        batch: tuple[Tensor, Tensor],
    ) -> None:
        self._trained = {n: p.detach() for n, p in parameters.items() if p.requires_grad}
        self._frozen = {n: p.detach() for n, p in parameters.items() if not p.requires_grad}
        self._buffers = buffers
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # For an operation without a vmap rule, torch loops over the lanes, and warns of that.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                self.masks = _find_masks(model, loss, batch)
                self.noise = [_allocate_noise(mask.ones, len(batch[0])) for mask in self.masks]
                self._replay = self._record(model, loss, batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise NotBatchable(
                f"torch cannot batch its forward pass ({type(error).__name__}: {_first_line(error)})"
            ) from error

    def _record(
        self, model: nn.Module, loss: Callable[..., Tensor], batch: tuple[Tensor, Tensor]
    ) -> Any:
        """Trace the step of all lanes, simplify it, and on a GPU capture it as a CUDA graph."""
        traced = copy.deepcopy(model)  # tracing may change the Python state of the model

        def loss_of_lane(
            trained: Tensors, frozen: Tensors, buffers: Tensors, batch: Any, noise: Any
        ) -> Tensor:
            inputs, labels = batch
            with _DropoutFromMasks(noise):
                outputs = functional_call(traced, ({**trained, **frozen}, buffers), (inputs,))
                return loss(outputs, labels)

        lanes = vmap(grad_and_value(loss_of_lane), randomness="error")

        def step_of_flat(*tensors: Tensor) -> list[Tensor]:
            nested = tree_unflatten(list(tensors[: len(fixed)]), shape_of_fixed)
            inputs, labels, *noise = tensors[len(fixed) :]
            trained, frozen, buffers = nested
            gradients, losses = lanes(trained, frozen, buffers, (inputs, labels), noise)
            return [*(gradients[name] for name in self._trained), losses]

        fixed, shape_of_fixed = tree_flatten((self._trained, self._frozen, self._buffers))
        others = [*batch, *self.noise]
        # Tracing runs the pass. Clones keep it from updating the running statistics.
        recorded = make_fx(step_of_flat)(*(tensor.clone() for tensor in fixed), *others)
        self._fixed = fixed
        step = simplify(recorded, fixed, others).forward
        return capture_graph(step, fixed, others) if batch[0].is_cuda else step

    def __call__(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensors, Tensor]:
        """Return gradients by parameter, and losses [W]; update the running statistics in place."""
        with torch.no_grad():
            *gradients, losses = self._replay(*self._fixed, *batch, *self.noise)
        return dict(zip(self._trained, gradients, strict=True)), losses

    def draw(self, lane: int) -> None:
        """Draw the masks of one lane from torch's global generator, as in a single run."""
        for mask, noise in zip(self.masks, self.noise, strict=True):
            noise[lane].copy_(F.dropout(mask.ones, mask.p))


def _find_masks(
    model: nn.Module, loss: Callable[..., Tensor], batch: tuple[Tensor, Tensor]
) -> list[Mask]:
    """List the calls of dropout in a forward pass of one lane, in order."""
    with _DropoutFromMasks(None) as mode:
        loss(copy.deepcopy(model)(batch[0][0]), batch[1][0])
    return mode.needed


def _allocate_noise(ones: Tensor, width: int) -> Tensor:
    """Allocate a mask for each lane: [W, *shape], each lane with the memory layout of `ones`."""
    flat = ones.new_empty((width, max(ones.numel(), 1)))
    return flat.as_strided((width, *ones.shape), (flat.stride(0), *ones.stride()))


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut to 160 characters."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:160]
