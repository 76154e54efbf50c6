"""Disturbed outputs: change what models return outside of training, to see whether training uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)


class _Disturbed:
    """Hooks that change the outputs of outermost calls, up to the first call with gradients."""

    def __init__(self) -> None:
        self._depth = 0
        self._over = False
        self._before = register_module_forward_pre_hook(self._enter)
        self._after = register_module_forward_hook(self._leave, always_call=True)

    def _enter(self, module: nn.Module, *given: Any) -> None:
        self._over |= self._depth == 0 and torch.is_grad_enabled()
        self._depth += 1

    def _leave(self, module: nn.Module, given: Any, output: Any) -> Any:
        self._depth -= 1
        if self._over and self._depth == 0:
            self._before.remove()
            self._after.remove()
        return None if self._over or self._depth else _changed(output)


def disturb_outputs() -> None:
    """Change the outputs of all models strongly, from now on up to the first call with gradients.

    Only what a model returns is changed, and not what it keeps: a state that it carries is as it was.
    """
    _Disturbed()


def _changed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _disturbed(value) if value.is_floating_point() and value.numel() else value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _changed(item)
        return value
    if type(value) in (list, tuple):
        return type(value)(_changed(item) for item in value)
    return value


def _disturbed(values: Tensor) -> Tensor:
    """Return other values of the same shape, far from these; shares of 1 are other shares of 1.

    x <- x + s·3(1 + |x|),  s = 1, -1, 1, ... along the last axis
    """
    size = values.shape[-1] if values.ndim else 1
    signs = 1.0 - 2.0 * (torch.arange(size, device=values.device) % 2).to(values.dtype)
    if bool((values >= 0).all() and (values <= 1).all()):
        if size == 1:
            return 1 - values
        weights = (1.5 + signs) / (1.5 + signs).sum()
        return values.sum(-1, keepdim=True) * weights
    return values + (signs if values.ndim else signs[0]) * 3 * (1 + values.abs())
