"""Checkpoint files: read without running code from them, and written with one source changed.

    a folder   checkpoint-N of transformers.Trainer: optimizer.pt, scheduler.pt, rng_state.pth, *.safetensors
    a file     a .ckpt of lightning.Trainer: state_dict, optimizer_states, lr_schedulers

Neither library is needed. Nothing is unpickled: a file is opened by `torch.load(weights_only=True)` or by
safetensors, or not at all; files that hold nothing of the source are copied as bytes.
"""

from __future__ import annotations

import json
import pickle
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bygones.core.catalogue import Catalogue
from bygones.core.errors import StoreError
from bygones.trainers.saved_sources import (
    SavedMoments,
    SavedScheduler,
    SavedStreams,
    SavedTensors,
    model_sources,
)
from bygones.training.sources import AbstractSource


class AbstractCheckpoint(ABC):
    """An opened checkpoint: the step at which it was saved, and its sources."""

    step: int
    sources: Catalogue[AbstractSource]

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.seed = place, seed

    @abstractmethod
    def write(self, to: Path, source: str) -> None:
        """Write a copy in which only the files of this source are written anew."""

    def _catalogue(self, found: Iterable[AbstractSource | None]) -> Catalogue[AbstractSource]:
        kind = f"memory source in {self.place.name}"
        return Catalogue(kind, {source.name: source for source in found if source is not None})


class CheckpointFolder(AbstractCheckpoint):
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
                *model_sources(tensors),
                SavedMoments(optimizers) if optimizers else None,
                SavedScheduler(schedulers, optimizers) if schedulers else None,
                SavedStreams(self._draws, seed) if self._draws is not None else None,
            ]
        )

    def write(self, to: Path, source: str) -> None:
        if to.exists():
            shutil.rmtree(to)
        shutil.copytree(self.place, to)
        rewritten = self.sources[source]
        match rewritten:
            case SavedMoments():
                torch.save(self._optimizer, to / "optimizer.pt")
            case SavedScheduler():
                torch.save(self._optimizer, to / "optimizer.pt")
                torch.save(self._scheduler, to / "scheduler.pt")
            case SavedStreams():
                torch.save(rewritten.saved(), to / "rng_state.pth")
            case SavedTensors():  # which wrote into the tensors of every file
                for path, (held, metadata) in self._files.items():
                    save_file(held, to / path.name, metadata)

    def _loaded(self, name: str, *keys: str) -> Any:
        path = self.place / name
        return load_checkpoint(path, keys) if path.is_file() else None


class CheckpointFile(AbstractCheckpoint):
    """A .ckpt of lightning.Trainer."""

    def __init__(self, place: Path, seed: int) -> None:
        super().__init__(place, seed)
        self._held = load_checkpoint(place, ("global_step", "state_dict"))
        self.step = int(self._held["global_step"])
        optimizers = self._held.get("optimizer_states", [])
        schedulers = self._held.get("lr_schedulers", [])
        self.sources = self._catalogue(
            [
                *model_sources(self._held["state_dict"]),
                SavedMoments(optimizers) if optimizers else None,
                SavedScheduler(schedulers, optimizers) if schedulers else None,
            ]
        )

    def write(self, to: Path, source: str) -> None:
        torch.save(self._held, to)  # its sources wrote into what it holds


def open_checkpoint(place: Path, seed: int) -> AbstractCheckpoint:
    if place.is_dir():
        return CheckpointFolder(place, seed)
    if place.is_file():
        return CheckpointFile(place, seed)
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
        return int(json.loads(path.read_text("utf-8"))["global_step"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error


def load_checkpoint(path: Path, keys: Iterable[str]) -> Any:
    """Load a file, running no code from it. Raises `StoreError` if it cannot be read or lacks `keys`."""
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
    """Name the objects that a file may not hold, if they can be found; "" otherwise."""
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
