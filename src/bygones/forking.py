"""The proof that nothing was forgotten: restore into another seed's run, train on, compare every bit.

Restoring is right when the future is right. So a snapshot is not compared with what it was made from;
it is put into a run built from *another* seed, both are trained to the end, and every leaf is compared.
Then each source is left out in turn, to see that the comparison would have noticed.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.digest import digest, is_array, same
from bygones.errors import ForkError
from bygones.probes import Values
from bygones.recipe import Parts, Recipe, seeded_globals
from bygones.run import Run, Snapshot
from bygones.sources.trees import generator_state
from bygones.values import Digest

_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Certificate:
    """What a fork check found: which sources a fork needs, and which made no difference here."""

    boundaries: tuple[int, ...]
    until: int
    needed: tuple[str, ...]
    inert: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": True,
            "boundaries": list(self.boundaries),
            "until": self.until,
            "needed": list(self.needed),
            "inert": list(self.inert),
        }

    def __str__(self) -> str:
        places = ", ".join(map(str, self.boundaries))
        inert = f"; inert in this run: {', '.join(self.inert)}" if self.inert else ""
        return (
            f"forks at steps {places} are bit-equal to the original at step {self.until}; "
            f"needed for that: {', '.join(self.needed)}{inert}"
        )


def check_fork(recipe: Recipe | Any, at: Sequence[int], until: int, seed: int = 0) -> Certificate:
    """Forks a run at several boundaries and requires each fork to end bit-equal to the original.

    Raises `ForkError` with the first leaf and step that differ, and with everything reachable from the
    parts that differs at the fork and that no source captures. Cost: (len(at) + number of sources)
    runs from a boundary to `until`, and two from the start.

    >>> from bygones.worlds import heavy_ball
    >>> print(check_fork(heavy_ball.recipe, at=[1, 4], until=6))
    forks at steps 1, 4 are bit-equal to the original at step 6; needed for that: weights, moments, \
order, streams; inert in this run: scheduler, gradients
    """
    recipe = Recipe.of(recipe)
    run = Run(recipe, seed)
    snapshots: dict[int, Snapshot] = {}
    seen: dict[int, dict[str, Digest]] = {}
    for step in sorted({*at}):
        run.advance(step)
        snapshots[step] = run.snapshot()
        seen[step] = reachable(run.parts)
    run.advance(until)
    ending, outputs = run.snapshot(), _outputs(run)
    for step, snapshot in snapshots.items():
        twin = Run(recipe, _OTHER_SEED)  # one that has trained before has memories of its own
        twin.restore(snapshot)
        hidden = _differing(seen[step], reachable(twin.parts))
        twin.advance(until)
        if _first_difference(ending, twin.snapshot()) is not None:
            raise _refusal(recipe, run, twin, snapshot, until, hidden)
        if not same(outputs, _outputs(twin)):
            raise ForkError(
                f"the fork of {recipe} at step {step} trains on as the original did, and yet the model's "
                f"outputs on the probe set differ at step {until}. {_suspects(hidden)}"
            )
    needed = [name for name in run.sources if _noticed(recipe, snapshots, ending, name)]
    inert = [name for name in run.sources if name not in needed]
    return Certificate(tuple(snapshots), until, tuple(needed), tuple(inert))


def reachable(parts: Parts) -> dict[str, Digest]:
    """Digest of every tensor, array, generator and plain number reachable from the parts, by path.

    Walks attributes (of objects, of their classes, of functions), containers, closures, default
    arguments, hooks, and the globals that the recipe's own functions name. Libraries' code is not walked.
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


def _noticed(
    recipe: Recipe, snapshots: Mapping[int, Snapshot], ending: Snapshot, source: str
) -> bool:
    """Whether a fork that lacks one source ends differently, at any of the boundaries."""
    for snapshot in snapshots.values():
        twin = Run(recipe, _OTHER_SEED)
        twin.restore(snapshot, leave_out=source)
        twin.advance(ending.step)
        if _first_difference(ending, twin.snapshot()) is not None:
            return True
    return False


def _first_difference(one: Snapshot, other: Snapshot) -> str | None:
    """The first leaf, in the order of sources and names, that is not bit-equal: `source/leaf`."""
    for source in one.states:
        mine, theirs = one.states[source], other.states[source]
        for leaf in sorted(mine.keys() | theirs.keys()):
            if not same(mine.get(leaf), theirs.get(leaf)):
                return f"{source}/{leaf}"
    return None


def _refusal(
    recipe: Recipe, run: Run, twin: Run, snapshot: Snapshot, until: int, hidden: list[str]
) -> ForkError:
    """Walks original and twin again, step by step, to say where they part."""
    original = Run(recipe, run.seed)
    original.advance(snapshot.step)
    twin = Run(recipe, _OTHER_SEED)
    twin.restore(snapshot)
    where = _first_difference(original.snapshot(), twin.snapshot())
    step = snapshot.step
    while where is None and step < until:
        step += 1
        original.advance(step)
        twin.advance(step)
        where = _first_difference(original.snapshot(), twin.snapshot())
    found = (
        where
        or "a leaf that agreed when the run was repeated: the training step is not deterministic"
    )
    return ForkError(
        f"the fork of {recipe} at step {snapshot.step} differs first in {found} at step {step}. "
        f"{_suspects(hidden)}"
    )


