"""The atlas: every source of every regime on one page, which matters, by how much and for how long.

    atlas.html    atlas.md    figures/atlas.*    tables/atlas, signatures, costs as .csv and .tex

It is made from outcomes and their records alone; `bygones dynamics atlas` trains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bygones.core.errors import DesignError
from bygones.core.files import whole_folder
from bygones.publish.report import svg
from bygones.publish.report.atlas.entry import Cell, Entry, make_entry
from bygones.publish.report.atlas.figure import picture
from bygones.publish.report.atlas.tables import (
    atlas_table,
    costs_table,
    effect_lasts,
    markdown,
    own_cells,
    shared_sources,
    signatures_table,
)
from bygones.publish.report.drawing import NARROW
from bygones.publish.report.latex import write_latex
from bygones.publish.report.page import draw_inline, inline, render_template
from bygones.publish.report.tables import write_csv
from bygones.publish.verdicts import Reading, format_effect_share

__all__ = ["Cell", "Entry", "make_entry", "picture", "write_atlas"]


def write_atlas(
    entries: Sequence[Entry],
    folder: str | Path,
    *,
    left_out: Mapping[str, str] | None = None,
    quick: bool = False,
) -> Path:
    """Write the atlas into `folder` and return the path of its `atlas.html`.

    `entries`: one a regime, in the order to be read. `left_out`: regimes that are not in it, and why, as
    a sentence each. `quick`: say on the page that the studies were cut short. Equal input gives equal
    files, byte for byte. Raises DesignError without any entry.
    """
    if not entries:
        raise DesignError("an atlas shows at least one regime, and was handed none.")
    with whole_folder(Path(folder)) as filled:
        for part in ("figures", "tables"):
            (filled / part).mkdir()
        for table in (atlas_table(entries), signatures_table(entries), costs_table(entries)):
            write_csv(table, filled / "tables")
            write_latex(table, filled / "tables")
        (filled / "atlas.md").write_text(markdown(entries), encoding="utf-8")
        context = _context(
            entries,
            left_out or {},
            svg.FigureFolder(filled / "figures", for_print=True),
            quick=quick,
        )
        text = render_template("atlas/atlas.html.j2", context)
        (filled / "atlas.html").write_text(text, encoding="utf-8")
    return Path(folder) / "atlas.html"


def _context(
    entries: Sequence[Entry], left_out: Mapping[str, str], folder: svg.FigureFolder, *, quick: bool
) -> dict[str, Any]:
    label = _label(entries)
    columns = shared_sources(entries)
    signatures = [one for entry in entries for one in entry.signatures]
    return {
        "entries": entries,
        "left_out": left_out,
        "quick": quick,
        "num_cells": sum(len(entry.cells) for entry in entries),
        "num_arms": sum(len(entry.readings) for entry in entries),
        "num_sources": len({cell.source for entry in entries for cell in entry.cells}),
        "num_seeds": sorted({entry.num_seeds for entry in entries}),
        "metrics": sorted({reading.last.metric for entry in entries for reading in entry.readings}),
        "wide": draw_inline(picture(entries), folder, "atlas", label),
        "narrow": inline(
            svg.to_svg(picture(entries, width=NARROW), "atlas-narrow"), "atlas-narrow", label
        ),
        "columns": columns,
        "own_cells": own_cells,
        "shade": _shade,
        "brief": _brief,
        "effect_lasts": effect_lasts,
        "rows": atlas_table(entries).rows,
        "num_met": [sum(one.met is met for one in signatures) for met in (True, False, None)],
        "num_signatures": len(signatures),
        "levels": sorted({r.last.estimate.level for entry in entries for r in entry.readings}),
        "methods": sorted({r.last.estimate.method for entry in entries for r in entry.readings}),
    }


def _label(entries: Sequence[Entry]) -> str:
    """Describe the picture for those who cannot see it."""
    told = [
        f"{entry.regime}: " + ", ".join(
            f"{cell.name} {format_effect_share(cell.reading.last)}" for cell in entry.cells
        )
        for entry in entries
    ]  # fmt: skip
    return "Share of another seed at the last horizon, by regime. " + ". ".join(told) + "."


_BESIDE_NULL = {
    "beyond": "more than its null",
    "like": "like its null",
    "less": "less than its null",
    "redraw": "itself a random change",
    "alone": "no null",
}


def _brief(reading: Reading) -> str:
    """Say in a few words how an effect that still stands compares with its null, or how it ended."""
    return _BESIDE_NULL.get(reading.kind, reading.lead)


def _shade(cell: Cell) -> int:
    """Return how dark a cell of the grid is, in percent: the share, up to another seed's."""
    found = cell.reading.last.fraction
    if found is None or not found.value > 0.0:
        return 0
    return round(45 * min(found.value, 1.0))
