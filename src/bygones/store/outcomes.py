"""Outcomes of a study as one labelled xarray dataset: dims seed, arm, step, input, class.

A study's *manifest* lists, for each seed and segment, the stored object that holds what was observed
there. With it a study can be read on a machine that could not train it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from bygones.core.catalogue import unknown_name
from bygones.core.digest import digest
from bygones.core.errors import StoreError
from bygones.core.hash_chain import ledger_entry
from bygones.core.study_facts import StudyFacts
from bygones.core.text import format_count
from bygones.core.values import Digest
from bygones.store import AbstractStore, FolderStore, unpack
from bygones.store.base import reading

_MOST_UNSTORED = 1 << 28  # steps that arms which ended early may lack
_STUDIES = digest("bygones.studies")  # the address under which manifests lie, by study name


@dataclass(frozen=True)
class ManifestEntry:
    """One stored object of a manifest: losses and outputs of some arms of one seed, from `low` to `high`.

    The object's losses begin at step `start`; its observations are those of `steps`, in order, -1 for what
    was observed for others. `repeat`: the index of the repeat whose arms they are. `equal_from`: the step
    by which the run equals its control in every bit, where it was found to.
    """

    seed: int
    arms: list[int]
    object: Digest
    start: int
    low: int
    high: int
    steps: list[int]
    diverged_at: int | None
    repeat: int = 0
    equal_from: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON; the last two only where there is something to say."""
        optional = {"repeat": 0, "equal_from": None}
        return {name: one for name, one in asdict(self).items() if optional.get(name, self) != one}


