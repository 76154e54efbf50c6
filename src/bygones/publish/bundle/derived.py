"""Derived files of a bundle: computed from its manifest and objects, and checked against them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import xarray as xr

from bygones.analysis.effects import all_effects, default_metrics
from bygones.core.study_facts import facts_of
from bygones.core.values import Digest
from bygones.publish.bundle.layout import code_folder
from bygones.store.outcomes import Manifest

_IN_EFFECTS = ("study", "recipe", "digests", "orders", "contract")
_IN_STUDY = ("study", "recipe", "fork_at", "headline", "family", "margins", "arms", "digests")
_IN_STUDY_SINCE = (
    "interval",
    "stopping",
    "repeats",
)  # not recorded by earlier versions, nor where there is none


def study_of(manifest: Manifest) -> dict[str, Any]:
    """Return study.json: what was compared, over which seeds and steps, and of which code."""
    told = manifest.facts.to_dict()
    return {
        **{name: told[name] for name in _IN_STUDY},
        "seeds": manifest.seeds,
        "steps": manifest.steps,
        "horizons": [step - manifest.facts.fork_at for step in manifest.steps],
        "orders": told["orders"],
        "design": manifest.facts.design,
        **{name: told[name] for name in _IN_STUDY_SINCE if name in told},
    }


def contract_of(manifest: Manifest) -> dict[str, Any]:
    """Return contract.json: the numeric contract, and the RNG contract where it was recorded."""
    return {"numeric": manifest.facts.contract, "random": manifest.facts.rng}


def header_of(manifest: Manifest, seed: int, arm: str) -> dict[str, Any]:
    """Return the first line of an arm's ledger. `every` is null: the boundaries are those observed."""
    facts = manifest.facts
    return {
        "run": facts.recipe,
        "study": facts.digests["study"],
        "recipe": facts.digests["recipe"],
        "seed": seed,
        "arm": arm,
        "every": None,
        "boundaries": manifest.steps,
        "contract": facts.contract,
        "rng": facts.rng,
    }


def effects_of(outcomes: xr.Dataset) -> dict[str, Any]:
    """Return all effects: the value that `bygones report --json` prints."""
    found = [effect.to_dict() for effect in all_effects(outcomes, default_metrics(outcomes))]
    told = facts_of(outcomes).to_dict()
    return {**{name: told[name] for name in _IN_EFFECTS}, "effects": found}


def effects_json(outcomes: xr.Dataset) -> bytes:
    """Return effects.json: the bytes that `bygones report --json` prints."""
    return f"{json.dumps(effects_of(outcomes), indent=2)}\n".encode()


def objects_of(manifest: Manifest) -> list[Digest]:
    """Return the digest of every object that the manifest names, sorted."""
    images = [] if manifest.images is None else [manifest.images]
    return sorted({entry.object for entry in manifest.entries} | set(images))


def relocate(manifest: Manifest) -> Manifest:
    """Return the manifest with the folders of its code replaced by those of the bundle.

    A bundle holds none of the store's records.
    """
    manifest = replace(manifest, records={})
    design = manifest.facts.design
    if design is None:
        return manifest
    code = [{**row, "root": code_folder(index)} for index, row in enumerate(design.get("code", []))]
    return replace(manifest, facts=replace(manifest.facts, design={**design, "code": code}))
