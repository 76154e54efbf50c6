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

from bygones.publish.report import svg
from bygones.publish.report.verdicts import format_estimate, format_share, number, percent, steps


def render_template(template: str, context: Mapping[str, Any]) -> str:
    """Render a template, with everything in it escaped."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "percent": percent, "steps": steps, "estimate": format_estimate,
        "shared": format_share, "bytes": byte_count, "sentence": capital,
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


def byte_count(count: int) -> str:
    """
    >>> byte_count(16), byte_count(43560), byte_count(5_000_000)
    ('16 B', '43.6 kB', '5 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def plain(value: Any) -> str:
    """Format a contract's or certificate's value as words, nested ones flattened."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not recorded" if value is None else str(value)
