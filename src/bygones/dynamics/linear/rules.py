"""Derivatives of operations: the function that an in-place operation computes, and what torch leaves out.

An operation not named in `RULES` is repeated as it is, or as the function that it computes in place. A rule
takes the operation's arguments and returns its outputs; then, for `also_writes`, the new values of those
arguments that the operation changes without saying so in its schema.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

Operation = Any  # torch._ops.OpOverload, whose attributes torch does not declare
Rule = Callable[..., Any]

aten: Any = torch.ops.aten


@cache
def as_function(func: Operation) -> Rule | None:
    """Return what an operation computes without changing its arguments; None if torch has no such function.

    >>> print(as_function(aten.add_.Tensor))
    aten.add.Tensor
    """
    if "::_foreach_" in func._schema.name:
        return _one_by_one(func)
    if not func._schema.is_mutable:
        return func
    name, overload = func._schema.name.split("::")[-1], func._overloadname
    if name.endswith("_"):
        packet = getattr(aten, name[:-1], None)
        return None if packet is None else getattr(packet, overload, packet)
    if overload == "out" or overload.endswith("_out"):
        packet = getattr(aten, name)
        return lambda *args, out=None, **kwargs: packet(*args, **kwargs)
    return None


def _one_by_one(func: Operation) -> Rule | None:
    """Return an operation on lists as one on each tensor: torch differentiates only some of the former."""
    name = func._schema.name.partition("_foreach_")[2].rstrip("_")
    function = _FOREACH.get(name, getattr(aten, name, None))
    if function is None:
        return None
    kinds = [str(argument.type) for argument in func._schema.arguments]

    def act(*args: Any, **kwargs: Any) -> list[Any]:
        is_list = [kind.startswith("List") for kind in kinds[: len(args)]]
        length = next(len(arg) for arg, many in zip(args, is_list, strict=True) if many)
        return [
            function(
                *(arg[i] if many else arg for arg, many in zip(args, is_list, strict=True)),
                **kwargs,
            )
            for i in range(length)
        ]

    return act


@cache
def is_drawn(func: Operation) -> bool:
    """Return True if an operation's values come from a generator or from nowhere: they are constant."""
    return torch.Tag.nondeterministic_seeded in func.tags or func in _CONSTANT


_CONSTANT = {
    aten.empty_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_empty.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty_strided.default,
}


def _copied(target: Tensor, value: Tensor, non_blocking: bool = False) -> Tensor:
    return value.to(target.dtype).expand(target.shape)


def _zeroed(target: Tensor) -> Tensor:
    return torch.zeros_like(target)


def _filled(target: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(target.dtype).expand(target.shape)
    return torch.full_like(target, value)


def root(x: Tensor) -> Tensor:
    """Take square roots, with the derivative 0 at 0, where it is infinite.

    Adam divides by sqrt(v) + eps. Where v = 0, the gradients so far are exactly 0 (a unit that is off, a
    row of an embedding that is not used); there m = 0 too, and 0/eps does not depend on v.
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), torch.zeros_like(x))


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    """Normalize; in training, update the running statistics r <- (1 − m)·r + m·(the batch's).

    In evaluation the outputs depend on the running statistics, of which torch takes no derivative.
    """
    if not training:
        assert mean is not None
        assert var is not None
        y = (x - _along(mean, x)) * _along((var + eps).rsqrt(), x)
        y = y if weight is None else y * _along(weight, x)
        y = y if bias is None else y + _along(bias, x)
        empty = x.new_empty(0).detach()
        return [y, empty, empty, mean, var]
    kept = [None if one is None else one.detach().clone() for one in (mean, var)]
    outputs = aten.native_batch_norm(x, weight, bias, *kept, training, momentum, eps)
    if mean is None or var is None:
        return [*outputs, mean, var]
    axes = _other_axes(x)
    return [
        *outputs,
        torch.lerp(mean, x.mean(axes).to(mean.dtype), momentum),
        torch.lerp(var, x.var(axes, unbiased=True).to(var.dtype), momentum),
    ]


batch_norm.also_writes = (3, 4)  # type: ignore[attr-defined]


def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    batch_mean: Tensor | None,
    batch_scale: Tensor | None,
    training: bool,
    eps: float,
    wanted: list[bool],
) -> list[Tensor | None]:
    """Pull a gradient back through a normalization, by torch's own rule where that has a derivative."""
    if training:
        kept = [None if one is None else one.detach() for one in (mean, var)]
        found = aten.native_batch_norm_backward(
            gradient, x, weight, *kept, batch_mean, batch_scale, training, eps, wanted
        )
        return list(found)
    assert mean is not None
    assert var is not None
    scale, axes = _along((var + eps).rsqrt(), x), _other_axes(x)
    scaled = gradient * scale
    inner = scaled if weight is None else scaled * _along(weight, x)
    each = [inner, (scaled * (x - _along(mean, x))).sum(axes), gradient.sum(axes)]
    return [one if want else None for one, want in zip(each, wanted, strict=True)]


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """Shape one number a channel, [C], to be combined with [N, C, …]."""
    return channels.reshape(1, -1, *(1 for _ in range(x.ndim - 2)))


def _other_axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


_FOREACH: dict[str, Rule] = {
    "addcmul": lambda x, y, z, value=1: torch.addcmul(x, y, z, value=value),
    "addcdiv": lambda x, y, z, value=1: torch.addcdiv(x, y, z, value=value),
    "norm": torch.linalg.vector_norm,
    "sqrt": root,
    "zero": _zeroed,
    "copy": _copied,
}

RULES: dict[Operation, Rule] = {
    aten.copy_.default: _copied,
    aten.zero_.default: _zeroed,
    aten.fill_.Scalar: _filled,
    aten.fill_.Tensor: _filled,
    aten.sqrt.default: root,
    aten.sqrt_.default: root,
    aten.native_batch_norm.default: batch_norm,
    aten.native_batch_norm_backward.default: batch_norm_backward,
}
