"""Object discovery: find the optimizers, modules, schedulers, generators and variables of a running script.

Optimizers are those that have stepped. Schedulers and modules are found among all objects that the garbage
collector tracks. Everything else is found by walking from the script's variables: locals of its running
functions, globals, and the attributes of what these hold. An object is named by the shortest path to it,
from the script's own variables where there is one.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data.dataloader import _BaseDataLoaderIter

from bygones.attach.sources.plain_data import PlainData, is_container
from bygones.training.generators import generator_state, global_generators
from bygones.training.reachable import children_of

_MOST_THINGS = 200_000  # the walk stops after so many
_DEEPEST = 10
_CONTAINERS = ("builtins", "collections", "functools", "types")
_KINDS = (nn.Module, Optimizer, LRScheduler, GradScaler)
# Not walked into: arrays, and objects that are sources of their own.
_CLOSED = (Tensor, np.ndarray, Optimizer, LRScheduler, GradScaler, _BaseDataLoaderIter)
# Frames of torch's module calls hold only the arguments of the call.
_CALLING = nn.Module.__module__
# Cache of `_siblings`, by folder, with the number of modules at that time and the latest of them.
_siblings_of: dict[Path, tuple[tuple[int, str], list[ModuleType]]] = {}


@dataclass(frozen=True)
class Place:
    """Where a value lies: its path, and the container in which it can be replaced."""

    path: str
    owner: Any
    step: str  # the last piece of the path: `.name`, `[key]`, or a variable's name
    root: str  # the variable that the path begins with
    value: Any
    own: bool = True  # whether it is one of the script's, and not of a library's running function
    alias: bool = False  # whether a shorter path leads to the same object


@dataclass(frozen=True)
class LiveObjects:
    """The objects that were found, by name."""

    optimizers: Mapping[str, Optimizer]
    schedulers: Mapping[str, LRScheduler]
    scalers: Mapping[str, GradScaler]
    trained: Mapping[str, nn.Module]  # modules that own parameters which an optimizer updates
    averaged: Mapping[str, AveragedModel]
    others: Mapping[str, nn.Module]  # modules with parameters that no optimizer updates
    generators: Mapping[str, Any]
    loose: tuple[Place, ...]  # arrays and plain numbers that belong to none of these
    data: tuple[Place, ...] = ()  # plain data that does not either; a container of it is one place
    roots: frozenset[str] = frozenset()  # the script's variables
    names: Mapping[int, str] = field(default_factory=dict)  # of everything with a path, by identity
    displays: tuple[str, ...] = ()  # paths of objects that write text: progress bars, logs


@dataclass(frozen=True)
class HeldObjects:
    """Variables to walk from, in place of a running script's: (name, container, value).

    Only what they lead to is found, and nothing else of the process.
    """

    roots: tuple[tuple[str, Any, Any], ...]


def discover_objects(
    stepped: list[Optimizer],
    script: Path | HeldObjects,
    known: Mapping[int, str],
    *,
    writes_locals: bool = False,
    with_data: bool = False,
) -> LiveObjects:
    """Find the script's objects in this process.

    `stepped`: optimizers that have stepped. `known`: names given earlier, by identity. `writes_locals`:
    keep the frames of running functions, so that their local variables can be written; this also keeps
    alive what they hold. `with_data`: look for plain data in containers too.
    """
    if isinstance(script, HeldObjects):
        mine, theirs = list(script.roots), []
    else:
        mine, theirs = _roots(script, writes_locals)
    places = list(_walk(mine, theirs))
    reached = [place.value for place in places if not place.alias]
    living = _sort_kinds(reached if isinstance(script, HeldObjects) else gc.get_objects())
    names = _name_objects(places, known)
    optimizers = _named(_optimizers(stepped, living[Optimizer]), names, "optimizer")
    updated = {id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]}
    roots = _outermost(living[nn.Module])
    trained = [m for m in roots if any(id(p) in updated for p in m.parameters())]
    trained = [m for m in trained if not isinstance(m, AveragedModel)]
    owned = {id(inner) for module in trained for inner in module.modules()}
    named = [m for m in roots if id(m) in names and id(m) not in owned]
    averaged = [m for m in named if isinstance(m, AveragedModel)]
    others = [
        m for m in named if not isinstance(m, AveragedModel) and any(True for _ in m.parameters())
    ]
    modules = _named([*trained, *averaged, *others], names, "model")
    held = _held(optimizers, modules.values())
    schedulers = [
        s
        for s in living[LRScheduler]
        if any(getattr(s, "optimizer", None) is o for o in optimizers.values())
        and not _is_part_of_another(s, living[LRScheduler])
    ]
    scalers = [s for s in living[GradScaler] if s.is_enabled()]
    return LiveObjects(
        optimizers,
        _named(schedulers, names, "scheduler"),
        _named(scalers, names, "scaler"),
        {name: m for name, m in modules.items() if any(m is one for one in trained)},
        {name: m for name, m in modules.items() if isinstance(m, AveragedModel)},
        {name: m for name, m in modules.items() if any(m is one for one in others)},
        _private_generators(places),
        tuple(p for p in places if not p.alias and _is_loose(p, held)),
        tuple(_plain_places(places, held)) if with_data else (),
        frozenset(name for name, _, _ in mine),
        names,
        tuple(p.path for p in places if _is_display(p.value)) if with_data else (),
    )


def _private_generators(places: list[Place]) -> dict[str, Any]:
    """Return the generators by path, but for the global ones under another name."""
    known = {id(generator) for generator in global_generators().values()}
    found = [p for p in places if id(p.value) not in known]
    return {p.path: p.value for p in found if generator_state(p.value) is not None}


def _name_objects(places: list[Place], known: Mapping[int, str]) -> dict[int, str]:
    """Name everything that has a path, by identity: by the shortest path, but not by a loop's variable.

    A variable is taken for a loop's if it stands for one of several optimizers (or modules) in a container,
    and another of them has no variable.
    """
    names = dict(known)
    for place in places:
        if not isinstance(place.value, bool | int | float | str | None):
            names.setdefault(id(place.value), place.path)
    variables = {id(p.value) for p in places if p.path == p.root}
    members: dict[int, list[Place]] = {}
    for place in places:
        if isinstance(place.value, _KINDS) and is_container(place.owner):
            members.setdefault(id(place.owner), []).append(place)
    for several in members.values():
        if len(several) > 1 and not all(id(p.value) in variables for p in several):
            for place in several:
                if id(place.value) in variables and id(place.value) not in known:
                    names[id(place.value)] = place.path
    return names


def _sort_kinds(things: list[Any]) -> dict[type, list[Any]]:
    """Return the objects of the wanted kinds, each once; each type is tested once."""
    found: dict[type, list[Any]] = {kind: [] for kind in _KINDS}
    kind_of: dict[type, type | None] = {}
    for thing in things:
        exact = type(thing)
        if exact not in kind_of:
            kind_of[exact] = next((kind for kind in _KINDS if issubclass(exact, kind)), None)
        kind = kind_of[exact]
        if kind is not None:
            found[kind].append(thing)
    return found


def script_frames(script: Path) -> list[FrameType]:
    """Return the running frames, from the script's outermost to the innermost."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not _is_ours(frame) and frame.f_globals.get("__name__") != _CALLING:
            frames.append(frame)
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code.co_name == "<module>":
            break
        frame = frame.f_back
    return frames[::-1]


