"""Costs of what a checkpoint omits: how far the function moves, over the seeds, with its references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bygones.analysis.estimators.base import Estimate
from bygones.analysis.estimators.paired_t import paired_t
from bygones.audit.continuation import function_distance
from bygones.audit.resume_arms import ForkedArms
from bygones.audit.resume_runs import ReferenceRun, ResumedState
from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.changed_settings import ChangedRuns


@dataclass(frozen=True)
class Cost:
    """How far the omission of a source moves the function, over the seeds, and the references.

    `by_seed`: the distance at the last boundary in each seed; `ceiling`: between runs of two seeds.
    """

    source: str
    module: str  # which function: the trained module's (""), or an average's
    by_seed: tuple[float, ...]
    estimate: Estimate | None
    ceiling: float | None
    unit: str


@dataclass
class SeedResult:
    """The runs of one seed and their verdicts."""

    whole: ReferenceRun
    resumed: ResumedState
    carried: ForkedArms
    at: int
    end: int
    verdicts: list[Verdict]
    ceiling: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    changed: ChangedRuns | None = None  # resumed under other settings

    @property
    def has_costs(self) -> bool:
        """Whether something is lost, and how far that moves the function was measured."""
        return any(v.outcome == "FAIL" and v.lost is not None for v in self.verdicts)


def largest_sham_distance(mine: SeedResult) -> float:
    kind = "values" if mine.whole.inputs is None else mine.whole.inputs.kind
    control, sham = mine.carried.continuations["carried"], mine.carried.continuations["sham"]
    pairs = [(control.outputs[name], sham.outputs[name]) for name in control.outputs]
    return max((function_distance(a, b, kind) for a, b in pairs), default=0.0)


def gather_costs(found: Mapping[int, SeedResult]) -> list[Cost]:
    """Return the cost of each source for each function, over the seeds that have such an arm."""
    seen: dict[tuple[str, str], list[float]] = {}
    for mine in found.values():
        for verdict in mine.verdicts:
            for module, apart in (verdict.lost or {}).items():
                seen.setdefault((verdict.source, module), []).append(apart)
    kinds = {mine.whole.inputs.kind for mine in found.values() if mine.whole.inputs is not None}
    unit = "TV" if kinds == {"logits"} else "RMS"
    return [
        Cost(
            source,
            module,
            tuple(values),
            paired_t(np.asarray(values)) if len(values) > 1 else None,
            _mean([m.ceiling[module] for m in found.values() if module in m.ceiling]),
            unit,
        )
        for (source, module), values in seen.items()
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
