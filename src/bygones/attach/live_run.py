"""Live run: the sources of memory of a running script, as the same classes that a recipe's run has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bygones.attach.discovery import HeldObjects, LiveObjects, discover_objects
from bygones.attach.sources.averaged_modules import AveragedModule
from bygones.attach.sources.carried_streams import CarriedStreams
from bygones.attach.sources.loader_order import LoaderOrder, can_be_rearranged
from bygones.attach.sources.script_memory import memory_variables
from bygones.attach.sources.variables import (
    attribute_variables,
    averaged_paths,
    changed_paths,
    first_values,
    free_name,
)
from bygones.attach.step_clock import Clock
from bygones.core.catalogue import Catalogue
from bygones.core.digest import same_bits
from bygones.core.errors import RecipeError
from bygones.core.hash_chain import ledger_entry, state_digests
from bygones.core.values import State
from bygones.training.generators import generator_kind
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Memory
from bygones.training.sources import SOURCES, AbstractSource
from bygones.training.sources.averages import Averages
from bygones.training.sources.batchnorm import BatchNorm
from bygones.training.sources.buffers import Buffers
from bygones.training.sources.gradients import Gradients
from bygones.training.sources.moments import Moments
from bygones.training.sources.named import Named
from bygones.training.sources.scheduler import Scheduler
from bygones.training.sources.weights import Weights


class Baseline:
    """State before the first update, which is what "new" means for memory that cannot be rebuilt."""

    carried: frozenset[str] = frozenset()  # variables that a round of the training loop takes over

    def __init__(self, script: Path | HeldObjects, clock: Clock, seed: int) -> None:
        found = discover_objects(clock.optimizers, script, {}, with_data=True)
        self.trained = found.trained
        self.names = {
            id(thing): name
            for things in (found.optimizers, found.schedulers, found.trained, found.others)
            for name, thing in things.items()
        }
        self.loose = first_values(found.loose)
        self.data = first_values(found.data)
        self.states: dict[str, State] = {}
        self.tensors = {name: clone_leaf(p) for name, p in named_parameters(found).items()} | {
            f"{label}.{name}": clone_leaf(t)
            for label, module in found.others.items()
            for name, t in module.state_dict(keep_vars=True).items()
        }
        for source in sources_of(found, seed):
            self.states[source.name] = source.baseline


@dataclass(frozen=True)
class KnownMemory:
    """Memory that another run of the script has: sources by name, variables by path.

    `averages`: paths of variables that hold averages of the weights there, or a copy of them. Used for a run
    that has not taken a step yet, in which memory cannot be told by its having changed. `objects`: the kind
    of each object that memory lies in, by the script's name for it.
    """

    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    averages: frozenset[str] = frozenset()
    objects: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: KnownMemory) -> KnownMemory:
        return KnownMemory(
            self.names | other.names,
            self.paths | other.paths,
            self.averages | other.averages,
            {**self.objects, **other.objects},
        )


class Live:
    """A running script at one boundary: its `sources` by name, and the modules that a probe can observe."""

    def __init__(
        self,
        script: Path | HeldObjects,
        clock: Clock,
        seed: int,
        first: Baseline,
        shown: Mapping[int, Sequence[Any]],
        expected: KnownMemory | None = None,
    ) -> None:
        found = discover_objects(
            clock.optimizers, script, first.names, writes_locals=True, with_data=True
        )
        self._clock = clock
        self.trained = found.trained
        self.optimizers = list(found.optimizers.values())
        self.parameters = parameters = named_parameters(found)
        sources = sources_of(found, seed)
        self.names = found.names
        self.loose = found.loose
        self.averaging = {**found.averaged, **found.others}
        sources += _averaging(found, parameters, first, expected, _names(sources))
        weights = {**parameters, **_named_buffers(found)}
        self.roots, self.displays = found.roots, found.displays
        taken = _names(sources)
        changed = changed_paths(found.data, first.data)
        averages = averaged_paths(found.data, changed, weights)
        if isinstance(script, HeldObjects):  # no code that says what a round of training takes over
            paths = changed if expected is None else expected.paths
            averaged = averages if expected is None else expected.averages
            variables = attribute_variables(found.data, weights, paths, averaged, taken)
        elif expected is None:
            variables = memory_variables(
                found, first.data, first.loose, first.carried, script, weights, averages, taken
            )
        else:
            variables = attribute_variables(
                found.data, weights, expected.paths, expected.averages, taken
            )
        sources += variables.values()
        names = frozenset(s.name for s in sources)
        self.known = KnownMemory(names, changed, averages, kinds_of_objects(found))
        if can_be_rearranged(clock):
            sources.append(LoaderOrder(clock, seed, shown))
        for source in sources:
            _set_baseline(source, first)
        self.sources = Catalogue("memory source", {s.name: s for s in sources})

    def entry(self) -> dict[str, Any]:
        """Return the ledger entry of this boundary: data hashes, loss and digests of the sources."""
        clock, record = self._clock, self._clock.record
        states: dict[str, State] = {}
        missing: dict[str, str] = {}
        for name, source in self.sources.items():
            try:
                states[name] = source.capture()
            except RecipeError:  # a run that is only recorded goes on
                missing[name] = "not captured"
        loss = record.losses[-1] if record.losses else None
        return ledger_entry(
            clock.step,
            record.batches.order,
            record.batches.entry,
            loss,
            {**state_digests(states), **missing},
        )

    def clocked_module(self, optimizer: Any) -> str:
        """Return the name of the trained module that an optimizer updates; empty if there is none."""
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, module in self.trained.items():
            if any(id(p) in updated for p in module.parameters()):
                return name
        return ""


def kinds_of_objects(found: LiveObjects) -> dict[str, str]:
    """Return the kind of each object that was found, by the script's name for it."""
    kinds = {
        "model": found.trained,
        "average": {**found.averaged, **found.others},
        "optimizer": found.optimizers,
        "scheduler": found.schedulers,
        "scaler": found.scalers,
    }
    named = {name: kind for kind, things in kinds.items() for name in things}
    return named | {name: generator_kind(one) for name, one in found.generators.items()}


