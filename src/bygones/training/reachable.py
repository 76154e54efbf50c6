"""Object graph traversal: hash every value reachable from a run's parts, to name uncaptured memory."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.core.digest import digest, is_array
from bygones.core.values import Digest
from bygones.training.generators import generator_state
from bygones.training.recipe import Parts


def hash_reachable(parts: Parts) -> dict[str, Digest]:
    """Hash every tensor, array, generator and plain number reachable from the parts, by path.

    Follows attributes (of objects, of their classes, of functions), containers, closures, default
    arguments, hooks, and the globals that the recipe's own functions name. Does not follow the code of
    libraries.
    """
    found: dict[str, Digest] = {}
    roots = {
        "model": parts.model,
        "optimizer": parts.optimizer,
        "scheduler": parts.scheduler,
        "averages": parts.averages,
        "others": dict(parts.others),
        "data": parts.data,
        "augment": parts.augment,
        "loss": parts.loss,
        "train_step": parts.train_step,
        "probe_set": parts.probe_set,
    }
    visited: set[int] = {id(parts), id(parts.cursor), id(parts.keys)}
    for name, root in roots.items():
        _walk(root, name, found, visited, depth=0)
    return found


def _walk(thing: Any, path: str, found: dict[str, Digest], visited: set[int], depth: int) -> None:
    """Add the digests of an object and of all that it leads to, depth first, each object once."""
    if thing is None or depth > _MAX_DEPTH or isinstance(thing, type | types.ModuleType):
        return
    if isinstance(thing, bool | int | float | str | np.generic):
        found[path] = digest(thing)
        return
    if _is_plain(thing):  # python shares small tuples, so they are listed at every path
        for name, inner in children_of(thing):
            found[f"{path}{name}"] = digest(inner)
        return
    if id(thing) in visited:
        return
    visited.add(id(thing))
    if is_array(thing):
        if isinstance(thing, nn.Parameter):
            found[f"{path}.requires_grad"] = digest(thing.requires_grad)
        if isinstance(thing, Tensor) and thing.grad is not None:
            found[f"{path}.grad"] = digest(thing.grad)
        found[path] = digest(thing)
        return
    state = generator_state(thing)
    if state is not None:
        found[path] = digest(state)
        return
    for name, inner in children_of(thing):
        _walk(inner, f"{path}{name}", found, visited, depth + 1)


def children_of(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects that an object refers to, each with its part of the path."""
    if isinstance(thing, Mapping):
        for index, (key, item) in enumerate(list(thing.items())):
            yield f"[{key!r}]" if isinstance(key, str | int) else f"[{index}]", item
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        for index, item in enumerate(thing):
            yield f"[{index}]", item
    elif isinstance(thing, types.FunctionType | types.MethodType):
        yield from _children_of_function(thing)
    elif isinstance(thing, nn.Module):
        yield from ((f".{name}", p) for name, p in thing.named_parameters(recurse=False))
        yield from ((f".{name}", b) for name, b in thing.named_buffers(recurse=False))
        yield from ((f".{name}", m) for name, m in thing.named_children())
        yield from _hooks(thing)
        yield from ((f".{k}", v) for k, v in vars(thing).items() if k not in _TORCHS_OWN)
        yield from _class_attributes(thing)
    elif isinstance(thing, functools.partial):
        yield from ((".func", thing.func), (".args", thing.args), (".keywords", thing.keywords))
    elif isinstance(thing, Optimizer):  # its private attributes are torch's bookkeeping
        yield from ((f".{k}", v) for k, v in vars(thing).items() if not k.startswith("_"))
    else:
        slots = [n for kind in type(thing).__mro__ for n in getattr(kind, "__slots__", ())]
        yield from ((f".{name}", getattr(thing, name)) for name in slots if hasattr(thing, name))
        yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())
        yield from _class_attributes(thing)


# Attributes of every module, except its mode. Hooks are listed separately, by position: torch numbers
# them by a counter of the process.
_TORCHS_OWN = vars(nn.Module()).keys() - {"training"}
_MAX_DEPTH = 12
_LIBRARIES = ("torch", "numpy", "bygones", "builtins", "collections", "functools")


def _is_plain(thing: Any) -> bool:
    return isinstance(thing, list | tuple) and all(
        item is None or isinstance(item, bool | int | float | str) for item in thing
    )


def _from_library(thing: Any) -> bool:
    module = str(thing.__module__ or "")
    return module.partition(".")[0] in _LIBRARIES and not module.startswith("bygones.zoo.worlds")


def _hooks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if name.endswith("_hooks") and isinstance(value, Mapping):
            yield from ((f".{name}[{i}]", hook) for i, hook in enumerate(value.values()))


def _class_attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the data attributes of the recipe's own classes, which all runs of a process share."""
    for kind in type(thing).__mro__:
        if not _from_library(kind):
            for name, value in vars(kind).items():
                if (
                    not name.startswith("__")
                    and not callable(value)
                    and not hasattr(value, "__get__")
                ):
                    yield f".{name} of class {kind.__name__}", value


def _children_of_function(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, types.MethodType):
        yield ".__self__", function.__self__
        function = function.__func__
    if _from_library(function) and not function.__closure__:
        return
    yield from ((f".{name}", value) for name, value in vars(function).items())
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(
        (f" default {n}" for n in names[len(names) - len(defaults) :]), defaults, strict=True
    )
    yield from ((f" default {n}", v) for n, v in (function.__kwdefaults__ or {}).items())
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" closing over {name}", cell.cell_contents
        except ValueError:
            continue  # the variable is not bound yet
    if not _from_library(function):
        used = list_names(function.__code__)
        yield from ((f" using {n}", v) for n, v in function.__globals__.items() if n in used)


def list_names(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes that code uses, those in functions within it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(list_names(constant) for constant in inner))
