"""Gather outcomes: from stored objects to the manifest of a study, and to one labelled dataset.

Every study ends here: of a recipe, of a script and of a trainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import xarray as xr

from bygones.core.study_facts import ArmFacts, CertificateFacts, OrderFacts, StudyFacts
from bygones.core.values import Digest
from bygones.store import AbstractStore, FolderStore, Record, pack, unpack_meta
from bygones.store.outcomes import Manifest, ManifestEntry, read_outcomes, write_manifest
from bygones.study.design import Study
from bygones.study.plan import Plan
from bygones.study.repeats import Branch
from bygones.study.tree import Segment


def hold_store(store: AbstractStore) -> AbstractContextManager[None]:
    """Hold the store for this process while it trains; only a folder can be held."""
    return store.training() if isinstance(store, FolderStore) else nullcontext()


def gather_segments(planned: Plan, certificate: Mapping[str, Any]) -> xr.Dataset:
    """Write the manifest of a study whose segments are all stored, and read its outcomes."""
    found = _found_segments(planned)
    entries = [
        _entry(planned, seed, segment, branches, record)
        for seed, segment, _, records in found
        for record in records.values()
        for branches in _by_repeat(planned, segment)
    ]
    used: dict[Digest, list[str]] = {}
    for _, _, address, records in found:
        used[address] = sorted({*used.get(address, ()), *records})
    realised = _realised_orders(planned, entries)
    orders = replace(planned.facts.orders or OrderFacts(), realised=realised)
    images = planned.images
    return gather_entries(
        planned.study,
        planned.store,
        replace(planned.facts, orders=orders),
        entries,
        certificate,
        images=None if images is None else planned.store.put(pack({"images": images}, {})),
        records=used,
    )


def gather_entries(
    study: Study,
    store: AbstractStore,
    facts: StudyFacts,
    entries: Sequence[ManifestEntry],
    certificate: Mapping[str, Any],
    images: Digest | None = None,
    records: Mapping[Digest, list[str]] = MappingProxyType({}),
) -> xr.Dataset:
    """Write the manifest of these stored objects under the study's name, and read its outcomes."""
    facts = replace(facts, certificate=CertificateFacts.from_dict(certificate))
    manifest = Manifest(
        kind=study.probe.kind,
        seeds=list(study.seeds),
        steps=list(study.steps),
        end=study.end,
        entries=list(entries),
        facts=replace(facts, arms=_with_null_ratios(facts.arms, store, entries)),
        images=images,
        records=dict(records),
    )
    write_manifest(store, manifest)
    return read_outcomes(store, manifest)


def _with_null_ratios(
    arms: Sequence[ArmFacts], store: AbstractStore, entries: Sequence[ManifestEntry]
) -> tuple[ArmFacts, ...]:
    """Add to each null how far it moved its sources beside the treated arm, as was measured in the runs."""
    told: list[ArmFacts] = []
    for row, arm in enumerate(arms):
        objects = {entry.object for entry in entries if row in entry.arms and arm.role == "null"}
        ratios = [
            one["null"] / one["treated"] if one["treated"] > 0 else math.nan
            for stored in objects
            for one in unpack_meta(store.get(stored)).get("displacements", [])
            if one["treated"] > 0 or one["null"] > 0
        ]
        finite = [ratio for ratio in ratios if math.isfinite(ratio)]
        told.append(replace(arm, null_ratio=(min(finite), max(finite)) if finite else None))
    return tuple(told)


def _found_segments(planned: Plan) -> list[tuple[int, Segment, Digest, dict[str, Record]]]:
    """Find, for each seed and segment, its address, and the records of what was observed there by name."""
    found: list[tuple[int, Segment, Digest, dict[str, Record]]] = []
    for seed in planned.study.seeds:
        for segment in planned.tree.segments:
            address = planned.addresses.history(seed, segment.history)
            found.append((seed, segment, address, _records_of(planned, address, segment)))
    return found


def _by_repeat(planned: Plan, segment: Segment) -> list[list[Branch]]:
    """The branches that a segment belongs to: those of each repeat together."""
    here = [branch for branch in planned.branches if branch.arm.name in segment.arms]
    repeats = sorted({branch.repeat for branch in here})
    return [[branch for branch in here if branch.repeat == repeat] for repeat in repeats]


def _entry(
    planned: Plan, seed: int, segment: Segment, branches: Sequence[Branch], record: Record
) -> ManifestEntry:
    """The part of a record that lies in this segment. Steps observed for others are marked by -1."""
    mine = set(segment.steps) & set(branches[0].steps)
    high, diverged = min(record["stop"], segment.stop), record["diverged_at"]
    same_probe = record["probe"] == planned.addresses.probe
    return ManifestEntry(
        seed=seed,
        arms=[branch.row for branch in branches],
        object=record["observed"],
        start=record["start"],
        low=max(record["start"], segment.start),
        high=high,
        steps=[s if same_probe and s in mine else -1 for s in record["steps"]],
        diverged_at=diverged if diverged is not None and diverged < high else None,
        repeat=branches[0].repeat,
        equal_from=record["merged"]["at"] if record.get("merged") else None,
    )


def _records_of(planned: Plan, address: Digest, segment: Segment) -> dict[str, Record]:
    """Sound records that cover or touch some of a segment, by their start (either may have no length).

    Records of another probe count too: their losses are the same.
    """
    covering = {
        name: record
        for name, record in planned.store.records(address).items()
        if record["observed"]
        and planned.store.has(record["observed"])
        and record["start"] <= segment.stop
        and record["stop"] >= segment.start
    }
    return dict(sorted(covering.items(), key=lambda one: (one[1]["start"], one[1]["stop"])))


def _realised_orders(planned: Plan, entries: Sequence[ManifestEntry]) -> dict[str, Digest]:
    """The digest of the examples in their order, up to the end of each seed's control.

    Where arms are repeated within a seed, the control of the last fork that goes on as the run did.
    """
    control, end = [arm.name for arm in planned.arms].index("control"), planned.study.end
    last = len(planned.study.repeats) - planned.study.siblings
    orders: dict[str, Digest] = {}
    for entry in entries:
        if control in entry.arms and entry.repeat == last and entry.high >= end:
            meta = unpack_meta(planned.store.get(entry.object))
            if end in meta["steps"]:
                orders[str(entry.seed)] = meta["ledger"][meta["steps"].index(end)]["ids"]
    return orders