def _names(sources: Iterable[AbstractSource]) -> set[str]:
    """Return the names that no other source may have."""
    return {LoaderOrder.name, *(source.name for source in sources)}


def _set_baseline(source: AbstractSource, first: Baseline) -> None:
    """Give a source what the run held before its first update, as far as that was found then."""
    before = first.states.get(source.name)
    if before is not None and before.keys() == source.baseline.keys():
        source.baseline = before
    values = {**first.loose, **first.data}
    seen = {leaf: values.get(place.path) for leaf, place in source.locations.items()}
    known = {leaf: value[1] for leaf, value in seen.items() if value is not None}
    source.baseline = {**source.baseline, **known}


def _averaging(
    found: LiveObjects,
    parameters: Mapping[str, Tensor],
    first: Baseline,
    expected: KnownMemory | None,
    taken: set[str],
) -> list[AbstractSource]:
    """Find teachers and averages: parameters that change although no optimizer updates them."""
    sources: list[AbstractSource] = []
    for name, averages in found.averaged.items():
        student = _student(averages.module, found.trained)
        if student is not None:
            label = free_name("averages" if len(found.averaged) == 1 else name, taken)
            sources.append(Averages(averages, student, label))
    updated = updated_parameters(found.optimizers)
    learned = {name: p for name, p in parameters.items() if id(p) in updated}
    within = {n: p for n, p in parameters.items() if id(p) not in updated}
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in within.items():
        groups.setdefault(name.partition(".")[0], {})[name] = tensor
    for label, module in found.others.items():
        groups[label] = {f"{label}.{n}": t for n, t in module.state_dict(keep_vars=True).items()}
    for label, tensors in groups.items():
        changed = any(not same_bits(first.tensors.get(n, t), t) for n, t in tensors.items())
        if changed or (expected is not None and label in expected.names):
            name = free_name(label, {*taken, *(source.name for source in sources)})
            sources.append(AveragedModule(name, tensors, learned, first.tensors))
    return sources


