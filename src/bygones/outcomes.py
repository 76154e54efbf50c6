"""What a study saw, as one labelled dataset: xarray, dims seed, arm, step, input, class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bygones.run import Run
from bygones.store import AbstractStore, Record, unpack
from bygones.study import Arm, Study
from bygones.tree import Addresses, Segment, Tree
from bygones.values import Digest, State


def gather(
    study: Study,
    arms: Sequence[Arm],
    tree: Tree,
    addresses: Addresses,
    store: AbstractStore,
    attributes: dict[str, Any],
) -> xr.Dataset:
    """Reads the observations of every seed and arm from the store, checking each object's digest.

    `logits` or `values` (seed, arm, step, input, class), `labels` (input), `train_loss` (seed, arm,
    train_step), `diverged_at` (seed, arm). After a divergence everything is NaN, nothing is dropped.
    """
    seeds, steps = study.seeds, study.steps
    kind = study.probe.kind
    observed: np.ndarray | None = None
    labels: np.ndarray | None = None
    losses = np.full((len(seeds), len(arms), study.end), np.nan, dtype=np.float32)
    diverged = np.full((len(seeds), len(arms)), np.nan)
    orders: dict[str, str] = {}
    for r, seed in enumerate(seeds):
        for segment in tree.segments:
            address = addresses.history(seed, segment.history)
            rows = [row for row, arm in enumerate(arms) if arm.name in segment.arms]
            for record in _relevant(store.records(address).values(), segment, addresses.probe):
                arrays, meta = unpack(store.get(record["observed"]))
                labels = arrays.get("labels", labels)
                low, high = max(record["start"], segment.start), min(record["stop"], segment.stop)
                shift = record["start"]
                losses[r, rows, low:high] = arrays["losses"][low - shift : high - shift]
                if record["diverged_at"] is not None and record["diverged_at"] < high:
                    diverged[r, rows] = record["diverged_at"]
                if segment.leaf and "control" in segment.arms:
                    orders[str(seed)] = record["order"]
                wanted = [
                    (h, s) for h, s in enumerate(steps) if s in meta["steps"] and s in segment.steps
                ]
                for h, step in wanted:
                    seen = arrays["observed"][meta["steps"].index(step)]
                    if observed is None:
                        shape = (len(seeds), len(arms), len(steps), *seen.shape)
                        observed = np.full(shape, math.nan, dtype=seen.dtype)
                    observed[r, rows, h] = seen
    assert observed is not None
    dims = ("seed", "arm", "step", "input", "class")
    variables: dict[str, Any] = {
        kind: (dims, observed),
        "train_loss": (("seed", "arm", "train_step"), losses),
        "diverged_at": (("seed", "arm"), diverged),
    }
    if kind == "logits" and labels is not None:
        variables["labels"] = (("input",), labels)
    coordinates = {"seed": list(seeds), "arm": [arm.name for arm in arms], "step": list(steps)}
    attributes["orders"]["realised"] = orders
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _relevant(records: Iterable[Record], segment: Segment, probe: Digest) -> list[Record]:
    """Records of this probe that cover some of a segment (a segment may have no length)."""
    return [
        record
        for record in records
        if record["observed"]
        and record["probe"] == probe
        and record["stop"] >= segment.start
        and record["start"] <= segment.stop
        and (record["stop"] > segment.start or segment.start == segment.stop)
        and (record["start"] < segment.stop or segment.start == segment.stop)
    ]


def describe(study: Study, arms: Sequence[Arm], run: Run) -> dict[str, Any]:
    """What a reader has to know about a study besides its numbers, as JSON-able values."""
    return {
        "study": study.name,
        "recipe": str(study.recipe),
        "fork_at": study.fork_at,
        "arms": [_arm(arm, run) for arm in arms],
        "sources": inventory(run),
        "orders": {
            "policy": type(run.parts.order).__name__,
            "policy_hash": run.parts.order.policy_hash(),
            "realised": {},
        },
        "digests": {"study": study.digest(), "recipe": study.recipe.code()},
    }


def inventory(run: Run) -> list[dict[str, Any]]:
    """Every source in a run: class, visibility, lifetime, leaves and bytes."""
    rows = []
    for name, source in run.sources.items():
        state = source.capture()
        lifetime = source.lifetime()
        rows.append(
            {
                "name": name,
                "origin": source.origin,
                "visibility": source.visibility,
                "lifetime": str(lifetime),
                "leaves": len(state),
                "bytes": state_bytes(state),
            }
        )
    return rows


def state_bytes(state: State) -> int:
    """Bytes that a state holds; a plain number counts as eight."""
    return sum(int(getattr(leaf, "nbytes", 8)) for leaf in state.values())


def _arm(arm: Arm, run: Run) -> dict[str, Any]:
    treatments = []
    for treatment in arm.treatments:
        lifetime = run.sources[treatment.source].lifetime()
        treatments.append(
            {
                "source": treatment.source,
                "intervention": str(treatment.intervention),
                "window": [treatment.window.start, treatment.window.stop],
                "leaves": treatment.leaves,
                "lifetime": str(lifetime),
                "lifetime_steps": lifetime.steps if math.isfinite(lifetime.steps) else None,
            }
        )
    return {
        "name": arm.name,
        "role": arm.role,
        "null_of": arm.null_of,
        "treatments": treatments,
        "sentence": str(arm),
    }
