"""Checkpoint surgery: a saved checkpoint is copied with one source rewritten, so that an ordinary resume of
the copy is an arm.

    a folder   checkpoint-N of transformers.Trainer: optimizer.pt, scheduler.pt, rng_state.pth, *.safetensors
    a file     a .ckpt of lightning.Trainer: state_dict, optimizer_states, lr_schedulers

Neither library is needed here. Nothing is unpickled: a file is opened by `torch.load(weights_only=True)` or
by safetensors, or not at all; files that the source does not lie in are copied as bytes.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bygones.attach.sources.carried_streams import CarriedStreams
from bygones.core.catalogue import Catalogue
from bygones.core.errors import DesignError, StoreError
from bygones.core.keyed_rng import mix
from bygones.core.values import (
    Capability,
    Leaf,
    Lifetime,
    Origin,
    State,
    Visibility,
    Window,
    match_leaves,
)
from bygones.training.interventions import AbstractIntervention, Hold, Reseed
from bygones.training.leaves import clone_leaf
from bygones.training.nested_state import flatten, like, unflatten
from bygones.training.recipe import Parts
from bygones.training.rewriter import Rewriter
from bygones.training.sources import AbstractSource
from bygones.training.sources.base import overwrite_all, refuse_reset
from bygones.training.treatment import Treatment, check_pair

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def rewrite_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    source: str,
    intervention: AbstractIntervention,
    donor: str | Path | None = None,
    *,
    leaves: str = "*",
    seed: int = 0,
) -> Path:
    """Copies a checkpoint to `out` with one source rewritten, and returns `out`: resume it as any other.

    `source`: weights, moments, scheduler, batchnorm or streams, as far as the checkpoint keeps them.
    `donor`: the checkpoint that a `Transplant` takes the source from. `leaves`: the leaves to rewrite.
    `seed` decides random kicks and re-drawn streams. A reset optimizer is saved without state, so the one
    that loads it is as newly created and its bias correction restarts. What `Replace` puts in stays.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists():
        raise DesignError(f"{out} exists already; name a new place for the rewritten checkpoint.")
    opened = _open(checkpoint, seed)
    rewritten = opened.sources[source]
    window = Window(opened.step, opened.step + 1)
    treatment = Treatment(source, intervention, window, leaves)
    _check(treatment, rewritten, opened, donor)
    given = None if donor is None else _donated(_open(Path(donor), seed), rewritten)
    states = None if given is None else lambda step: given
    Rewriter(opened.sources, seed).intervene(opened.step, [treatment], states)
    partial = out.with_name(f"{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    opened.write(partial, source)
    partial.replace(out)
    return out


# ------------------------------------------------------------------ checkpoints


class _Checkpoint(ABC):
    """A checkpoint that was opened: the step at which it was saved, and the sources that it keeps."""

    step: int
    sources: Catalogue[AbstractSource]

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.seed = place, seed

    @abstractmethod
    def write(self, to: Path, source: str) -> None:
        """A copy in which only what holds this source is written anew."""

    def _catalogue(self, found: Iterable[AbstractSource | None]) -> Catalogue[AbstractSource]:
        kind = f"memory source in {self.place.name}"
        return Catalogue(kind, {source.name: source for source in found if source is not None})


class _Folder(_Checkpoint):
    """checkpoint-N of transformers.Trainer."""

    def __init__(self, place: Path, seed: int) -> None:
        super().__init__(place, seed)
        self.step = _global_step(place)
        self._optimizer = self._loaded("optimizer.pt", "state", "param_groups")
        self._scheduler = self._loaded("scheduler.pt")
        self._draws = self._loaded("rng_state.pth", "python", "numpy", "cpu")
        self._files = {
            path: _tensors(path)
            for pattern in ("model*.safetensors", "adapter_model.safetensors")
            for path in sorted(place.glob(pattern))
        }
        tensors: dict[str, Tensor] = {}
        for held, _ in self._files.values():
            tensors |= held
        optimizers = [] if self._optimizer is None else [self._optimizer]
        schedulers = [] if self._scheduler is None else [self._scheduler]
        self.sources = self._catalogue(
            [
                *_of_model(tensors),
                _SavedMoments(optimizers) if optimizers else None,
                _SavedScheduler(schedulers, optimizers) if schedulers else None,
                _SavedStreams(self._draws, seed) if self._draws is not None else None,
            ]
        )

    def write(self, to: Path, source: str) -> None:
        if to.exists():
            shutil.rmtree(to)
        shutil.copytree(self.place, to)
        rewritten = self.sources[source]
        match rewritten:
            case _SavedMoments():
                torch.save(self._optimizer, to / "optimizer.pt")
            case _SavedScheduler():
                torch.save(self._optimizer, to / "optimizer.pt")
                torch.save(self._scheduler, to / "scheduler.pt")
            case _SavedStreams():
                torch.save(rewritten.saved(), to / "rng_state.pth")
            case _SavedTensors():  # which wrote into the tensors of every file
                for path, (held, metadata) in self._files.items():
                    save_file(held, to / path.name, metadata)

    def _loaded(self, name: str, *keys: str) -> Any:
        path = self.place / name
        return load_checkpoint(path, keys) if path.is_file() else None


class _File(_Checkpoint):
    """A .ckpt of lightning.Trainer."""

    def __init__(self, place: Path, seed: int) -> None:
        super().__init__(place, seed)
        self._held = load_checkpoint(place, ("global_step", "state_dict"))
        self.step = int(self._held["global_step"])
        optimizers = self._held.get("optimizer_states", [])
        schedulers = self._held.get("lr_schedulers", [])
        self.sources = self._catalogue(
            [
                *_of_model(self._held["state_dict"]),
                _SavedMoments(optimizers) if optimizers else None,
                _SavedScheduler(schedulers, optimizers) if schedulers else None,
            ]
        )

    def write(self, to: Path, source: str) -> None:
        torch.save(self._held, to)  # its sources wrote into what it holds


def _open(place: Path, seed: int) -> _Checkpoint:
    if place.is_dir():
        return _Folder(place, seed)
    if place.is_file():
        return _File(place, seed)
    raise StoreError(
        f"there is no checkpoint at {place}. Expected a folder checkpoint-N of transformers.Trainer or a "
        f".ckpt file of lightning.Trainer."
    )


def _global_step(folder: Path) -> int:
    path = folder / "trainer_state.json"
    if not path.is_file():
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise StoreError(
            f"{folder} is no checkpoint of transformers.Trainer: it has no trainer_state.json (it has "
            f"{names}). Expected a folder checkpoint-N, as the Trainer saves it."
        )
    try:
        return int(json.loads(path.read_text())["global_step"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error


def load_checkpoint(path: Path, keys: Iterable[str]) -> Any:
    """A file's content, without running anything that is in it."""
    made_by = np.zeros(0).__reduce__()[0]  # what numpy names in a pickle as the maker of an array
    allowed = [made_by, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    try:
        with torch.serialization.safe_globals(allowed):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"{path} is damaged or holds objects besides tensors, numbers and text, and bygones runs no code "
            f"from a checkpoint{_foreign(path)}. Save it without them."
        ) from error
    except Exception as error:
        raise StoreError(
            f"{path} cannot be read as a checkpoint: {type(error).__name__}: {_first_line(error)}"
        ) from error
    missing = [key for key in keys if not isinstance(held, Mapping) or key not in held]
    if missing:
        found = (
            ", ".join(map(str, list(held)[:6]))
            if isinstance(held, Mapping)
            else type(held).__name__
        )
        raise StoreError(
            f"{path} is no checkpoint that is known here: it lacks {', '.join(missing)} (it has {found}). "
            f"Expected what transformers.Trainer or lightning.Trainer saves."
        )
    return held


def _foreign(path: Path) -> str:
    """The names of the objects that keep a file from being opened, if they can be told."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return ""
    return f" ({', '.join(names[:3])})" if names else ""


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).split("\n")[0]
    return text if text.endswith(".") else f"{text}."


# ------------------------------------------------------------------ what can be refused


def _check(
    treatment: Treatment, source: AbstractSource, opened: _Checkpoint, donor: Path | str | None
) -> None:
    check_pair(treatment, source)
    if isinstance(treatment.intervention, Hold):
        raise DesignError(
            "hold lasts for a window, and a checkpoint is one boundary. Use the callback."
        )
    if treatment.needs_donor and donor is None:
        raise DesignError(f"{treatment} needs donor=, the checkpoint to take it from.")
    if donor is not None and not treatment.needs_donor:
        raise DesignError(
            f"'{treatment.intervention}' takes nothing from a donor; leave donor out."
        )
    if isinstance(treatment.intervention, Reseed) and isinstance(source, _SavedStreams):
        source.check_redrawn()
    state = source.capture()
    if state and not match_leaves(state, treatment.leaves):
        raise DesignError(
            f"no leaf of {source.name} in {opened.place.name} matches '{treatment.leaves}'. There are: "
            f"{', '.join(list(state)[:6])}{', …' if len(state) > 6 else ''}."
        )


def _donated(donor: _Checkpoint, source: AbstractSource) -> dict[str, State]:
    """The donor's state of this source, if it fits."""
    given, mine = donor.sources[source.name].capture(), source.capture()
    for name in sorted(given.keys() | mine.keys()):
        here, there = _kind(mine, name), _kind(given, name)
        if isinstance(source, _SavedMoments) and "missing" in (here, there):
            continue  # one of the two optimizers has not updated this parameter yet
        if here != there:
            raise DesignError(
                f"{donor.place} cannot be the donor of {source.name}: {name} is {there} there and {here} in "
                f"the checkpoint to rewrite. Both must be of the same model and settings."
            )
    return {source.name: given}


def _kind(state: State, name: str) -> str:
    """What a leaf is like, in words; plain values are all alike."""
    if name not in state:
        return "missing"
    leaf = state[name]
    if isinstance(leaf, Tensor | np.ndarray):
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
    return "a plain value"


# ------------------------------------------------------------------ sources that lie in files


class _Saved(AbstractSource):
    """A source of memory that lies in a file: read and written as a live one is."""

    visibility: Visibility = "state_dict"

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """A recipe's sources are alive; see `bygones.training.sources`."""
        return None

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


class _SavedTensors(_Saved):
    """Entries of a model's state dict, which are written into in place."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def capture(self) -> State:
        return {self.leaf(name): clone_leaf(tensor) for name, tensor in self.tensors.items()}

    def restore(self, state: State) -> None:
        overwrite_all({self.leaf(n): t for n, t in self.tensors.items()}, state, self.name)

    def leaf(self, name: str) -> str:
        return name


class _SavedWeights(_SavedTensors):
    """Every entry of the state dict that is no statistic of a normalisation layer."""

    name = "weights"
    origin: Origin = "path"
    capabilities: frozenset[Capability] = frozenset({"arrays"})
    reset_refusal: ClassVar[str] = (
        "the weights are the path itself, and there is no new path. Use kick, nudge or transplant."
    )

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)


class _SavedBatchNorm(_SavedTensors):
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


class _SavedMoments(_Saved):
    """The state of each optimizer: `<parameter>/<torch's own key>`, by name if the file has names.

    A new optimizer's state is empty, and it is saved empty: it is then filled at the first step. Adagrad
    fills its own when it is made, from a setting that the file has.
    """

    name = "moments"
    origin: Origin = "optimizer"

    def __init__(self, optimizers: list[dict[str, Any]]) -> None:
        self._optimizers = optimizers

    def _members(self) -> list[tuple[str, dict[str, Any], int, dict[str, Any]]]:
        """Each parameter: its name, its optimizer, its number there, and its group."""
        members = []
        for label, optimizer in enumerate(self._optimizers):
            prefix = f"optimizer{label}:" if len(self._optimizers) > 1 else ""
            for group in optimizer["param_groups"]:
                names = group.get("param_names") or [f"parameter{n}" for n in group["params"]]
                for name, number in zip(names, group["params"], strict=True):
                    members.append((f"{prefix}{name}", optimizer, number, group))
        return members

    def capture(self) -> State:
        state: dict[str, Leaf] = {}
        for name, optimizer, number, _ in self._members():
            for key, value in optimizer["state"].get(number, {}).items():
                for path, leaf in flatten(value, f"moments of {name}").items():
                    state[f"{name}/{key}/{path}".rstrip("/")] = leaf
        return state

    def restore(self, state: State) -> None:
        wanted: dict[str, dict[str, dict[str, Leaf]]] = {}
        for path, leaf in state.items():
            name, key, rest = (*path.split("/", 2), "")[:3]
            wanted.setdefault(name, {}).setdefault(key, {})[rest] = leaf
        for name, optimizer, number, _ in self._members():
            held = optimizer["state"].pop(number, {})
            mine = wanted.get(name, {})
            if mine:
                new = {key: like(held.get(key), unflatten(leaves)) for key, leaves in mine.items()}
                optimizer["state"][number] = new

    def fresh(self) -> State:
        state: dict[str, Leaf] = {}
        for name, optimizer, number, group in self._members():
            held = optimizer["state"].get(number, {})
            if "sum" in held and "initial_accumulator_value" in group:
                start = float(group["initial_accumulator_value"])
                state[f"{name}/step"] = torch.zeros_like(held["step"])
                state[f"{name}/sum"] = torch.full_like(held["sum"], start)
        return state


class _SavedScheduler(_Saved):
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
            settings = flatten(_settings(optimizer), "an optimizer's settings")
            state |= {f"{head}/{path}": leaf for path, leaf in settings.items()}
        return state

    def restore(self, state: State) -> None:
        nested: dict[str, dict[str, Leaf]] = {}
        for path, leaf in state.items():
            head, _, rest = path.partition("/")
            nested.setdefault(head, {})[rest] = leaf
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


class _SavedStreams(CarriedStreams):
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
        """Re-drawing only the CPU's generators would leave a GPU's dropout as it was."""
        if self._others:
            raise DesignError(
                f"the streams of {', '.join(self._others)} in rng_state.pth cannot be drawn again without "
                f"that device. Transplant them from another checkpoint, or use the callback."
            )

    def saved(self) -> dict[str, Any]:
        """As transformers.Trainer writes it."""
        python, numpy, cpu = (self._generators[name] for name in ("python", "numpy", "torch"))
        return {
            "python": python.getstate(),
            "numpy": numpy.get_state(),
            "cpu": cpu.get_state(),
            **self._others,
        }


def _of_model(tensors: Mapping[str, Tensor]) -> list[_SavedTensors]:
    """Weights and statistics, told apart by the names that torch gives the statistics."""
    statistics = {n: t for n, t in tensors.items() if n.rpartition(".")[2] in _STATISTICS}
    weights = {n: t for n, t in tensors.items() if n not in statistics}
    found: list[_SavedTensors] = [_SavedWeights(weights)] if weights else []
    return [*found, _SavedBatchNorm(statistics)] if statistics else found


def _settings(optimizer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for group in optimizer["param_groups"]
    ]


def _as_tuples(state: Any) -> Any:
    """python's generator wants tuples; a file may give lists."""
    return tuple(_as_tuples(s) for s in state) if isinstance(state, list | tuple) else state
