"""Calibration: a reliability diagram, and the change of the Brier score's parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bygones.publish.report.evidence import Moved
from bygones.publish.report.field_figures import reliability_diagram
from bygones.publish.report.page import draw_inline
from bygones.publish.report.sections.base import PageData
from bygones.publish.verdicts import format_estimate

_CHANGES = ("total", "reliability", "generalised_resolution")


def calibration(page: PageData) -> dict[str, Any] | None:
    """Return the reliability diagram of the arm that moves most, and the change of its Brier score."""
    moved = page.evidence.moved
    if moved is None or moved.curves is None or moved.brier is None:
        return None
    treated, control = moved.curves
    gaps = [100 * curve.gap for curve in (treated, control)]
    label = (
        f"Reliability of {treated.arm} and of the control {moved.horizon} steps on: confidences "
        f"miss the share that is right by {gaps[0]:.2g} and {gaps[1]:.2g} points on average."
    )
    shown = {
        "arm": moved.arm,
        "horizon": moved.horizon,
        "svg": draw_inline(
            reliability_diagram(treated, control), page.folder, "reliability", label
        ),
        "label": label,
        "changes": _changes(moved),
        "method": moved.brier["total"].method,
        "level": moved.brier["total"].level,
    }
    return {"calibration": shown}


def _changes(moved: Moved) -> Iterable[tuple[str, str]]:
    brier = moved.brier or {}
    return [
        (part.replace("_", " "), format_estimate(brier[part], signed=True)) for part in _CHANGES
    ]