def _suspects(hidden: list[str]) -> str:
    if not hidden:
        return (
            "Nothing reachable from the parts differs at the fork, so the step itself is not "
            "deterministic, or keeps state in a library or a global out of reach."
        )
    return (
        f"What differs at the fork and is captured by no source: {_listed(hidden)}. Name it in "
        f"Parts.others, write a source for it, or compute it anew in every step."
    )


def _outputs(run: Run) -> np.ndarray | None:
    """What the model says on the probe set in evaluation mode: memory may show there and nowhere else."""
    if run.parts.probe_set is None:
        return None
    with seeded_globals(run.parts.keys, run.step):
        return run.observe(Values(), check=False)


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:6])
    return f"{shown} and {len(paths) - 6} more" if len(paths) > 6 else shown


def _differing(one: Mapping[str, Digest], other: Mapping[str, Digest]) -> list[str]:
    return [path for path in sorted(one.keys() | other.keys()) if one.get(path) != other.get(path)]


def _walk(thing: Any, path: str, found: dict[str, Digest], visited: set[int], depth: int) -> None:
    if thing is None or depth > 12 or isinstance(thing, type | types.ModuleType):
        return
    if isinstance(thing, bool | int | float | str | np.generic):
        found[path] = digest(thing)
        return
    if _is_plain(thing):  # small shared tuples are listed wherever they lie
        for name, inner in _inside(thing):
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
    drawn = generator_state(thing)
    if drawn is not None:
        found[path] = digest(drawn)
        return
    for name, inner in _inside(thing):
        _walk(inner, f"{path}{name}", found, visited, depth + 1)


def _inside(thing: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with the piece of path that leads to it."""
    if isinstance(thing, Mapping):
        for index, (key, item) in enumerate(list(thing.items())):
            yield f"[{key!r}]" if isinstance(key, str | int) else f"[{index}]", item
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        for index, item in enumerate(thing):
            yield f"[{index}]", item
    elif isinstance(thing, types.FunctionType | types.MethodType):
        yield from _inside_function(thing)
    elif isinstance(thing, nn.Module):
        yield from ((f".{name}", p) for name, p in thing.named_parameters(recurse=False))
        yield from ((f".{name}", b) for name, b in thing.named_buffers(recurse=False))
        yield from ((f".{name}", m) for name, m in thing.named_children())
        yield from _hooks(thing)
        yield from ((f".{k}", v) for k, v in vars(thing).items() if k not in _TORCHS_OWN)
        yield from _class_attributes(thing)
    elif isinstance(thing, functools.partial):
        yield from ((".func", thing.func), (".args", thing.args), (".keywords", thing.keywords))
    elif isinstance(thing, Optimizer):  # its private names are bookkeeping that torch makes anew
        yield from ((f".{k}", v) for k, v in vars(thing).items() if not k.startswith("_"))
    else:
        slots = [n for kind in type(thing).__mro__ for n in getattr(kind, "__slots__", ())]
        yield from ((f".{name}", getattr(thing, name)) for name in slots if hasattr(thing, name))
        yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())
        yield from _class_attributes(thing)


# What every module has, but for its mode; hooks are walked apart, as torch numbers them by process.
_TORCHS_OWN = vars(nn.Module()).keys() - {"training"}
_LIBRARIES = ("torch", "numpy", "bygones", "builtins", "collections", "functools")


def _is_plain(thing: Any) -> bool:
    return isinstance(thing, list | tuple) and all(
        item is None or isinstance(item, bool | int | float | str) for item in thing
    )


def _from_library(thing: Any) -> bool:
    module = str(thing.__module__ or "")
    return module.partition(".")[0] in _LIBRARIES and not module.startswith("bygones.worlds")


def _hooks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if name.endswith("_hooks") and isinstance(value, Mapping):
            yield from ((f".{name}[{i}]", hook) for i, hook in enumerate(value.values()))


def _class_attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Data kept on a class by the recipe's own code, where every run of the process shares it."""
    for kind in type(thing).__mro__:
        if not _from_library(kind):
            for name, value in vars(kind).items():
                if (
                    not name.startswith("__")
                    and not callable(value)
                    and not hasattr(value, "__get__")
                ):
                    yield f".{name} of class {kind.__name__}", value


def _inside_function(function: Any) -> Iterator[tuple[str, Any]]:
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
            continue  # a name that is not bound yet
    if not _from_library(function):
        used = _names_in(function.__code__)
        yield from ((f" using {n}", v) for n, v in function.__globals__.items() if n in used)


def _names_in(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_names_in(constant) for constant in inner))
