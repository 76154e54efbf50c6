"""Sensitivity page: source by step, how much an outcome depends on memory there; true effects beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bygones.core.files import whole_folder
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    INK,
    MUTED,
    PAPER,
    WIDE,
    Picture,
    figure_style,
)
from bygones.publish.report.page import draw_inline, render_template
from bygones.publish.report.svg import FigureFolder
from bygones.publish.report.tables import Table, write_csv
from bygones.publish.verdicts import number


@dataclass(frozen=True)
class SensitivityFacts:
    """What the page shows. `map` [3, rows, boundaries]: mean over seeds, low and high end of its interval.

    `cells`: seed, row, step, predicted and true effect of each measured cell. `sentences`: the findings.
    """

    study: str
    rows: tuple[str, ...]
    steps: np.ndarray
    map: np.ndarray
    cells: Sequence[tuple[int, str, int, float, float]]
    sentences: Sequence[str]


def write_sensitivity(facts: SensitivityFacts, folder: str | Path) -> Path:
    """Write the page, its figures and its tables (map.csv, cells.csv), and return the path of the page."""
    with whole_folder(Path(folder)) as filled:
        for part in ("figures", "tables"):
            (filled / part).mkdir()
        figures = FigureFolder(filled / "figures", for_print=True)
        shown = [
            draw_inline(
                sensitivity_map(facts), figures, "map", "Map of dependence by source and step"
            ),
            draw_inline(true_effects(facts), figures, "cells", "Predicted and true effects"),
        ]
        for table in (_map_table(facts), _cell_table(facts)):
            write_csv(table, filled / "tables")
        context = {"study": facts.study, "figures": shown, "sentences": facts.sentences}
        text = render_template("sensitivity.html.j2", context)
        (filled / "sensitivity.html").write_text(text, encoding="utf-8")
    return Path(folder) / "sensitivity.html"


def sensitivity_map(facts: SensitivityFacts, width: float = WIDE) -> Figure:
    """Draw the map, a band for each row, on a logarithmic scale of colour; dots are the measured cells."""
    height = 1.0 + 0.55 * len(facts.rows)
    values = np.where(facts.map[0] > 0, facts.map[0], np.nan)
    known = values[np.isfinite(values)]
    high = float(known.max()) if known.size else 1.0
    low = max(float(known.min()) if known.size else 0.1, 1e-5 * high)
    with figure_style():
        figure = Picture(figsize=(width, height), layout="constrained")
        ax = figure.add_subplot()
        scale = LinearSegmentedColormap.from_list("dependence", [PAPER, EFFECT, INK])
        colours = scale.with_extremes(bad=HAIR)
        ends = (facts.steps[0] - 0.5, facts.steps[-1] + 0.5, len(facts.rows) - 0.5, -0.5)
        norm = LogNorm(low, high if high > low else 2 * low)
        image = ax.imshow(
            values, aspect="auto", extent=ends, cmap=colours, norm=norm, interpolation="none"
        )
        ax.set_yticks(range(len(facts.rows)), facts.rows)
        ax.set_xlabel("step of the boundary; a dot is a cell whose effect was measured")
        dots = [(step, facts.rows.index(row)) for _, row, step, *_ in facts.cells]
        if dots:
            ax.scatter(*zip(*dots, strict=True), s=9, color=PAPER, edgecolors=MUTED, linewidths=0.6)
        in_words = FuncFormatter(lambda value, _: number(value))
        bar = figure.colorbar(image, ax=ax, pad=0.01, format=in_words)
        bar.set_label("rms effect (grey: exactly 0)")
        return figure


def true_effects(facts: SensitivityFacts, width: float = WIDE / 2) -> Figure:
    """Draw true against predicted effects of the measured cells, on scales that show small and large ones."""
    with figure_style():
        figure = Picture(figsize=(width, width), layout="constrained")
        ax = figure.add_subplot()
        predicted, measured = np.array([cell[3:] for cell in facts.cells]).reshape(-1, 2).T
        sizes = np.abs(np.append(predicted, measured))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        middle = float(np.median(sizes)) if sizes.size else 1.0
        largest = 1.5 * (float(sizes.max()) if sizes.size else 1.0)
        ax.plot([-largest, largest], [-largest, largest], color=HAIR)
        ax.scatter(predicted, measured, s=12, color=EFFECT)
        for set_scale, axis in ((ax.set_xscale, ax.xaxis), (ax.set_yscale, ax.yaxis)):
            set_scale("symlog", linthresh=middle / 10)
            axis.set_major_locator(FixedLocator(_ticks(largest)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.set_xlabel("predicted effect on the outcome (first order)")
        ax.set_ylabel("true effect")
        return figure


def _ticks(largest: float) -> list[float]:
    """Return zero, and the largest power of ten on either side.

    >>> _ticks(0.03)
    [-0.01, 0.0, 0.01]
    """
    power = 10.0 ** np.floor(np.log10(largest))
    return [-float(power), 0.0, float(power)]


def _map_table(facts: SensitivityFacts) -> Table:
    rows = [
        {
            "source": row,
            "step": int(step),
            **dict(zip(("dependence", "low", "high"), map(float, facts.map[:, i, j]), strict=True)),
        }
        for i, row in enumerate(facts.rows)
        for j, step in enumerate(facts.steps)
    ]
    return Table("map", ("source", "step", "dependence", "low", "high"), tuple(rows))


def _cell_table(facts: SensitivityFacts) -> Table:
    columns = ("seed", "source", "step", "predicted", "measured")
    return Table(
        "cells", columns, tuple(dict(zip(columns, cell, strict=True)) for cell in facts.cells)
    )
