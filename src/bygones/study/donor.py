"""Donors: which states of another seed's run a study transplants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bygones.core.values import State
from bygones.study.design import Arm
from bygones.training.sources import AbstractSource


def donor_reads(arms: Iterable[Arm]) -> dict[int, list[str]]:
    """The sources that a donor's run is read for, by step, in ascending order; empty without a transplant."""
    wanted = {(t.window.start, t.source) for arm in arms for t in arm.treatments if t.needs_donor}
    reads: dict[int, list[str]] = {}
    for step, source in sorted(wanted):
        reads.setdefault(step, []).append(source)
    return reads


def capture_sources(
    sources: Mapping[str, AbstractSource], names: Iterable[str]
) -> dict[str, State]:
    """Capture these sources' states, by name."""
    return {name: sources[name].capture() for name in names}
