"""Written files: compare what two runs of a script left in their folder, and what they printed.

A file whose bytes differ is compared key by key if it can be read without running code from it
(`torch.load(weights_only=True)`, safetensors, npy and npz without pickles, JSON).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.torch import load_file

from bygones.core.digest import is_array, same_bits
from bygones.core.errors import StoreError
from bygones.core.first_difference import first_differing_index
from bygones.trainers.checkpoint_files import load_checkpoint

_PRINTED, _FILES = "stdout.txt", "files"
# Sizes of the saved states of torch's generators on the CPU and on a GPU, and of numpy's.
_GENERATOR_STATES = {("uint8", 5056), ("uint8", 16), ("uint32", 624)}
_TEXT = (".txt", ".log", ".csv", ".tsv", ".md", ".jsonl")
_NOTHING = object()

Kind = Literal["weights", "value", "bytes", "text"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A place in which two files differ.

    `kind`: "weights" for a floating-point array of a wanted shape; "value" for any other value; "bytes" for a
    file that cannot be read; "text" for a log. `key`: the path within the file, empty for the whole of it.
    """

    file: str
    key: str
    kind: Kind
    words: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}: {self.key}" if self.key else self.file


def list_written(folder: Path) -> dict[str, Path]:
    """Return every file that a run wrote, by its path from the run's folder; links are left out."""
    found: dict[str, Path] = {}
    top = folder / _FILES
    for place, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]
        for name in files:
            path = Path(place) / name
            if not path.is_symlink():
                found[str(path.relative_to(top))] = path
    return dict(sorted(found.items()))


def compare_files(
    one: Path, other: Path, shapes: Collection[Shape], among: Collection[str] | None = None
) -> tuple[list[str], list[Difference]]:
    """Compare the files that two runs both wrote: those that are there, and their differences.

    `one`, `other`: folders of the runs. `shapes`: of trained arrays. `among`: the only files that are looked
    at; all if None. A file that one run alone wrote is not compared: its name may hold the time.
    """
    mine, theirs = list_written(one), list_written(other)
    common = [name for name in mine if name in theirs and (among is None or name in among)]
    found: list[Difference] = []
    for name in common:
        found += _compare_file(name, mine[name], theirs[name], shapes)
    return common, found


def _compare_file(
    name: str, one: Path, other: Path, shapes: Collection[Shape]
) -> Iterator[Difference]:
    if one.read_bytes() == other.read_bytes():
        return
    if one.suffix in _TEXT:
        yield Difference(name, "", "text")
        return
    mine, theirs = read_values(one), read_values(other)
    if mine is None or theirs is None:
        yield Difference(name, "", "bytes")
        return
    for key, value in mine.items():
        held = theirs.get(key, _NOTHING)
        if _is_generator_state(value) or (held is not _NOTHING and same_bits(value, held)):
            continue
        wanted = _is_wanted(value, shapes)
        absent = held is _NOTHING or held is None
        kind: Kind = "weights" if wanted and (absent or _alike(value, held)) else "value"
        yield Difference(name, key, kind, _in_words(value, held))


def _is_generator_state(value: Any) -> bool:
    return is_array(value) and (_type(value), int(np.prod(value.shape))) in _GENERATOR_STATES


def _is_wanted(value: Any, shapes: Collection[Shape]) -> bool:
    return is_array(value) and "float" in _type(value) and tuple(value.shape) in shapes


def _alike(one: Any, other: Any) -> bool:
    return is_array(other) and tuple(one.shape) == tuple(other.shape)


def _type(array: Any) -> str:
    return str(array.dtype).replace("torch.", "")


def _in_words(value: Any, held: Any) -> str:
    if held is _NOTHING:
        return "missing"
    if held is None:
        return "None"
    plain = bool | int | float | str
    words = f"{held!r} instead of {value!r}"
    return words if isinstance(value, plain) and isinstance(held, plain) and len(words) < 60 else ""


# ------------------------------------------------------------------ reading


def read_values(path: Path) -> dict[str, Any] | None:
    """Return the values in a file by key, `model/0.weight`; None if it cannot be read without running code.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.json"
    ...     _ = path.write_text('{"best": {"score": 0.5}, "steps": [1, 2]}')
    ...     read_values(path)
    {'best/score': 0.5, 'steps/0': 1, 'steps/1': 2}
    """
    try:
        match path.suffix:
            case ".json":
                held = json.loads(path.read_text())
            case ".safetensors":
                held = load_file(path)
            case ".npy":
                held = np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    held = {name: arrays[name] for name in arrays.files}
            case _:
                held = load_checkpoint(path, ())
    except (StoreError, OSError, ValueError, RuntimeError, KeyError):
        return None
    return dict(_flatten("", held))


def _flatten(key: str, held: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(held, Mapping):
        for name, value in held.items():
            yield from _flatten(f"{key}/{name}".lstrip("/"), value)
    elif isinstance(held, list | tuple) and len(held) <= 100:
        for number, value in enumerate(held):
            yield from _flatten(f"{key}/{number}".lstrip("/"), value)
    else:
        yield key, held


# ------------------------------------------------------------------ printed lines


def differing_line(one: Path, other: Path, again: Path) -> tuple[str, str] | None:
    """Return the first printed line that differs, in one run and in the other; None if there is none.

    Lines are paired from the end, as long as they differ in numbers alone: a run that was resumed prints the
    last lines only. A line that differs in `again`, another run like `one`, is left out.
    """
    lines = [_printed(folder) for folder in (one, other, again)]
    pairs: list[tuple[str, str]] = []
    for mine, theirs, repeated in zip(*lines, strict=False):
        if _NUMBER.sub("#", mine) != _NUMBER.sub("#", theirs):
            break
        if mine == repeated:
            pairs.append((mine, theirs))
    number = first_differing_index([a for a, _ in pairs[::-1]], [b for _, b in pairs[::-1]])
    return None if number is None else pairs[::-1][number]


_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?|\bnan\b|\binf\b")


def _printed(folder: Path) -> list[str]:
    """Return the lines that a run printed, last one first; what overwrites a line counts as a line."""
    text = (folder / _PRINTED).read_bytes().decode(errors="replace")
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()][::-1]
