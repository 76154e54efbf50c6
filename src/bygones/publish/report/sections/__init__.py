"""Sections of a report, in their order on the page.

A section is a function in `<name>.py` that returns the values for its template `<name>.html.j2`, or None to
be left out. To add one, write the two files and add a line to `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from bygones.core.catalogue import Catalogue
from bygones.publish.report.page import render_template
from bygones.publish.report.sections.antithetic import antithetic
from bygones.publish.report.sections.base import PageData, Section
from bygones.publish.report.sections.calibration import calibration
from bygones.publish.report.sections.equivalence import equivalence
from bygones.publish.report.sections.inputs import inputs
from bygones.publish.report.sections.models import models
from bygones.publish.report.sections.multiplicity import multiplicity
from bygones.publish.report.sections.pairing import pairing

SECTIONS: Catalogue[Section] = Catalogue(
    "section",
    {
        "models": models,
        "multiplicity": multiplicity,
        "equivalence": equivalence,
        "pairing": pairing,
        "antithetic": antithetic,
        "inputs": inputs,
        "calibration": calibration,
    },
)


def render_sections(page: PageData, common: Mapping[str, Any]) -> list[Markup]:
    """Render each section that has something to show. `common`: values that every template may use."""
    rendered: list[Markup] = []
    for name, section in SECTIONS.items():
        values = section(page)
        if values is not None:
            rendered.append(
                Markup(render_template(f"sections/{name}.html.j2", {**common, **values}))
            )
    return rendered


__all__ = ["SECTIONS", "PageData", "Section", "render_sections"]
