"""Batch normalisation of all lanes in one call.

torch's own rule for vmap multiplies by the layer's weight in passes of its own; here the lanes' channels
stand side by side, [B, W·C, …], and one call of torch's kernel does all of them, weights included.
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
    """`torch.nn.functional.batch_norm` of one lane."""
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
        _, saved_mean, saved_invstd, x = output  # x as the kernel saw it: side by side, copied once
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
        x, *vectors = (_first(a, d, info) for a, d in zip(args[:5], in_dims[:5], strict=True))
        weight, bias, mean, var = (v.reshape(-1) for v in vectors)
        beside = _side_by_side(x)
        y, saved_mean, saved_invstd = torch.native_batch_norm(
            beside, weight, bias, mean, var, True, *args[5:]
        )
        lanes = (info.batch_size, -1)
        out = (_apart(y, x), saved_mean.view(lanes), saved_invstd.view(lanes), _apart(beside, x))
        return out, (0, 0, 0, 0)


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
        raise NotImplementedError("second derivatives of batch normalisation in lanes")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        gradient, x, *vectors = (
            _first(a, d, info) for a, d in zip(args[:7], in_dims[:7], strict=True)
        )
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            _side_by_side(gradient),
            _side_by_side(x),
            *(v.reshape(-1) for v in vectors),
            True,
            args[7],
            [True, True, True],
        )
        lanes = (info.batch_size, -1)
        return (_apart(dx, x), dw.view(lanes), db.view(lanes)), (0, 0, 0)


def _first(tensor: Tensor, dim: int | None, info: Any) -> Tensor:
    """The lanes as the first dimension."""
    if dim is None:
        return tensor.expand(info.batch_size, *tensor.shape)
    return tensor.movedim(dim, 0)


def _side_by_side(x: Tensor) -> Tensor:
    """[W, B, C, …] -> [B, W·C, …]"""
    return x.transpose(0, 1).reshape(x.shape[1], x.shape[0] * x.shape[2], *x.shape[3:])


def _apart(y: Tensor, x: Tensor) -> Tensor:
    """[B, W·C, …] -> [W, B, C, …]"""
    return y.view(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)