@dataclass(frozen=True)
class Manifest:
    """The stored objects of a study, and its metadata.

    `records`: the names of the segments' records that it was gathered from, by their addresses.
    """

    kind: Literal["logits", "values"]
    seeds: list[int]
    steps: list[int]
    end: int
    entries: list[ManifestEntry]
    facts: StudyFacts
    images: Digest | None = None  # what the probe inputs look like, if they are pictures
    records: Mapping[Digest, list[str]] = field(default_factory=dict[Digest, list[str]])

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        rest: dict[str, Any] = {name: part for name, part in value.items() if name != "attributes"}
        rest["entries"] = [ManifestEntry(**entry) for entry in value["entries"]]
        rest["facts"] = StudyFacts.from_dict(value["attributes"])
        return cls(**rest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON; the study's facts are its `attributes`."""
        records = {"records": self.records} if self.records else {}
        return {
            "kind": self.kind,
            "seeds": self.seeds,
            "steps": self.steps,
            "end": self.end,
            "entries": [entry.to_dict() for entry in self.entries],
            "attributes": self.facts.to_dict(),
            "images": self.images,
            **records,
        }


def write_manifest(store: AbstractStore, manifest: Manifest) -> None:
    """Write a manifest to the store, under its study's name."""
    store.write_record(_STUDIES, _file_name(manifest.facts.study), manifest.to_dict())


def delete_manifest(store: FolderStore, name: str) -> None:
    """Delete a study's manifest; its objects stay."""
    store.delete_record(_STUDIES, _file_name(name))


def read_manifests(store: AbstractStore) -> dict[str, Manifest]:
    """Read the manifests of all studies in a store, by the study's name."""
    found = store.records(_STUDIES).values()
    return {one["attributes"]["study"]: Manifest.from_dict(one) for one in found}


def read_manifest(store: AbstractStore, name: str | None = None) -> Manifest:
    """Read the manifest of a study; the name may be left out if the store holds only one.

    Raises StoreError where there is none or several, UnknownName for another name.
    """
    with reading("a study in this store"):
        found = {str(r["attributes"]["study"]): r for r in store.records(_STUDIES).values()}
    if not found:
        raise StoreError(
            "there is no finished study in this store. `bygones run STUDY --store …` makes one; an "
            "interrupted run goes on where it stopped."
        )
    if name is None and len(found) > 1:
        raise StoreError(f"this store holds several studies; choose one of: {', '.join(found)}.")
    chosen = name if name is not None else next(iter(found))
    if chosen not in found:
        raise unknown_name("study in this store", chosen, found)
    with reading(f"the study '{chosen}'"):
        return Manifest.from_dict(found[chosen])


def check_records(store: AbstractStore, manifest: Manifest) -> None:
    """Raise `StoreError` where a record that the study was gathered from is missing or damaged.

    Its outcomes can be read without; that they are of the runs that they are said to be of cannot be seen.
    """
    lost = [
        (address, name)
        for address, names in manifest.records.items()
        for name in sorted(set(names) - store.records(address).keys())
    ]
    if lost:
        address, name = lost[0]
        raise StoreError(
            f"this store lacks {format_count(len(lost), 'record')} of '{manifest.facts.study}' (missing or "
            f"damaged), like records/{address[:2]}/{address[2:]}/{name}.json. Run the study again to make "
            f"what is missing anew."
        )


def ledger_lines(
    store: AbstractStore, manifest: Manifest, seed: int, arm: str
) -> list[dict[str, Any]]:
    """Return the ledger's entries along one arm of one seed, at every boundary that was observed.

    Of the first repeat, where there are several.
    """
    row = [one.name for one in manifest.facts.arms].index(arm)
    lines: dict[int, dict[str, Any]] = {}
    losses: dict[int, float] = {}
    for stored in manifest.entries:
        if stored.seed == seed and row in stored.arms and not stored.repeat:
            arrays, meta = unpack(store.get(stored.object))
            mine = arrays["losses"][stored.low - stored.start : stored.high - stored.start]
            numbers: list[float] = mine.tolist()
            losses |= dict(enumerate(numbers, start=stored.low + 1))
            seen = zip(stored.steps, meta.get("ledger", []), strict=False)
            lines |= {step: line for step, line in seen if step >= 0}
    return [
        ledger_entry(step, line["ids"], line["batches"], losses.get(step), line["holds"])
        for step, line in sorted(lines.items())
    ]


def arrays_of_models(observed: np.ndarray, others: Sequence[str]) -> dict[str, np.ndarray]:
    """Name the arrays to be stored of what was observed, (H, M, N, C): the trained model's is the first."""
    named = {f"observed:{name}": observed[:, place] for place, name in enumerate(others, start=1)}
    return {"observed": observed[:, 0], **named}


def _file_name(study: str) -> str:
    """Return a file name for a study's manifest; a name with odd characters gets its digest appended."""
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in study)[:60]
    return plain if plain == study else f"{plain}-{digest(study)[:8]}"


def read_outcomes(store: AbstractStore, manifest: Manifest) -> xr.Dataset:
    """Read the outcomes of every seed and arm from the store, checking each object's digest.

    `logits` or `values` (seed, arm, step, input, class), `labels` (input), `train_loss` (seed, arm,
    train_step), `diverged_at` (seed, arm); where there are any, `equal_from` (seed, arm), the step by which
    an arm was found to equal its control in every bit, and `images` (input, height, width). Labels and
    images are of the probe set, and left out where a probe observed something else (a carrier has one row).
    Where several models were observed, the variable of each further one is `logits:NAME`. After a
    divergence everything is NaN, nothing is dropped. Where arms are repeated within seeds, the variables of
    each further repeat are `logits@1` and so on; see `analysis.repeats`.
    """
    with reading(f"the study '{manifest.facts.study}'"):
        _check_claimed_size(manifest)
        outcomes = _read_repeat(store, manifest, 0)
        for repeat in range(1, len(manifest.facts.repeats)):
            further = _read_repeat(store, manifest, repeat)
            for name, variable in further.data_vars.items():
                if "seed" in variable.dims:
                    outcomes[f"{name}@{repeat}"] = (variable.dims, variable.values)
    return outcomes


