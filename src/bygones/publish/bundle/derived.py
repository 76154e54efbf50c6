"""What in a bundle follows from its manifest and its objects: written from them, and checked against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import xarray as xr

from bygones.analysis.effects import all_effects, default_metrics
from bygones.core.values import Digest
from bygones.publish.bundle.layout import code_folder
from bygones.store.outcomes import Manifest, ManifestEntry

_SHOWN = ("study", "recipe", "digests", "orders", "contract")


def study_of(manifest: Manifest) -> dict[str, Any]:
    """The study as a reader wants it: what was compared, over which seeds, when, of which code."""
    attributes = manifest.attributes
    kept = ("study", "recipe", "fork_at", "headline", "family", "margins", "arms", "digests")
    return {
        **{name: attributes[name] for name in kept},
        "seeds": manifest.seeds,
        "steps": manifest.steps,
        "horizons": [step - attributes["fork_at"] for step in manifest.steps],
        "orders": attributes["orders"],
        "design": attributes.get("design"),
    }


def contract_of(manifest: Manifest) -> dict[str, Any]:
    """The numeric contract, and the one of the random numbers where it was recorded."""
    return {
        "numeric": manifest.attributes["contract"],
        "random": manifest.attributes.get("rng"),
    }


def header_of(manifest: Manifest, seed: int, arm: str) -> dict[str, Any]:
    """The first line of an arm's ledger. `every` is null: the boundaries are those observed."""
    attributes = manifest.attributes
    return {
        "run": attributes["recipe"],
        "study": attributes["digests"]["study"],
        "recipe": attributes["digests"]["recipe"],
        "seed": seed,
        "arm": arm,
        "every": None,
        "boundaries": manifest.steps,
        "contract": attributes["contract"],
        "rng": attributes.get("rng"),
    }


def effects_of(outcomes: xr.Dataset) -> dict[str, Any]:
    """What was found: the same value that `bygones report --json` prints."""
    found = [effect.to_dict() for effect in all_effects(outcomes, default_metrics(outcomes))]
    return {**{name: outcomes.attrs[name] for name in _SHOWN}, "effects": found}


def effects_json(outcomes: xr.Dataset) -> bytes:
    """The same bytes, too."""
    return f"{json.dumps(effects_of(outcomes), indent=2)}\n".encode()


def objects_of(manifest: Manifest) -> list[Digest]:
    """Every stored object that the manifest names."""
    images = [] if manifest.images is None else [manifest.images]
    return sorted({entry.object for entry in manifest.entries} | set(images))


def relocated(manifest: Manifest) -> Manifest:
    """The manifest without folders of the machine it was made on: code lies in the bundle from now on."""
    design = manifest.attributes.get("design")
    if design is None:
        return manifest
    code = [{**row, "root": code_folder(index)} for index, row in enumerate(design.get("code", []))]
    moved = {**manifest.attributes, "design": {**design, "code": code}}
    return Manifest(**{**vars(manifest), "attributes": moved})


def manifest_dict(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)


def manifest_of(value: Mapping[str, Any]) -> Manifest:
    return Manifest(**{**value, "entries": [ManifestEntry(**entry) for entry in value["entries"]]})
