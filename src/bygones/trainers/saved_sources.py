"""Saved sources: the memory in a checkpoint's files, captured and restored as a live run's is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bygones.attach.sources.carried_streams import CarriedStreams
from bygones.core.errors import DesignError
from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, Leaf, Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.nested_state import flatten, like, unflatten
from bygones.training.param_groups import new_saved_counters, saved_counters
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource
from bygones.training.sources.base import overwrite_all, refuse_reset
from bygones.training.sources.moments import counter_leaf, moment_leaves, split_moments
from bygones.training.sources.scheduler import group_settings, split_heads

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class SavedSource(AbstractSource):
    """A memory source in a file, captured and restored as a live one is."""

    visibility: Visibility = "state_dict"

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """None: the sources of a recipe are live; see `bygones.training.sources`."""
        return None

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


class SavedTensors(SavedSource):
    """Entries of a model's state dict, which are written into in place."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def capture(self) -> State:
        return {self.leaf(name): clone_leaf(tensor) for name, tensor in self.tensors.items()}

    def restore(self, state: State) -> None:
        overwrite_all({self.leaf(n): t for n, t in self.tensors.items()}, state, self.name)

    def leaf(self, name: str) -> str:
        return name


class SavedWeights(SavedTensors):
    """Every entry of the state dict that is no statistic of a normalisation layer."""

    name = "weights"
    origin: Origin = "path"
    capabilities: frozenset[Capability] = frozenset({"arrays"})
    reset_refusal: ClassVar[str] = (
        "the weights are the path itself, and there is no new path. Use kick, nudge or transplant."
    )

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)


class SavedBatchNorm(SavedTensors):
    """Running mean, variance and count of the normalisation layers: `<layer>/running_mean`, …"""

    name = "batchnorm"
    origin: Origin = "normalisation"

    def leaf(self, name: str) -> str:
        layer, _, key = name.rpartition(".")
        return f"{layer}/{key}"

    def fresh(self) -> State:
        return {
            self.leaf(n): torch.ones_like(t) if n.endswith("running_var") else torch.zeros_like(t)
            for n, t in self.tensors.items()
        }


class SavedMoments(SavedSource):
    """The state of each optimizer: `<parameter>/<torch's own key>`, by name if the file has names.

    What it counts in its parameter groups is state too: `group0/k`, by the usual names of such counters. A
    new optimizer's state is empty, and it is saved empty: it is then filled at the first step. Adagrad fills
    its own when it is made, from a setting that the file has.
    """

    name = "moments"
    origin: Origin = "optimizer"

    def __init__(self, optimizers: list[dict[str, Any]]) -> None:
        self._optimizers = optimizers

    def _members(self) -> list[tuple[str, dict[str, Any], int, dict[str, Any]]]:
        """Each parameter: its name, its optimizer, its number there, and its group."""
        members = []
        for label, optimizer in self._labelled():
            prefix = f"{label}:" if label else ""
            for group in optimizer["param_groups"]:
                names = group.get("param_names") or [f"parameter{n}" for n in group["params"]]
                for name, number in zip(names, group["params"], strict=True):
                    members.append((f"{prefix}{name}", optimizer, number, group))
        return members

    def _labelled(self) -> list[tuple[str, dict[str, Any]]]:
        several = len(self._optimizers) > 1
        return [(f"optimizer{n}" if several else "", one) for n, one in enumerate(self._optimizers)]

    def _groups(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Yield each parameter group: its optimizer's label, its number, and what it holds."""
        for label, optimizer in self._labelled():
            yield from ((label, n, group) for n, group in enumerate(optimizer["param_groups"]))

    def capture(self) -> State:
        state: dict[str, Leaf] = {
            counter_leaf(label, number, key): clone_leaf(value)
            for label, number, group in self._groups()
            for key, value in saved_counters(group).items()
        }
        for name, optimizer, number, _ in self._members():
            for key, value in optimizer["state"].get(number, {}).items():
                state |= moment_leaves(name, key, value)
        return state

    def restore(self, state: State) -> None:
        wanted = split_moments(state)
        for name, optimizer, number, _ in self._members():
            held = optimizer["state"].pop(number, {})
            mine = wanted.get(name, {})
            if mine:
                new = {key: like(held.get(key), unflatten(leaves)) for key, leaves in mine.items()}
                optimizer["state"][number] = new
        for label, number, group in self._groups():
            counters = wanted.get(counter_leaf(label, number, "").rstrip("/"), {})
            for key in saved_counters(group).keys() - counters.keys():
                del group[key]
            group.update({key: unflatten(leaves) for key, leaves in counters.items()})

    def fresh(self) -> State:
        state: dict[str, Leaf] = {
            counter_leaf(label, number, key): value
            for label, number, group in self._groups()
            for key, value in new_saved_counters(group).items()
        }
        for name, optimizer, number, group in self._members():
            held = optimizer["state"].get(number, {})
            if "sum" in held and "initial_accumulator_value" in group:
                start = float(group["initial_accumulator_value"])
                state[f"{name}/step"] = torch.zeros_like(held["step"])
                state[f"{name}/sum"] = torch.full_like(held["sum"], start)
        return state


class SavedScheduler(SavedSource):
    """The schedulers' counters, and the settings of each parameter group: lr, betas, …"""

    name = "scheduler"
    origin: Origin = "optimizer"
    capabilities: frozenset[Capability] = frozenset()
    reset_refusal: ClassVar[str] = (
        "a checkpoint does not say with which learning rate its schedule began. Transplant it from an early "
        "checkpoint, or reset it by the callback, which was there at the beginning."
    )

    def __init__(self, schedulers: list[dict[str, Any]], optimizers: list[dict[str, Any]]) -> None:
        self._schedulers, self._optimizers = schedulers, optimizers

    def capture(self) -> State:
        state: dict[str, Leaf] = {}
        for number, scheduler in enumerate(self._schedulers):
            head = self._head("counters", number, self._schedulers)
            counters = flatten(scheduler, "the scheduler")
            state |= {f"{head}/{path}": leaf for path, leaf in counters.items()}
        for number, optimizer in enumerate(self._optimizers):
            head = self._head("optimizer", number, self._optimizers)
            groups = group_settings(optimizer["param_groups"], saved_counters)
            settings = flatten(groups, "an optimizer's settings")
            state |= {f"{head}/{path}": leaf for path, leaf in settings.items()}
        return state

    def restore(self, state: State) -> None:
        nested = split_heads(state)
        for number, scheduler in enumerate(self._schedulers):
            head = self._head("counters", number, self._schedulers)
            counters = like(scheduler, unflatten(nested[head]))
            scheduler.clear()
            scheduler.update(counters)
        for number, optimizer in enumerate(self._optimizers):
            head = self._head("optimizer", number, self._optimizers)
            for group, kept in zip(optimizer["param_groups"], unflatten(nested[head]), strict=True):
                group.update(kept)

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)

    def _head(self, what: str, number: int, among: list[Any]) -> str:
        return what if len(among) == 1 else f"{what}{number}"


