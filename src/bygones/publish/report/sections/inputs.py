"""Inputs moved: the function-space effect, input by input."""

from __future__ import annotations

from typing import Any

from bygones.publish.report import svg
from bygones.publish.report.drawing import NARROW
from bygones.publish.report.field_figures import breakdown_figure, field_picture
from bygones.publish.report.page import draw_inline, inline
from bygones.publish.report.sections.base import PageData
from bygones.publish.verdicts import Reading


def inputs(page: PageData) -> dict[str, Any] | None:
    """Return the field of the largest effect: which inputs it moves, by class and by difficulty."""
    moved, folder = page.evidence.moved, page.folder
    if moved is None:
        return None
    reading = next(reading for reading in page.readings if reading.arm == moved.arm)
    field, images = moved.field, moved.images
    if field.too_few:
        return {"moved": {"arm": moved.arm, "horizon": moved.horizon, "too_few": field.too_few}}
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
    shown = {
        "arm": moved.arm, "horizon": moved.horizon, "too_few": "", "field": field, "why": _why(reading),
        "wide": wide, "narrow": thin_svg, "groups": groups, "level": field.band.level,
    }  # fmt: skip
    return {"moved": shown}


def _why(reading: Reading) -> str:
    """Describe why this arm's field is the one that is shown."""
    if reading.kind == "beyond":
        return f"the largest effect that is more than {reading.last.null_is}"
    if reading.kind in ("gone", "never"):
        return "the largest effect, at its peak, for by the last horizon it is gone"
    return "the largest effect that still stands; none is shown to be more than its matched null"