def _check_claimed_size(manifest: Manifest) -> None:
    """Raise before room is made for steps of which nearly none were stored."""
    claimed = len(manifest.seeds) * len(manifest.facts.arms) * manifest.end
    stored = sum(len(entry.arms) * (entry.high - entry.low) for entry in manifest.entries)
    if claimed > _MOST_UNSTORED + 1000 * stored:
        raise StoreError(
            f"the study '{manifest.facts.study}' claims {claimed:,} steps of all its arms and seeds, and "
            f"{stored:,} are stored. Its manifest is not as bygones writes it."
        )


def _read_repeat(store: AbstractStore, manifest: Manifest, repeat: int) -> xr.Dataset:
    """Read the outcomes of one repeat; its steps are given as those of the first."""
    repeats = manifest.facts.repeats
    later = repeats[repeat].fork_at - manifest.facts.fork_at if repeats else 0
    manifest = replace(
        manifest, entries=[entry for entry in manifest.entries if entry.repeat == repeat]
    )
    arms = [arm.name for arm in manifest.facts.arms]
    size = (len(manifest.seeds), len(arms))
    losses = np.full((*size, manifest.end), math.nan, dtype=np.float32)
    diverged, equal_from = np.full(size, math.nan), np.full(size, math.nan)
    models = manifest.facts.models or ("",)
    observed: dict[str, np.ndarray] = {}
    labels: np.ndarray | None = None
    row_of = {seed: row for row, seed in enumerate(manifest.seeds)}
    for entry in manifest.entries:
        arrays, _ = unpack(store.get(entry.object))
        if "labels" in arrays:
            labels = arrays["labels"]
        row = row_of[entry.seed]
        losses[row, entry.arms, entry.low : entry.high] = arrays["losses"][
            entry.low - entry.start : entry.high - entry.start
        ]
        if entry.diverged_at is not None:
            diverged[row, entry.arms] = entry.diverged_at
        if entry.equal_from is not None:
            equal_from[row, entry.arms] = entry.equal_from - later
        for index, step in enumerate(entry.steps):
            if step - later not in manifest.steps:
                continue
            for name in models:
                seen = arrays.get(f"observed:{name}", arrays["observed"])[index]
                if name not in observed:
                    shape = (*size, len(manifest.steps), *seen.shape)
                    observed[name] = np.full(shape, math.nan, dtype=seen.dtype)
                observed[name][row, entry.arms, manifest.steps.index(step - later)] = seen
    if not observed:
        raise StoreError(
            "no run of this study came to a boundary that is observed: each ended before it, or was killed. "
            "See that the program trains on to the last horizon, and run the study again."
        )
    outcomes = _dataset(manifest, arms, observed, labels, losses, diverged)
    if np.isfinite(equal_from).any():
        outcomes["equal_from"] = (("seed", "arm"), equal_from)
    if manifest.images is not None:
        images, _ = unpack(store.get(manifest.images))
        if len(images["images"]) == outcomes.sizes["input"]:
            outcomes["images"] = (("input", "height", "width"), images["images"])
    return outcomes


def _dataset(
    manifest: Manifest,
    arms: Sequence[str],
    observed: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    losses: np.ndarray,
    diverged: np.ndarray,
) -> xr.Dataset:
    first, *others = observed
    names = {first: manifest.kind} | {name: f"{manifest.kind}:{name}" for name in others}
    dims = ("seed", "arm", "step", "input", "class")
    variables: dict[str, Any] = {
        **{names[name]: (dims, outputs) for name, outputs in observed.items()},
        "train_loss": (("seed", "arm", "train_step"), losses),
        "diverged_at": (("seed", "arm"), diverged),
    }
    if (
        manifest.kind == "logits"
        and labels is not None
        and len(labels) == observed[first].shape[-2]
    ):
        variables["labels"] = (("input",), labels)
    coordinates = {"seed": manifest.seeds, "arm": list(arms), "step": manifest.steps}
    return xr.Dataset(variables, coords=coordinates, attrs=manifest.facts.to_dict())
