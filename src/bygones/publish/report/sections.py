"""Later sections of a report: multiplicity, equivalence, pairing, inputs moved, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bygones.analysis.metrics import METRICS
from bygones.analysis.pairing import PairingGain
from bygones.publish.report import svg
from bygones.publish.report.drawing import NARROW
from bygones.publish.report.evidence import Evidence, Moved
from bygones.publish.report.field_figures import (
    breakdown_figure,
    field_picture,
    reliability_diagram,
)
from bygones.publish.report.page import draw_inline, inline
from bygones.publish.report.verdicts import Reading, format_estimate

_CHANGES = ("total", "reliability", "generalised_resolution")


def sections(evidence: Evidence, readings: Sequence[Reading], folder: Path) -> dict[str, Any]:
    """Return the template's values for these sections; every figure is saved under `folder`."""
    moved = evidence.moved
    return {
        "adjusted": evidence.adjusted,
        "is_declared": evidence.is_declared,
        "absences": evidence.absences,
        "pairing": _pairing(evidence.pairing_gains),
        "moved": None if moved is None else _moved(moved, readings, folder),
        "calibration": None if moved is None else _calibration(moved, folder),
    }


# ---------------------------------------------------------------- pairing


def _pairing(pairings: Sequence[PairingGain]) -> list[dict[str, Any]]:
    """Return a grid a metric: arms by horizons, and a line where pairing does not pay."""
    grids = []
    for name in dict.fromkeys(pairing.metric for pairing in pairings):
        own = [pairing for pairing in pairings if pairing.metric == name]
        horizons = sorted({pairing.horizon for pairing in own})
        by_arm: dict[str, list[PairingGain]] = {}
        for pairing in own:
            by_arm.setdefault(pairing.arm, []).append(pairing)
        idle = [
            {"arm": arm, "where": where}
            for arm, found in by_arm.items()
            if (where := _where_idle(found))
        ]
        grids.append({"metric": METRICS[name], "horizons": horizons, "arms": by_arm, "idle": idle})
    return grids


def _where_idle(over_time: Sequence[PairingGain]) -> str:
    """Describe the horizons at which pairing does not pay; "" where it always does.

    >>> course = [PairingGain("a", "nll", h, 32, 0.5, r) for h, r in ((0, None), (1, 9.0), (10, 1.1))]
    >>> _where_idle(course), _where_idle(course[:2])
    ('from 10 steps on', '')
    """
    idle = [pairing.horizon for pairing in over_time if pairing.pays is False]
    known = [pairing.horizon for pairing in over_time if pairing.pays is not None]
    if not idle:
        return ""
    if idle == known:
        return "at every horizon"
    if idle == known[-len(idle) :]:
        return f"from {idle[0]} steps on"
    return f"{', '.join(map(str, idle))} steps on"


# ---------------------------------------------------------------- the inputs


def _moved(moved: Moved, readings: Sequence[Reading], folder: Path) -> dict[str, Any]:
    reading = next(reading for reading in readings if reading.arm == moved.arm)
    field, images = moved.field, moved.images
    wide = draw_inline(field_picture(field, images), folder, "field", str(field))
    thin = field_picture(field, images, num_shown=12, width=NARROW)
    thin_svg = inline(svg.to_svg(thin, "field-narrow"), "field-narrow", str(field))
    groups = []
    for by, found in (("class", moved.by_class), ("difficulty", moved.by_difficulty)):
        if found:
            words = f"by {by}, with the number of inputs"
            label = f"{moved.arm}, {words}. " + " ".join(f"{group}." for group in found)
            drawing = draw_inline(
                breakdown_figure(found, title=words), folder, f"field-by-{by}", label
            )
            groups.append({"by": by, "svg": drawing})
    return {
        "arm": moved.arm, "horizon": moved.horizon, "field": field, "why": _why(reading),
        "wide": wide, "narrow": thin_svg, "groups": groups, "level": field.band.level,
    }  # fmt: skip


def _why(reading: Reading) -> str:
    """Describe why this arm's field is the one that is shown."""
    if reading.kind == "beyond":
        return f"the largest effect that is more than {reading.last.null_is}"
    if reading.kind in ("gone", "never"):
        return "the largest effect, at its peak, for by the last horizon it is gone"
    return "the largest effect that still stands; none is shown to be more than its matched null"


# ---------------------------------------------------------------- calibration


def _calibration(moved: Moved, folder: Path) -> dict[str, Any] | None:
    if moved.curves is None or moved.brier is None:
        return None
    treated, control = moved.curves
    gaps = [100 * curve.gap for curve in (treated, control)]
    label = (
        f"Reliability of {treated.arm} and of the control {moved.horizon} steps on: confidences "
        f"miss the share that is right by {gaps[0]:.2g} and {gaps[1]:.2g} points on average."
    )
    return {
        "svg": draw_inline(reliability_diagram(treated, control), folder, "reliability", label),
        "label": label,
        "changes": _changes(moved),
        "method": moved.brier["total"].method,
        "level": moved.brier["total"].level,
    }


def _changes(moved: Moved) -> Iterable[tuple[str, str]]:
    brier = moved.brier or {}
    return [
        (part.replace("_", " "), format_estimate(brier[part], signed=True)) for part in _CHANGES
    ]
