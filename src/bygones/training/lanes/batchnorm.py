"""Batched batch normalization: the layers of all lanes in one kernel call.

torch's own vmap rule multiplies by the layer's weight in separate passes. Here the channels of all lanes
are concatenated, [B, W·C, …], so that one kernel call normalizes and scales all of them.
Shapes: W lanes, B examples, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute `torch.nn.functional.batch_norm` of one lane, with a vmap rule in training mode."""
    if not training or weight is None or bias is None or running_mean is None:
        return torch.batch_norm(
            input, weight, bias, running_mean, running_var, training, momentum, eps, False
        )
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)[0]


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        momentum: float,
        eps: float,
    ) -> Any:
        return *torch.native_batch_norm(x, weight, bias, mean, var, True, momentum, eps), x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, weight, _, mean, var, _, eps = inputs
        _, saved_mean, saved_invstd, x = output  # x as laid out for the kernel, copied once
        ctx.mark_non_differentiable(saved_mean, saved_invstd, x)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, mean, var, saved_mean, saved_invstd)
        ctx.eps = eps

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, var, saved_mean, saved_invstd = ctx.saved_tensors
        dx, dw, db = _Backward.apply(
            gradients[0], x, weight, mean, var, saved_mean, saved_invstd, ctx.eps
        )
        return dx, dw, db, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        x, *vectors = (_lanes_first(a, d, info) for a, d in zip(args[:5], in_dims[:5], strict=True))
        weight, bias, mean, var = (v.reshape(-1) for v in vectors)
        joined = _concat_channels(x)
        y, saved_mean, saved_invstd = torch.native_batch_norm(
            joined, weight, bias, mean, var, True, *args[5:]
        )
        lanes = (info.batch_size, -1)
        out = _split_channels(y, x), saved_mean.view(lanes), saved_invstd.view(lanes)
        return (*out, _split_channels(joined, x)), (0, 0, 0, 0)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        var: Tensor,
        saved_mean: Tensor,
        saved_invstd: Tensor,
        eps: float,
    ) -> Any:
        return torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, saved_mean, saved_invstd, True, eps, [True, True, True]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError(
            "batch normalization in lanes has no second derivatives; train the seeds one by one, with 1 lane."
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        gradient, x, *vectors = (
            _lanes_first(a, d, info) for a, d in zip(args[:7], in_dims[:7], strict=True)
        )
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            _concat_channels(gradient),
            _concat_channels(x),
            *(v.reshape(-1) for v in vectors),
            True,
            args[7],
            [True, True, True],
        )
        lanes = (info.batch_size, -1)
        return (_split_channels(dx, x), dw.view(lanes), db.view(lanes)), (0, 0, 0)


def _lanes_first(tensor: Tensor, dim: int | None, info: Any) -> Tensor:
    """Move the lanes to the first dimension."""
    if dim is None:
        return tensor.expand(info.batch_size, *tensor.shape)
    return tensor.movedim(dim, 0)


def _concat_channels(x: Tensor) -> Tensor:
    """Concatenate the lanes' channels: [W, B, C, …] -> [B, W·C, …]."""
    return x.transpose(0, 1).reshape(x.shape[1], x.shape[0] * x.shape[2], *x.shape[3:])


def _split_channels(y: Tensor, x: Tensor) -> Tensor:
    """Split the channels by lane, to the shape of x: [B, W·C, …] -> [W, B, C, …]."""
    return y.view(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)
