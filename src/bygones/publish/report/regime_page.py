"""Regime page: learning rate by dose, a panel for each horizon, coloured by regime, with borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bygones.core.files import whole_folder
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    INK,
    NULL,
    PAPER,
    WIDE,
    Picture,
    figure_style,
)
from bygones.publish.report.page import draw_inline, render_template
from bygones.publish.report.svg import FigureFolder
from bygones.publish.report.tables import Table, write_csv
from bygones.publish.verdicts import number

REGIMES = ("linear", "non-linear, stable", "chaotic", "cannot tell")
_COLOURS = (EFFECT, HAIR, NULL, PAPER)
_MARKS = ("L", "N", "C", "?")  # so that it can be read without colours


@dataclass(frozen=True)
class RegimeFacts:
    """What the page shows. `cells`: a row each, with rate, dose, horizon, regime, and what it was judged by.

    `sentences`: the findings, `rules`: by regime, how it is told.
    """

    study: str
    cells: Sequence[dict[str, Any]]
    sentences: Sequence[str]
    rules: Sequence[tuple[str, str]]


def write_regimes(facts: RegimeFacts, folder: str | Path) -> Path:
    """Write the page, its figure and its table (cells.csv), and return the path of the page."""
    with whole_folder(Path(folder)) as filled:
        for part in ("figures", "tables"):
            (filled / part).mkdir()
        figures = FigureFolder(filled / "figures", for_print=True)
        shown = draw_inline(regime_figure(facts), figures, "map", "Map of regimes")
        write_csv(Table("cells", tuple(facts.cells[0]), tuple(facts.cells)), filled / "tables")
        last = max(cell["horizon"] for cell in facts.cells)
        rows = [
            {name: v if isinstance(v, str) else number(v) for name, v in cell.items()}
            for cell in facts.cells
            if cell["horizon"] == last
        ]
        context = {
            "study": facts.study, "figure": shown, "sentences": facts.sentences,
            "rules": facts.rules, "rows": rows, "last": last,
        }  # fmt: skip
        text = render_template("regimes.html.j2", context)
        (filled / "regimes.html").write_text(text, encoding="utf-8")
    return Path(folder) / "regimes.html"


def regime_figure(facts: RegimeFacts, width: float = WIDE) -> Figure:
    """Draw a panel for each horizon: learning rates across, doses upwards, lines where regimes meet."""
    rates, doses, horizons = (
        sorted({cell[name] for cell in facts.cells}) for name in ("rate", "dose", "horizon")
    )
    with figure_style():
        figure = Picture(figsize=(width, 1.4 + 0.36 * len(doses)), layout="constrained")
        panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
        for ax, horizon in zip(panels, horizons, strict=True):
            grid = np.full((len(doses), len(rates)), REGIMES.index("cannot tell"))
            for cell in facts.cells:
                if cell["horizon"] == horizon:
                    place = doses.index(cell["dose"]), rates.index(cell["rate"])
                    grid[place] = REGIMES.index(cell["regime"])
            _draw_panel(ax, grid)
            ax.set_title(f"{horizon} steps later", fontsize="medium")
            ax.set_xticks(range(len(rates)), [number(rate) for rate in rates])
            ax.set_xlabel("learning rate")
        panels[0].set_yticks(range(len(doses)), [number(dose) for dose in doses])
        panels[0].set_ylabel("dose (1: the whole treatment)")
        patches = [
            Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=f"{mark}  {name}")
            for colour, mark, name in zip(_COLOURS, _MARKS, REGIMES, strict=True)
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False)
        return figure


def _draw_panel(ax: Axes, grid: np.ndarray) -> None:
    ax.imshow(
        grid, cmap=ListedColormap(_COLOURS), vmin=-0.5, vmax=len(REGIMES) - 0.5, origin="lower",
        aspect="auto", interpolation="none",
    )  # fmt: skip
    for row, column in np.ndindex(*grid.shape):
        here = grid[row, column]
        shade = PAPER if here in (0, 2) else INK
        ax.text(column, row, _MARKS[here], ha="center", va="center", color=shade, fontsize="small")
        if column + 1 < grid.shape[1] and grid[row, column + 1] != here:
            ax.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], color=INK)
        if row + 1 < grid.shape[0] and grid[row + 1, column] != here:
            ax.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, color=INK)
