"""Check what a recipe returns: each of the parts has to be of the kind that the training loop calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.core.errors import RecipeError
from bygones.core.text import show
from bygones.training.orders.base import AbstractOrder

if TYPE_CHECKING:
    from bygones.training.recipe import Parts


def check_parts(parts: Parts) -> None:
    """Raise `RecipeError` for the first part that cannot be what it is given as."""
    _check(parts.model, "model", _is(nn.Module), "a torch module")
    _check(
        parts.optimizer,
        "optimizer",
        _one_or_named(_is(Optimizer)),
        "a torch optimizer, or several by name",
    )
    _check(
        parts.order,
        "order",
        _is(AbstractOrder),
        "an order, like Reshuffle(num_examples, batch_size)",
    )
    _check(
        parts.scheduler,
        "scheduler",
        _one_or_named(_has("step"), or_none=True),
        "a scheduler, or several by name",
    )
    _check(parts.averages, "averages", _has("update_parameters", or_none=True), "an AveragedModel")
    _check(parts.others, "others", _is_named, "a dict from names to what has state")
    for name in ("loss", "train_step"):
        _check(getattr(parts, name), name, callable, "a function")
    if parts.augment is not None:
        _check(parts.augment, "augment", callable, "a function of a batch and a generator")
    _check_data(parts)
    _check_probe_set(parts)


def _check(value: Any, name: str, is_right: Callable[[Any], bool], expected: str) -> None:
    if not is_right(value):
        found = f"the class {value.__name__} itself" if isinstance(value, type) else show(value)
        raise RecipeError(f"Parts({name}=…) must be {expected}; got {found}.")


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _has(name: str, *, or_none: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return (or_none and value is None) or (
            callable(getattr(value, name, None)) and not isinstance(value, type)
        )

    return check


def _one_or_named(is_one: Callable[[Any], bool], *, or_none: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if _is_named(value):
            return all(map(is_one, value.values())) and (or_none or len(value) > 0)
        return (or_none and value is None) or is_one(value)

    return check


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _check_data(parts: Parts) -> None:
    """Check that there are as many examples as the order draws from, where that can be counted."""
    data = parts.data
    if isinstance(data, tuple):
        if not data or not all(isinstance(one, Tensor) and one.ndim > 0 for one in data):
            raise RecipeError(
                f"Parts(data=…) must be tensors [num_examples, …], or a dataset; got {show(data)}."
            )
        sizes = sorted({len(one) for one in data})
        if len(sizes) > 1:
            raise RecipeError(
                f"the tensors of Parts(data=…) must have equally many examples; got {sizes}."
            )
    elif not callable(getattr(data, "__getitem__", None)) or isinstance(data, type | str | bytes):
        raise RecipeError(f"Parts(data=…) must be tensors, or a dataset; got {show(data)}.")
    num = (
        len(data[0]) if isinstance(data, tuple) else len(data) if hasattr(data, "__len__") else None
    )
    if num is not None and parts.order.num_examples > num:
        raise RecipeError(
            f"the order draws from {parts.order.num_examples} examples, and Parts(data=…) has {num}."
        )


def _check_probe_set(parts: Parts) -> None:
    given = parts.probe_set
    if given is None:
        return
    if not isinstance(given, tuple | list) or not given:
        raise RecipeError(
            f"Parts(probe_set=…) must be a pair of tensors, inputs and labels; got {show(given)}."
        )
    inputs, *labels = given
    if isinstance(inputs, Tensor):
        if inputs.ndim == 0 or len(inputs) == 0:
            raise RecipeError("Parts(probe_set=…) has no inputs; it needs at least one.")
        sizes = [list(one.shape) for one in labels if isinstance(one, Tensor)]
        # A model of sequences predicts at every position: as many labels for each input.
        if any(not size or not size[0] or size[0] % len(inputs) for size in sizes):
            raise RecipeError(
                f"Parts(probe_set=…) must have a label for each input, or equally many for each; "
                f"got labels of shape {sizes[0]} for {len(inputs)} inputs."
            )
    images = parts.probe_images
    if images is not None and not (isinstance(images, Tensor) and images.ndim == 3):
        raise RecipeError(
            f"Parts(probe_images=…) must be a tensor [inputs, height, width]; got {show(images)}."
        )


def class_labels(parts: Parts, num_classes: int) -> np.ndarray:
    """Return the labels of the probe set, int64 [inputs]. Raises `RecipeError` for one that is no class."""
    assert parts.probe_set is not None
    given: Any = parts.probe_set[1] if len(parts.probe_set) > 1 else None
    if not isinstance(given, Tensor) or given.ndim != 1 or given.is_floating_point():
        raise RecipeError(
            "the labels of Parts(probe_set=(inputs, labels)) must be whole numbers, one for each input, "
            f"since Logits() reads a classifier; got {show(given)}. Of another model, observe Values()."
        )
    labels = given.cpu().numpy().astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise RecipeError(
            f"the label {wrong[0]} of Parts(probe_set=…) is no class: the model has {num_classes} outputs, "
            f"so labels are 0 to {num_classes - 1}."
        )
    return labels
