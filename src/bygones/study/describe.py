"""What is in a run and in a study, said as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bygones.core.values import State
from bygones.study.design import Arm, HasSources, Study
from bygones.training.treatment import describe_null


def describe_study(
    study: Study, arms: Sequence[Arm], run: HasSources, order: Mapping[str, str]
) -> dict[str, Any]:
    """What a reader has to know about a study besides its numbers, as JSON-able values.

    `order`: the `policy` by which examples are chosen, and its `policy_hash`.
    """
    return {
        "study": study.name,
        "recipe": str(study.recipe),
        "fork_at": study.fork_at,
        "headline": study.headline,
        "family": asdict(study.declared),
        "margins": dict(study.margins),
        "arms": [_arm(arm, run) for arm in arms],
        "sources": describe_sources(run),
        "orders": {**order, "realised": {}},
        "digests": {"study": study.digest(), "recipe": study.recipe.code()},
    }


def describe_sources(run: HasSources) -> list[dict[str, Any]]:
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


def _arm(arm: Arm, run: HasSources) -> dict[str, Any]:
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
        "noun": " and ".join(describe_null(t) for t in arm.treatments)
        if arm.role == "null"
        else None,
        "treatments": treatments,
        "sentence": str(arm),
    }