def own_frames(script: Path) -> list[FrameType]:
    """Return the running frames of the script's own functions, outermost first."""
    return _own(script_frames(script), script.resolve().parent)


def _own(frames: list[FrameType], folder: Path) -> list[FrameType]:
    return [f for f in frames if folder in Path(f.f_code.co_filename).resolve().parents]


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "bygones"


_Roots = list[tuple[str, Any, Any]]


def _roots(script: Path, writes_locals: bool) -> tuple[_Roots, _Roots]:
    """Return (name, container, value) of the variables to walk from: the script's own, then its libraries'.

    In order of preference for names: which library functions are running depends on the boundary.
    """
    folder = script.resolve().parent
    frames = script_frames(script)
    mine = _own(frames, folder)
    main = sys.modules["__main__"]
    found = [(name, vars(main), value) for name, value in vars(main).items() if name[:2] != "__"]
    for frame in mine:
        if frame.f_code.co_name != "<module>":
            owner = frame if writes_locals else None
            found += [(name, owner, value) for name, value in frame.f_locals.items()]
    for module in _siblings(folder):
        found += [
            (f"{module.__name__}.{name}", vars(module), value)
            for name, value in vars(module).items()
            if name[:2] != "__" and getattr(value, "__module__", module.__name__) != "builtins"
        ]
    others = [f for f in frames if f not in mine]
    return found, [(name, None, value) for f in others for name, value in f.f_locals.items()]