def sources_of(found: LiveObjects, seed: int) -> list[AbstractSource]:
    """Return the built-in sources of the objects that were found."""
    parameters = named_parameters(found)
    updated = updated_parameters(found.optimizers)
    learned = {name: p for name, p in parameters.items() if id(p) in updated}
    names = {id(p): name for name, p in parameters.items()}
    optimizers = _unnamed_if_single(found.optimizers)
    single = len(found.scalers) == 1
    layers, owners, hidden = _normalising(found), _buffers(found), _hidden(found)
    sources: Sequence[AbstractSource | None] = [
        Weights(learned),
        Moments(optimizers, names),
        Scheduler(optimizers, _unnamed_if_single(found.schedulers)),
        Gradients(learned),
        BatchNorm(layers) if layers else None,
        Buffers(owners, "non-persistent" if hidden else "state_dict") if owners else None,
        *(
            Named("scaler" if single else free_name(name, SOURCES), _scaler(scaler), None)
            for name, scaler in found.scalers.items()
        ),
        CarriedStreams(found.generators, seed),
    ]
    return [source for source in sources if source is not None]


def named_parameters(found: LiveObjects) -> dict[str, Tensor]:
    """Return every parameter by name, prefixed by its module's name if there are several.

    Tensors that an optimizer updates and no module owns have the script's name for them.
    """
    named: dict[str, Tensor] = {}
    for label, module in found.trained.items():
        for name, parameter in module.named_parameters():
            named[name if len(found.trained) == 1 else f"{label}.{name}"] = parameter
    known = {id(p) for p in named.values()}
    for optimizer in found.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in known:
                    known.add(id(parameter))
                    name = found.names.get(id(parameter), "")
                    named[name if name and name not in named else f"parameter{len(named)}"] = (
                        parameter
                    )
    return named


def _named_buffers(found: LiveObjects) -> dict[str, Tensor]:
    """Return the buffers of the trained modules by name, as `named_parameters` names the parameters."""
    single = len(found.trained) == 1
    return {
        (name if single else f"{label}.{name}"): buffer
        for label, module in found.trained.items()
        for name, buffer in module.named_buffers()
    }


def updated_parameters(optimizers: Mapping[str, Any]) -> set[int]:
    """Return the identities of the parameters that optimizers update."""
    return {id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]}


def _scaler(scaler: Any) -> Memory:
    return Memory(scaler, origin="optimizer", visibility="state_dict")


def _student(averaged: nn.Module, trained: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the trained module, or part of one, with the parameter shapes of an average."""
    shapes = {name: p.shape for name, p in averaged.named_parameters()}
    for module in trained.values():
        for part in module.modules():
            if {name: p.shape for name, p in part.named_parameters()} == shapes:
                return part
    return None


def _normalising(found: LiveObjects) -> dict[str, _NormBase]:
    return {
        name: layer
        for name, layer in _layers(found).items()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }


def _layers(found: LiveObjects) -> dict[str, nn.Module]:
    single = len(found.trained) == 1
    return {
        (name if single else f"{label}.{name}".rstrip(".")): layer
        for label, module in found.trained.items()
        for name, layer in module.named_modules()
    }


def _buffers(found: LiveObjects) -> dict[str, nn.Module]:
    return {
        f"{name}.{key}".lstrip("."): layer
        for name, layer in _layers(found).items()
        if not isinstance(layer, _NormBase)
        for key, _ in layer.named_buffers(recurse=False)
    }


def _hidden(found: LiveObjects) -> bool:
    return any(layer._non_persistent_buffers_set for layer in _layers(found).values())


def _unnamed_if_single(things: Mapping[str, Any]) -> dict[str, Any]:
    return {"": next(iter(things.values()))} if len(things) == 1 else dict(things)


def settle(live: Live) -> None:
    """Raise `RecipeError` for the first source that cannot be captured exactly."""
    for name, source in live.sources.items():
        try:
            source.capture()
        except RecipeError as error:
            raise RecipeError(f"the source '{name}' of this script: {error}") from error
