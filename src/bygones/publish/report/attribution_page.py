"""Attribution page: the Shapley value of every treatment with its interval, a panel for each horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bygones.core.files import whole_folder
from bygones.publish.report.drawing import EFFECT, HAIR, NULL, WIDE, figure_style
from bygones.publish.report.page import draw_inline, render_template
from bygones.publish.report.svg import FigureFolder
from bygones.publish.report.tables import Table, write_csv
from bygones.publish.verdicts import number

ALL = "all together"


@dataclass(frozen=True)
class AttributionFacts:
    """What the page shows. `rows`: one for each treatment, and `ALL`, by horizon, with value and interval."""

    study: str
    of: str  # what is shared out
    rows: Sequence[dict[str, Any]]
    sentences: Sequence[str]


def write_attribution(facts: AttributionFacts, folder: str | Path) -> Path:
    """Write the page, its figure and its table (shares.csv), and return the path of the page."""
    with whole_folder(Path(folder)) as filled:
        for part in ("figures", "tables"):
            (filled / part).mkdir()
        figures = FigureFolder(filled / "figures", for_print=True)
        shown = draw_inline(attribution_figure(facts), figures, "shares", "Shapley values")
        write_csv(Table("shares", tuple(facts.rows[0]), tuple(facts.rows)), filled / "tables")
        rows = [
            {name: one if isinstance(one, str) else number(one) for name, one in row.items()}
            for row in facts.rows
        ]
        context = {
            "study": facts.study, "figure": shown, "sentences": facts.sentences, "rows": rows,
        }  # fmt: skip
        text = render_template("attribution.html.j2", context)
        (filled / "attribution.html").write_text(text, encoding="utf-8")
    return Path(folder) / "attribution.html"


def attribution_figure(facts: AttributionFacts, width: float = WIDE) -> Figure:
    """Draw a line for each treatment from the low to the high end of its interval, and a dot at the value."""
    names = list(dict.fromkeys(row["treatment"] for row in facts.rows))
    horizons = sorted({row["horizon"] for row in facts.rows})
    with figure_style():
        figure = Figure(figsize=(width, 1.2 + 0.36 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
        for ax, horizon in zip(panels, horizons, strict=True):
            ax.axvline(0.0, color=HAIR)
            for row in facts.rows:
                if row["horizon"] == horizon:
                    y, color = (
                        names.index(row["treatment"]),
                        NULL if row["treatment"] == ALL else EFFECT,
                    )
                    ax.plot([row["low"], row["high"]], [y, y], color=color)
                    ax.plot([row["value"]], [y], "o", color=color, markersize=4)
            ax.set_title(f"{horizon} steps later", fontsize="medium")
            ax.set_xlabel(facts.of)
            ax.locator_params(axis="x", nbins=4)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        return figure
