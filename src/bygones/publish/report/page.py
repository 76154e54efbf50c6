"""What every page of a report shares: its templates, and figures set into it."""

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
from bygones.publish.report.verdicts import number, percent, steps, written, written_share


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """The text of a page, everything in it escaped."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "percent": percent, "steps": steps, "estimate": written,
        "shared": written_share, "bytes": format_bytes, "sentence": capitalize,
        "format_count": format_count,
    }  # fmt: skip
    return environment.get_template(template).render(context)


def _template(name: str) -> str:
    return files("bygones.publish.report").joinpath(name).read_text(encoding="utf-8")


def drawn(figure: Figure, folder: Path, name: str, label: str) -> Markup:
    """The figure for the page, with `label` for those who cannot see it; saved on the way."""
    return inline(svg.save_figure(figure, folder, name), name, label)


def inline(text: str, name: str, label: str) -> Markup:
    """An SVG's text for the page."""
    # Safe to mark: matplotlib escapes what it writes, and `inline_svg` escapes the label.
    return Markup(svg.inline_svg(text, name, label))


def slug(name: str) -> str:
    """
    >>> slug("scale(0.5) moments"), slug("<b>")
    ('scale-0-5-moments', 'b')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "arm"
