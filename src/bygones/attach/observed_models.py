"""Observed models: every model of a script that is alive beside the trained one, and its outputs.

    averages and teachers   modules of the trained one's kind and shapes, called in its place
    weights in variables    a dict of tensors by the names of the trained parameters, or a list in their
                            order, such as an EMA that the script swaps in to evaluate: swapped in here too

Tensors with the names and shapes of the weights may be something else, a velocity or a Fisher information.
They count as a model's weights if they point where today's do: if the cosine of the two is above 0.5, over
the matrices among them (gains of normalising layers, all near 1, would agree with anything positive).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bygones.attach.live_run import Live
from bygones.attach.probe_inputs import Inputs, observe
from bygones.attach.sources.plain_data import is_container
from bygones.attach.sources.variables import ScriptVariables

_LEAST_COSINE = 0.5
_LAST_KEY = re.compile(r"^(?P<owner>.*)\[(?P<key>[^\[\]]+)\]$")
Swap = Sequence[tuple[Tensor, Tensor]]  # a trained tensor, and what takes its place


def observe_models(
    inputs: Inputs, live: Live, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the outputs of the trained model (""), and of each other model that is alive, float [N, C].

    `names`: of the other models that are wanted; one that is not there, or whose outputs have another shape,
    gets NaN. Without it, all that are there and have the shape.
    """
    trained = observe(inputs, live)[0]
    found = {name: shown for name, shown in _others(inputs, live) if shown.shape == trained.shape}
    if names is not None:
        nothing = np.full_like(trained, np.nan)
        found = {name: found.get(name, nothing) for name in names}
    return {"": trained, **found}


def _others(inputs: Inputs, live: Live) -> Iterator[tuple[str, np.ndarray]]:
    label, _, name = inputs.module.partition("/")
    if label not in live.trained:
        return
    root = live.trained[label]
    wanted = root.get_submodule(name)
    within = {
        f"{label}.{path}": m for path, m in root.named_modules() if _is_frozen_twin(m, wanted)
    }
    for other, module in {**within, **live.averaging}.items():
        alike = matching_part(module, wanted)
        if alike is not None:
            with suppress(Exception):  # of the same shapes, but it cannot be called like the model
                yield other, observe(inputs, live, alike)[0]
    for other, swap in weights_in_variables(live, root).items():
        with _swapped(swap):
            yield other, observe(inputs, live)[0]


def _is_frozen_twin(module: nn.Module, wanted: nn.Module) -> bool:
    """Test for a teacher within the trained module: of the observed part's kind, and not trained."""
    own = [*module.parameters()]
    return (
        module is not wanted
        and type(module) is type(wanted)
        and not any(p.requires_grad for p in own)
        and [p.shape for p in own] == [p.shape for p in wanted.parameters()] != []
    )


def matching_part(module: nn.Module, wanted: nn.Module) -> nn.Module | None:
    """Return the part of an average that corresponds to a part of the trained module; None without one."""
    shapes = [p.shape for p in wanted.parameters()]
    for one in module.modules():
        if type(one) is type(wanted) and [p.shape for p in one.parameters()] == shapes:
            return one
    return None


def weights_in_variables(live: Live, model: nn.Module) -> dict[str, Swap]:
    """Find the tensors in variables that are weights of this model, by the path to what holds them."""
    found: dict[str, Swap] = {}
    for source in live.sources.values():
        if not isinstance(source, ScriptVariables):
            continue
        held: dict[str, dict[str | int, Tensor]] = {}
        for leaf, value in source.held().items():
            path = source.locations[leaf].path
            last = _LAST_KEY.match(path)
            if is_container(value):
                held |= _tensors_within(path, value)
            elif isinstance(value, Tensor) and value.is_floating_point() and last is not None:
                held.setdefault(last["owner"], {})[_key(last["key"])] = value
        for owner, tensors in held.items():
            swap = _pairs(tensors, model)
            if swap and _cosine(swap) > _LEAST_COSINE:
                found[owner] = swap
    return found


def _tensors_within(path: str, container: Any) -> dict[str, dict[str | int, Tensor]]:
    """Return the floating-point tensors of a container and of those within it, by its path and by key."""
    items = container.items() if isinstance(container, Mapping) else [*enumerate(container)]
    found: dict[str, dict[str | int, Tensor]] = {}
    for key, value in items:
        if isinstance(value, Tensor) and value.is_floating_point() and isinstance(key, str | int):
            found.setdefault(path, {})[key] = value
        elif isinstance(value, Mapping | list | tuple):
            found |= _tensors_within(f"{path}[{key!r}]", value)
    return found


def _key(text: str) -> str | int:
    try:
        key = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return key if isinstance(key, str | int) else text


def _pairs(tensors: Mapping[str | int, Tensor], model: nn.Module) -> Swap:
    """Pair every trained parameter with the tensor of its name, or of its place; [] where one has none."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if learned.keys() <= tensors.keys():
        both = {**learned, **dict(model.named_buffers())}
        swap = [(own, tensors[name]) for name, own in both.items() if name in tensors]
    elif {*tensors} == {*range(len(learned))}:
        swap = [(own, tensors[place]) for place, own in enumerate(learned.values())]
    else:
        return []
    return swap if all(own.shape == other.shape for own, other in swap) else []


def _cosine(swap: Swap) -> float:
    told = [pair for pair in swap if pair[0].ndim > 1] or swap
    own, other = (
        torch.cat([pair[i].detach().double().flatten().cpu() for pair in told]) for i in (0, 1)
    )
    return float(torch.nn.functional.cosine_similarity(own, other, dim=0))


@contextmanager
def _swapped(swap: Swap) -> Iterator[None]:
    """Let trained tensors hold copies of other values within the block; they get their own memory back."""
    own = [tensor.data for tensor, _ in swap]
    try:
        for tensor, value in swap:
            tensor.data = value.detach().clone().to(tensor)
        yield
    finally:
        for (tensor, _), data in zip(swap, own, strict=True):
            tensor.data = data
