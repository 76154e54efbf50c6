"""Pages of a report: templates, inline figures and text filters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from bygones.core.text import capitalize, format_bytes, format_count
from bygones.publish.report import svg
from bygones.publish.verdicts import (
    format_effect_share,
    format_estimate,
    number,
    percent,
    steps,
)


def render_template(template: str, context: Mapping[str, Any]) -> str:
    """Render a template, with everything in it escaped."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "percent": percent, "steps": steps, "estimate": format_estimate,
        "shared": format_effect_share, "bytes": format_bytes, "sentence": capitalize,
        "format_count": format_count,
    }  # fmt: skip
    return environment.get_template(template).render(context)


def _template(name: str) -> str:
    return files("bygones.publish.report").joinpath(name).read_text(encoding="utf-8")


def draw_inline(figure: Figure, folder: Path, name: str, label: str) -> Markup:
    """Save a figure, and return it for the page, with `label` as its text for screen readers."""
    return inline(svg.save_figure(figure, folder, name), name, label)


def inline(text: str, name: str, label: str) -> Markup:
    """Return an SVG's text for the page."""
    # Safe to mark: matplotlib escapes what it writes, and `inline_svg` escapes the label.
    return Markup(svg.inline_svg(text, name, label))


def slug(name: str) -> str:
    """
    >>> slug("scale(0.5) moments"), slug("<b>")
    ('scale-0-5-moments', 'b')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "arm"
