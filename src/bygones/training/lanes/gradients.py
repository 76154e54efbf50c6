"""The loss and gradient of all lanes at once: vmap over the lanes, recorded once, then replayed.

    losses, gradients = vmap(grad_and_value(loss(model(inputs), labels)))        one lane each

Recording (`make_fx`) leaves a flat list of operations: what python does in a forward pass is done once and
not again, so a model whose forward pass depends on python state that changes has no lanes; `agreement` in
choosing.py sees that such a model ends elsewhere than single runs.

Dropout keeps each seed's stream: its masks are drawn lane by lane, by torch's own dropout of a tensor of
ones, as it draws them in a single run, and handed in. Any other random draw inside the model is refused by
vmap.
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
from bygones.training.lanes.cuda_graphs import captured
from bygones.training.lanes.graph_passes import simplify
from bygones.training.lanes.stack import NotBatchable

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Mask:
    """One call of dropout: ones laid out in memory like what it acts on in one lane, and its probability."""

    ones: Tensor  # the draws follow memory
    p: float


class _Lanewise(TorchFunctionMode):
    """While a forward pass is recorded: dropout takes its masks from a list, or says which it needs."""

    def __init__(self, given: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.given = None if given is None else list(given)
        self.needed: list[Mask] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.batch_norm and self.given is not None:
            return batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        if self.given is None:
            self.needed.append(Mask(torch.ones_like(input), p))
            return input
        mask = self.given.pop(0)
        return input.mul_(mask) if inplace else input * mask


class Gradients:
    """Losses [W] and gradients of the lanes of a stack, for batches of one shape."""

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
                # Where torch has no rule for an operation it takes the lanes in turn, and warns of the time.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                self.masks = _masks(model, loss, batch)
                self.noise = [_room(mask.ones, len(batch[0])) for mask in self.masks]
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
        twin = copy.deepcopy(model)  # python state that the recording changes is the twin's

        def of_one_lane(
            trained: Tensors, frozen: Tensors, buffers: Tensors, batch: Any, noise: Any
        ) -> Tensor:
            inputs, labels = batch
            with _Lanewise(noise):
                outputs = functional_call(twin, ({**trained, **frozen}, buffers), (inputs,))
                return loss(outputs, labels)

        lanes = vmap(grad_and_value(of_one_lane), randomness="error")

        def flat(*tensors: Tensor) -> list[Tensor]:
            held = tree_unflatten(list(tensors[: len(fixed)]), shape_of_fixed)
            inputs, labels, *noise = tensors[len(fixed) :]
            trained, frozen, buffers = held
            directions, losses = lanes(trained, frozen, buffers, (inputs, labels), noise)
            return [*(directions[name] for name in self._trained), losses]

        fixed, shape_of_fixed = tree_flatten((self._trained, self._frozen, self._buffers))
        others = [*batch, *self.noise]
        # Recording runs the pass, and that must not move the statistics on.
        recorded = make_fx(flat)(*(tensor.clone() for tensor in fixed), *others)
        self._fixed = fixed
        step = simplify(recorded, fixed, others).forward
        return captured(step, fixed, others) if batch[0].is_cuda else step

    def __call__(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensors, Tensor]:
        """Gradients by parameter, and losses: [W]. Statistics of normalisation move on in place."""
        with torch.no_grad():
            *directions, losses = self._replay(*self._fixed, *batch, *self.noise)
        return dict(zip(self._trained, directions, strict=True)), losses

    def draw(self, lane: int) -> None:
        """Draws the masks of one lane from torch's global generator, as in a single run."""
        for mask, room in zip(self.masks, self.noise, strict=True):
            room[lane].copy_(F.dropout(mask.ones, mask.p))


def _masks(
    model: nn.Module, loss: Callable[..., Tensor], batch: tuple[Tensor, Tensor]
) -> list[Mask]:
    """The calls of dropout in one forward pass of one lane, in order."""
    with _Lanewise(None) as mode:
        loss(copy.deepcopy(model)(batch[0][0]), batch[1][0])
    return mode.needed


def _room(ones: Tensor, width: int) -> Tensor:
    """Room for a mask in each lane, laid out like the ones that it is drawn with."""
    whole = ones.new_empty((width, max(ones.numel(), 1)))
    return whole.as_strided((width, *ones.shape), (whole.stride(0), *ones.stride()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:160]