def _siblings(folder: Path) -> list[ModuleType]:
    """Return the imported modules that lie in the script's folder, or below it.

    Cached until more are imported: touching a module costs a forked process a copy of its page.
    """
    newest = len(sys.modules), next(reversed(sys.modules))
    known = _siblings_of.get(folder)
    if known is not None and known[0] == newest:
        return known[1]
    inside_folder = f"{folder}{os.sep}"
    mine = []
    for name, module in list(sys.modules.items()):
        file = str(getattr(module, "__file__", None) or "")
        if file.startswith(inside_folder) and "site-packages" not in file:
            if name != "__main__" and not name.startswith("bygones"):
                mine.append(module)
    _siblings_of[folder] = newest, mine
    return mine


def _walk(*roots: _Roots) -> Iterator[Place]:
    """Yield every reachable value, breadth first; all that the first roots lead to comes first.

    An object is walked into once; further paths to an array, a container or a module are yielded as aliases.

    Arrays that are variables themselves come last: a loop may have left one pointing into a container.
    """
    visited: set[int] = set()
    spaces = {id(owner) for some in roots for _, owner, _ in some}
    late: deque[tuple[Place, int]] = deque()
    layers: deque[deque[tuple[Place, int]]] = deque()
    for index, some in enumerate(roots):
        layers.append(deque())
        for name, owner, value in some:
            array = isinstance(value, Tensor | np.ndarray)
            place = Place(name, owner, name, name, value, own=index == 0)
            (late if array else layers[-1]).append((place, 0))
    pending: deque[tuple[Place, int]] = deque()
    while pending or layers or late:
        if layers and not pending:
            pending = layers.popleft()
            continue
        if len(visited) >= _MOST_THINGS:
            pending.clear()  # stop walking, but still yield the variables themselves
            layers.clear()
            if not late:
                return
        place, depth = pending.popleft() if pending else late.popleft()
        value = place.value
        if isinstance(value, type | ModuleType | FrameType) or _is_bygones(value):
            continue
        if value is None or isinstance(value, bool | int | float | str | np.generic):
            yield place
            continue
        if id(value) in visited:
            if is_container(value) or isinstance(value, (Tensor, np.ndarray, *_KINDS)):
                yield replace(place, alias=True)
            continue
        visited.add(id(value))
        yield place
        if isinstance(value, _CLOSED) or depth >= _DEEPEST:
            continue
        if generator_state(value) is not None or _is_machinery(value):
            continue
        try:
            for step, inner in _children(value):
                if step.startswith(" using ") and id(value.__globals__) in spaces:
                    continue  # a variable among the roots, under its own name
                path = f"{place.path}{step}"
                inner_place = Place(path, value, step, place.root, inner, place.own)
                pending.append((inner_place, depth + 1))
        except Exception:  # an object whose attributes cannot be read
            continue


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds. A wrapper's own attributes are torch's bookkeeping of buckets and calls."""
    if isinstance(value, DistributedDataParallel):
        yield ".module", value.module
    else:
        yield from children_of(value)


def _is_machinery(value: Any) -> bool:
    """Test for an object of the standard library (pool, logger, parser), which holds no memory."""
    module = type(value).__module__.partition(".")[0]
    return module in sys.stdlib_module_names and module not in _CONTAINERS


def _is_display(value: Any) -> bool:
    """Test for an object that writes to a text stream, and does not itself hold what is trained."""
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) or isinstance(value, (type, ModuleType, *_KINDS)):
        return False
    inner = list(held.values())
    return any(map(_is_text_stream, inner)) and not any(isinstance(one, _KINDS) for one in inner)


def _is_text_stream(value: Any) -> bool:
    """Test for a text file or a terminal to write to, or an object of the script or a library that wraps one.

    A file that is read may be the data, and then the place in it is memory.
    """
    if isinstance(value, io.IOBase):
        mode = str(getattr(value, "mode", "w"))
        return isinstance(value, io.TextIOBase) and (not mode.startswith("r") or "+" in mode)
    own = getattr(value, "__dict__", ())

    def has(*names: str) -> bool:
        return all(name in own or hasattr(type(value), name) for name in names)

    return (has("write", "flush") and not has("seek")) or has("print", "file")


def _is_bygones(value: Any) -> bool:
    """Test for an object of bygones, which is no part of the script."""
    owner = getattr(value, "__self__", value) if isinstance(value, MethodType) else value
    return type(owner).__module__.partition(".")[0] == "bygones"


def _optimizers(stepped: list[Optimizer], living: list[Any]) -> list[Optimizer]:
    """Return the optimizers that have stepped, then those with other parameters that have not stepped yet."""
    found = list(stepped)
    owned = {id(p) for o in found for g in o.param_groups for p in g["params"]}
    for one in living:
        if not any(one is known for known in found):
            groups = one.__dict__.get("param_groups") or []
            mine = {id(p) for g in groups for p in g["params"]}
            if mine and not mine & owned:
                found.append(one)
                owned |= mine
    return found


def _outermost(living: list[Any]) -> list[nn.Module]:
    """Return the modules that are no part of another module."""
    modules = [one for one in living if "_modules" in vars(one)]
    inner = {id(m) for module in modules for m in module._modules.values() if m is not None}
    return [module for module in modules if id(module) not in inner]


def _is_part_of_another(scheduler: LRScheduler, living: list[Any]) -> bool:
    """Test for a member of a SequentialLR or ChainedScheduler, which captures it."""
    return any(scheduler in one._schedulers for one in living if hasattr(one, "_schedulers"))


def _named(things: list[Any], names: Mapping[int, str], else_called: str) -> dict[str, Any]:
    """Name objects by the shortest path to them, in a stable order; number those without a path."""
    named: dict[str, Any] = {}
    for thing in things:
        name = names.get(id(thing), else_called)
        number = 2
        while name in named:
            name = f"{names.get(id(thing), else_called)}#{number}"
            number += 1
        named[name] = thing
    return named


def _held(optimizers: Mapping[str, Optimizer], modules: Any) -> set[int]:
    """Return the identities of the tensors that belong to modules and optimizers."""
    held: set[int] = set()
    for module in modules:
        held |= {id(t) for t in module.parameters()} | {id(t) for t in module.buffers()}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            held |= {id(p) for p in group["params"]}
        for state in optimizer.state.values():
            held |= {id(value) for value in state.values()}
    return held


def _is_loose(place: Place, held: set[int]) -> bool:
    value = place.value
    if isinstance(value, Tensor | np.ndarray):
        return id(value) not in held and not (
            isinstance(value, np.ndarray) and value.dtype.hasobject
        )
    return isinstance(value, bool | int | float | np.generic)


def _plain_places(places: list[Place], held: set[int]) -> Iterator[Place]:
    """Yield the places of plain data: the outermost container of it, or what lies in none."""
    plain = PlainData(held)
    inside: set[int] = set()  # containers of plain data, and those within them
    for place in places:
        within = id(place.owner) in inside
        if is_container(place.value):
            if within or place.value in plain:
                inside.add(id(place.value))
                if not within:
                    yield place
        elif not within and place.value in plain:
            yield place
