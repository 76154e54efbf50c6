"""HTML for notebooks: small tables and paragraphs, with everything in them escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_LEFT = "text-align:left;vertical-align:top"


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()
) -> str:
    """Return a table below its title, and notes below it; lines of a cell stay lines.

    >>> html_table("a < b", [], [])
    '<div>a &lt; b<table><tr></tr></table></div>'
    """
    head = "".join(f'<th style="{_LEFT}">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return f"<div>{escape(title)}<table><tr>{head}</tr>{body}</table>{below}</div>"


def html_paragraph(text: str) -> str:
    """Return a paragraph of at most some 80 characters a line.

    >>> html_paragraph("5 < 6")
    '<p style="max-width:48em">5 &lt; 6</p>'
    """
    return f'<p style="max-width:48em">{escape(text)}</p>'


def _cell(value: object) -> str:
    return f'<td style="{_LEFT}">{escape(str(value)).replace(chr(10), "<br>")}</td>'
