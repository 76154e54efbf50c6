"""What in a bundle follows from its manifest and its objects: written from them, and checked against them."""

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


def study_of(manifest: Manifest) -> dict[str, Any]:
    """The study as a reader wants it: what was compared, over which seeds, when, of which code."""
    told = manifest.facts.to_dict()
    return {
        **{name: told[name] for name in _IN_STUDY},
        "seeds": manifest.seeds,
        "steps": manifest.steps,
        "horizons": [step - manifest.facts.fork_at for step in manifest.steps],
        "orders": told["orders"],
        "design": manifest.facts.design,
    }


def contract_of(manifest: Manifest) -> dict[str, Any]:
    """The numeric contract, and the one of the random numbers where it was recorded."""
    return {"numeric": manifest.facts.contract, "random": manifest.facts.rng}


def header_of(manifest: Manifest, seed: int, arm: str) -> dict[str, Any]:
    """The first line of an arm's ledger. `every` is null: the boundaries are those observed."""
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
    """What was found: the same value that `bygones report --json` prints."""
    found = [effect.to_dict() for effect in all_effects(outcomes, default_metrics(outcomes))]
    told = facts_of(outcomes).to_dict()
    return {**{name: told[name] for name in _IN_EFFECTS}, "effects": found}


def effects_json(outcomes: xr.Dataset) -> bytes:
    """The same bytes, too."""
    return f"{json.dumps(effects_of(outcomes), indent=2)}\n".encode()


def objects_of(manifest: Manifest) -> list[Digest]:
    """Every stored object that the manifest names."""
    images = [] if manifest.images is None else [manifest.images]
    return sorted({entry.object for entry in manifest.entries} | set(images))


def relocated(manifest: Manifest) -> Manifest:
    """The manifest without folders of the machine it was made on: code lies in the bundle from now on."""
    design = manifest.facts.design
    if design is None:
        return manifest
    code = [{**row, "root": code_folder(index)} for index, row in enumerate(design.get("code", []))]
    return replace(manifest, facts=replace(manifest.facts, design={**design, "code": code}))
