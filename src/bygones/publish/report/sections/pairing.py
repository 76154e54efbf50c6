"""Pairing: how much variance it removes, and where it removes none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bygones.analysis.metrics import METRICS
from bygones.analysis.pairing import PairingGain
from bygones.publish.report.sections.base import PageData


def pairing(page: PageData) -> dict[str, Any] | None:
    """Return a grid a metric (arms by horizons), and the horizons at which pairing does not pay."""
    pairings = page.evidence.pairing_gains
    grids = []
    for name in dict.fromkeys(gain.metric for gain in pairings):
        own = [gain for gain in pairings if gain.metric == name]
        horizons = sorted({gain.horizon for gain in own})
        by_arm: dict[str, list[PairingGain]] = {}
        for gain in own:
            by_arm.setdefault(gain.arm, []).append(gain)
        idle = [
            {"arm": arm, "where": where}
            for arm, found in by_arm.items()
            if (where := _where_idle(found))
        ]
        grids.append({"metric": METRICS[name], "horizons": horizons, "arms": by_arm, "idle": idle})
    return {"pairing": grids} if grids else None


def _where_idle(over_time: Sequence[PairingGain]) -> str:
    """Describe the horizons at which pairing does not pay; "" where it always does.

    >>> course = [PairingGain("a", "nll", h, 32, 0.5, r) for h, r in ((0, None), (1, 9.0), (10, 1.1))]
    >>> _where_idle(course), _where_idle(course[:2])
    ('from 10 steps on', '')
    """
    idle = [gain.horizon for gain in over_time if gain.pays is False]
    known = [gain.horizon for gain in over_time if gain.pays is not None]
    if not idle:
        return ""
    if idle == known:
        return "at every horizon"
    if idle == known[-len(idle) :]:
        return f"from {idle[0]} steps on"
    return f"{', '.join(map(str, idle))} steps on"
