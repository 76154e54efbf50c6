"""Gather outcomes: from the records of segments to the manifest of a study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bygones.core.study_facts import CertificateFacts, OrderFacts
from bygones.core.values import Digest
from bygones.store import Record, pack, unpack_meta
from bygones.store.outcomes import Manifest, ManifestEntry
from bygones.study.plan import Plan
from bygones.study.tree import Segment


def manifest_of(planned: Plan, certificate: dict[str, Any]) -> Manifest:
    """Finds, for each seed and segment, the stored objects that hold what was observed there."""
    study, tree = planned.study, planned.tree
    names = [arm.name for arm in planned.arms]
    entries: list[ManifestEntry] = []
    orders: dict[str, Digest] = {}
    for seed in study.seeds:
        for segment in tree.segments:
            rows = [names.index(name) for name in segment.arms]
            for record in _records_of(planned, seed, segment):
                low, high = max(record["start"], segment.start), min(record["stop"], segment.stop)
                diverged = record["diverged_at"]
                mine = record["probe"] == planned.addresses.probe
                entries.append(
                    ManifestEntry(
                        seed=seed,
                        arms=rows,
                        object=record["observed"],
                        start=record["start"],
                        low=low,
                        high=high,
                        steps=[s if mine and s in segment.steps else -1 for s in record["steps"]],
                        diverged_at=diverged if diverged is not None and diverged < high else None,
                    )
                )
                if "control" in segment.arms and study.end in record["steps"]:
                    lines = unpack_meta(planned.store.get(record["observed"]))["ledger"]
                    orders[str(seed)] = lines[record["steps"].index(study.end)]["ids"]
    order = replace(planned.facts.orders or OrderFacts(), realised=orders)
    facts = replace(
        planned.facts, certificate=CertificateFacts.from_dict(certificate), orders=order
    )
    images = planned.images
    return Manifest(
        kind=study.probe.kind,
        seeds=list(study.seeds),
        steps=list(study.steps),
        end=study.end,
        entries=entries,
        facts=facts,
        images=None if images is None else planned.store.put(pack({"images": images}, {})),
    )


def _records_of(planned: Plan, seed: int, segment: Segment) -> list[Record]:
    """Sound records that cover or touch some of a segment, by their start (either may have no length).

    Those of another probe too: the losses are the same.
    """
    address = planned.addresses.history(seed, segment.history)
    records = [
        record
        for record in planned.store.records(address).values()
        if record["observed"] and planned.store.has(record["observed"])
    ]
    covering = [r for r in records if r["start"] <= segment.stop and r["stop"] >= segment.start]
    return sorted(covering, key=lambda record: (record["start"], record["stop"]))
