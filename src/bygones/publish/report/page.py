"""Pages of a report: templates, inline figures and text filters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
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


def draw_inline(figure: Figure, folder: svg.FigureFolder, name: str, label: str) -> Markup:
    """Save a figure, and return it for the page, with `label` as its text for screen readers."""
    return inline(svg.save_figure(figure, folder, name), name, label)


def inline(text: str, name: str, label: str) -> Markup:
    """Return an SVG's text for the page."""
    # Safe to mark: matplotlib escapes what it writes, and `inline_svg` escapes the label.
    return Markup(svg.inline_svg(text, name, label))


# Stands in a template where its contents are to be.
CONTENTS = Markup("<!-- contents -->")


def add_contents(page: str) -> str:
    """Give each heading of the page an id, and put links to them where the template has `CONTENTS`.

    >>> add_contents("<!-- contents --><h2>A</h2>").removeprefix('<nav class="contents" ')
    'aria-label="Contents"><a href="#a">A</a></nav><h2 id="a">A</h2>'
    """
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    ids = {title: slug(re.sub(r"&[a-z#0-9]+;", "", title)) for title in titles}
    links = " · ".join(f'<a href="#{ids[title]}">{title}</a>' for title in titles)
    page = re.sub(r"<h2>(.*?)</h2>", lambda h: f'<h2 id="{ids[h[1]]}">{h[1]}</h2>', page)
    return page.replace(CONTENTS, f'<nav class="contents" aria-label="Contents">{links}</nav>')


def slug(name: str) -> str:
    """
    >>> slug("scale(0.5) moments"), slug("<b>")
    ('scale-0-5-moments', 'b')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "arm"