class SavedStreams(CarriedStreams):
    """The generators in rng_state.pth; the states of other devices than the CPU are kept as they are."""

    capabilities: frozenset[Capability] = frozenset({"reseedable"})
    reset_refusal: ClassVar[str] = (
        "a checkpoint does not say where its generators began. Use reseed to draw them again."
    )

    def __init__(self, saved: dict[str, Any], seed: int) -> None:
        self._others = {n: v for n, v in saved.items() if n not in ("python", "numpy", "cpu")}
        python, numpy, cpu = random.Random(), np.random.RandomState(), torch.Generator()
        python.setstate(_as_tuples(saved["python"]))
        numpy.set_state(tuple(saved["numpy"]))
        cpu.set_state(saved["cpu"])
        self._generators = {"python": python, "numpy": numpy, "torch": cpu}
        self._keys = {name: mix(seed, "stream", name) for name in self._generators}

    def capture(self) -> State:
        return {**super().capture(), **self._of_others()}

    def restore(self, state: State) -> None:
        super().restore(state)
        if self._others:
            self._others = unflatten({name: state[name] for name in self._of_others()})

    def _of_others(self) -> State:
        return flatten(self._others, "rng_state.pth") if self._others else {}

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)

    def check_redrawn(self) -> None:
        """Refuse to re-draw the CPU's generators alone: a GPU's dropout would stay as it was."""
        if self._others:
            raise DesignError(
                f"the streams of {', '.join(self._others)} in rng_state.pth cannot be drawn again without "
                f"that device. Transplant them from another checkpoint, or use the callback."
            )

    def saved(self) -> dict[str, Any]:
        """The content of rng_state.pth as transformers.Trainer writes it."""
        python, numpy, cpu = (self._generators[name] for name in ("python", "numpy", "torch"))
        return {
            "python": python.getstate(),
            "numpy": numpy.get_state(),
            "cpu": cpu.get_state(),
            **self._others,
        }


def model_sources(tensors: Mapping[str, Tensor]) -> list[SavedTensors]:
    """The sources of a state dict: weights, and the statistics of normalisation layers, by torch's names."""
    statistics = {n: t for n, t in tensors.items() if n.rpartition(".")[2] in _STATISTICS}
    weights = {n: t for n, t in tensors.items() if n not in statistics}
    found: list[SavedTensors] = [SavedWeights(weights)] if weights else []
    return [*found, SavedBatchNorm(statistics)] if statistics else found


def _as_tuples(state: Any) -> Any:
    """Replace lists by tuples, at every depth: python's generator takes tuples, a file may hold lists."""
    return tuple(_as_tuples(s) for s in state) if isinstance(state, list | tuple) else state
