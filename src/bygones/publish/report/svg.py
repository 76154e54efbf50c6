"""SVG: figures as files and inside a page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from bygones.publish.report.drawing import CSS_VARIABLES, figure_style


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG text; equal figures and names give equal text."""
    with figure_style(), matplotlib.rc_context({"svg.hashsalt": name}):
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
        return buffer.getvalue()


def inline_svg(text: str, name: str, label: str) -> str:
    """Return an SVG for use inside the page: own ids, CSS variables for colours, no outside references.

    `name` goes before every id, so that two figures in one page cannot reach each other's clip
    paths; `label` is what a screen reader says. Both are escaped here.
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    # Only inside tags: a text may hold anything, an arm called 'id="x"' for one.
    body = re.sub(r"<[^>]+>", lambda tag: _localise(tag[0], name), body)
    box = re.search(r'viewBox="[^"]*"', body)
    width = re.search(r'width="([0-9.]+)pt"', body)
    assert box is not None
    assert width is not None
    natural = f"{float(width[1]) * 4 / 3:.0f}px"
    opening = (
        f'<svg {box[0]} style="max-width: {natural}" role="img" aria-label="{_escape(label)}">'
    )
    return opening + body[body.index(">") + 1 :].strip()


def _localise(tag: str, name: str) -> str:
    tag = re.sub(r'\sid="', f' id="{name}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag)
    tag = re.sub(r"url\(#", f"url(#{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", tag)
    tag = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--sans)", tag)
    for color, variable in CSS_VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return tag


def _escape(text: str) -> str:
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, entity)
    return text


@dataclass(frozen=True)
class FigureFolder:
    """A folder for figures. `for_print`: save each as PDF and PNG too, which takes longer than all else."""

    path: Path
    for_print: bool = False


def save_figure(figure: Figure, folder: FigureFolder, name: str) -> str:
    """Write `<folder>/<name>.svg`, for print also `.pdf` and `.png`; return the SVG's text for the page.

    They are drawn in memory first: where a file cannot be written, matplotlib's PDF writer hides why.
    """
    text = to_svg(figure, name)
    forms = {"svg": text.encode()}
    if folder.for_print:
        undated = {"CreationDate": None, "Creator": None, "Producer": None}
        pdf, png = io.BytesIO(), io.BytesIO()
        with figure_style():
            figure.savefig(pdf, format="pdf", metadata=undated)
            figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
        forms |= {"pdf": pdf.getvalue(), "png": png.getvalue()}
    for suffix, content in forms.items():
        (folder.path / f"{name}.{suffix}").write_bytes(content)
    return text
