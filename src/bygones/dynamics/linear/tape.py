"""Algorithmic differentiation of code that was not written for it: shadow every tensor operation.

A training step updates parameters in place, without gradients, from gradients that autograd has already
computed, so autograd alone sees none of its derivative. A `Tape` runs the code as it is and repeats each
operation that touches tracked memory on *shadows*, tensors with autograd switched on. What it repeats are
the operations below autograd (the forward pass, the backward pass, the optimizer's update), so that
`no_grad`, `detach` and `.data` are what they are for the state: a copy.

    real:    p.add_(g, alpha=-lr)           in place, no gradient
    shadow:  p' = add(p, g, alpha=-lr)      a new tensor, with a gradient

Memory is tracked by storage: a tensor's shadow is that of its storage, seen through its own shape and
strides. Views, saved tensors and the clones of a snapshot need no rules. Griewank & Walther, Evaluating
Derivatives (2008), chapter 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import enable_reentrant_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from bygones.dynamics.linear.rules import RULES, Operation, Rule, as_function, is_drawn


class Tape(TorchDispatchMode):
    """Repeats on shadows what happens within its `with` block to the tensors that it tracks.

    `dropped`: what the block did that has no derivative here, in words; what came of it is constant.
    `numbers_taken`: how often a number was taken out of a tracked tensor into Python, and so dropped.

    >>> w = torch.ones(2)
    >>> with Tape() as tape, torch.no_grad():
    ...     start = tape.track(w)
    ...     w += 3 * w.detach() ** 2
    >>> torch.autograd.grad(tape.shadow(w).sum(), start)
    (tensor([7., 7.]),)
    """

    def __init__(self, rules: Mapping[Operation, Rule] = RULES) -> None:
        super().__init__()
        self._rules = rules
        self.dropped: list[str] = []
        self.numbers_taken = 0  # out of tracked tensors, into Python
        # By storage: the tensor that wrote it, kept alive so that no other takes its address; its shadow.
        self._shadows: dict[int, tuple[Tensor, Tensor]] = {}

    def track(self, tensor: Tensor, direction: Tensor | None = None) -> Tensor:
        """Follow a tensor from here on; return its shadow, a leaf that can be differentiated by.

        `direction`: its tangent, where the block is differentiated forward, in a `forward_ad.dual_level`.
        """
        shadow = _with_strides(tensor.detach().clone(), tensor).requires_grad_()
        moving = shadow if direction is None else forward_ad.make_dual(shadow, direction)
        self._shadows[_address(tensor)] = tensor.detach(), moving
        return shadow

    def shadow(self, tensor: Tensor) -> Tensor | None:
        """Return the shadow of a tensor; None if it depends on nothing that is tracked."""
        known = self._shadows.get(_address(tensor))
        if known is None:
            return None
        real, shadow = known
        if _same_place(real, tensor):
            return shadow
        place = tensor.storage_offset() - real.storage_offset() + shadow.storage_offset()
        return shadow.as_strided(tensor.shape, tensor.stride(), place)

    def __torch_dispatch__(
        self, func: Operation, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        tensors = [*_flat(args), *_flat(kwargs.values())]
        if not any(_address(t) in self._shadows for t in tensors):
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            self.numbers_taken += 1
            return func(*args, **kwargs)
        with _autograd():
            new = self._differentiate(func, args, kwargs, tensors)
        real = func(*args, **kwargs)
        for place, tensor in enumerate(_written(func, real, args, kwargs, self._rules)):
            if tensor.is_floating_point():
                self._write(tensor, None if new is None else new[place])
        return real

    def _differentiate(
        self, func: Operation, args: Any, kwargs: Any, tensors: Sequence[Tensor]
    ) -> list[Any] | None:
        """Repeat an operation on shadows; return what it gives, or None if that is constant."""
        if is_drawn(func):
            return None
        seen = {id(t): shadow for t in tensors if (shadow := self.shadow(t)) is not None}
        if not any(shadow.requires_grad for shadow in seen.values()):
            return None
        rule = self._rules.get(func)
        function = rule or as_function(func)
        given: list[Any] = []
        if function is not None:
            given_args = [_seen_as(arg, seen) for arg in args]
            given_kwargs = {name: _seen_as(arg, seen) for name, arg in kwargs.items()}
            given = list(_flat([function(*given_args, **given_kwargs)]))
        floats = [one for one in given if one.is_floating_point()]
        if rule is None and (function is None or (floats and not any(map(_leads_back, floats)))):
            self._note(f"{func} has no derivative")
            return None
        return given

    def _write(self, tensor: Tensor, shadow: Tensor | None) -> None:
        """Set the shadow of what a tensor covers of its storage; None: what was written is constant."""
        known = self._shadows.get(_address(tensor))
        if known is None and (shadow is None or not shadow.requires_grad):
            return
        if shadow is not None and shadow.stride() == tensor.stride():
            if not _is_part(tensor) if known is None else _same_place(known[0], tensor):
                self._shadows[_address(tensor)] = tensor.detach(), shadow
                return
        with _autograd():
            self._write_part(tensor, shadow, known)

    def _write_part(
        self, tensor: Tensor, shadow: Tensor | None, known: tuple[Tensor, Tensor] | None
    ) -> None:
        value = tensor.detach().clone() if shadow is None else shadow
        whole = tensor.detach()
        if known is not None and not _same_place(known[0], tensor):
            whole, old = known
            place = tensor.storage_offset() - whole.storage_offset() + old.storage_offset()
            value = _inserted(old, value, tensor, place)
        elif known is None and _is_part(tensor):
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            whole = tensor.detach().as_strided((size,), (1,), 0)
            value = _inserted(whole, value, tensor, tensor.storage_offset())
        self._shadows[_address(tensor)] = whole, _with_strides(value, whole)

    def _note(self, what: str) -> None:
        if what not in self.dropped:
            self.dropped.append(what)


_PYTHON = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)


@contextmanager
def _autograd() -> Iterator[None]:
    """Switch autograd on within `__torch_dispatch__`, where it is off."""
    with (
        enable_reentrant_dispatch(),
        torch._C._ExcludeDispatchKeyGuard(_PYTHON),
        torch.enable_grad(),
    ):
        yield


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same_place(one: Tensor, other: Tensor) -> bool:
    return (
        one.storage_offset() == other.storage_offset()
        and one.shape == other.shape
        and one.stride() == other.stride()
    )


def _leads_back(tensor: Tensor) -> bool:
    """Return True if torch can differentiate a tensor by what it was made of."""
    return tensor.requires_grad and "NotImplemented" not in type(tensor.grad_fn).__name__


def _is_part(tensor: Tensor) -> bool:
    """Return True if a tensor covers only a part of its storage."""
    return tensor.numel() * tensor.element_size() < tensor.untyped_storage().nbytes()


def _inserted(whole: Tensor, value: Tensor, like: Tensor, place: Any) -> Tensor:
    """Copy a tensor with a part replaced: the part that has the shape and strides of another, at a place.

    torch's `as_strided_scatter` does this too, but its derivative by the whole is wrong (torch 2.13).
    """
    copied = _with_strides(whole.clone(), whole)
    copied.as_strided(like.shape, like.stride(), place - whole.storage_offset()).copy_(value)
    return copied


def _with_strides(value: Tensor, like: Tensor) -> Tensor:
    """Lay a tensor out as another one is."""
    if value.stride() == like.stride():
        return value
    laid = torch.empty_strided(like.shape, like.stride(), dtype=value.dtype, device=value.device)
    return laid.copy_(value)


def _flat(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments or outputs, of which some may be lists of tensors."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _flat(value)


def _seen_as(value: Any, seen: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return seen.get(id(value), value)
    if isinstance(value, list | tuple):
        return type(value)(_seen_as(item, seen) for item in value)
    return value


def _written(
    func: Operation, real: Any, args: Any, kwargs: Any, rules: Mapping[Operation, Rule]
) -> list[Tensor]:
    """List the tensors that an operation wrote: its outputs, or the arguments that it changes."""
    if not func._schema.is_mutable:
        extra = getattr(rules.get(func), "also_writes", ())
        return [*_flat([real]), *(args[place] for place in extra)]
    return list(
        _flat(
            args[place] if place < len(args) else kwargs.get(name)
            for place, name in _changed_arguments(func)
        )
    )


@cache
def _changed_arguments(func: Operation) -> list[tuple[int, str]]:
    """List the places and names of the arguments that an operation changes in place."""
    return [
        (place, argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
