"""Comparison report: one page with a forest plot for every pooled effect of several studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bygones.analysis.meta_analysis import Pooled
from bygones.core.errors import DesignError
from bygones.core.files import whole_folder
from bygones.core.text import capitalize
from bygones.publish.report import svg
from bygones.publish.report.drawing import NARROW
from bygones.publish.report.forest import forest
from bygones.publish.report.latex import write_latex
from bygones.publish.report.page import draw_inline, inline, render_template, slug
from bygones.publish.report.tables import Table, write_csv


def write_comparison(pooled: Sequence[Pooled], folder: str | Path) -> Path:
    """Write a comparison of studies into `folder` and return the path of its `comparison.html`.

    `pooled`: one for each effect, in the order to be read, each with a `what` of its own. Also
    written: figures/forest-*.pdf, .png, .svg and tables/studies, heterogeneity as .csv and .tex.
    Equal input gives equal files, byte for byte. Raises DesignError where there is nothing to
    show, or two effects have one name.
    """
    if not pooled:
        raise DesignError("a comparison shows at least one pooled effect, and was handed none.")
    named = [one.what for one in pooled]
    if len(set(named)) < len(named):
        raise DesignError(f"each pooled effect needs a name (`what`) of its own; got {named}.")
    with whole_folder(Path(folder)) as filled:
        _fill(filled, pooled)
    return Path(folder) / "comparison.html"


def _fill(folder: Path, pooled: Sequence[Pooled]) -> None:
    """Write the page, its figures and its tables into an empty folder."""
    for part in ("figures", "tables"):
        (folder / part).mkdir()
    tables = (_studies(pooled), _heterogeneity(pooled))
    for table in tables:
        write_csv(table, folder / "tables")
        write_latex(table, folder / "tables")
    figures = svg.FigureFolder(folder / "figures", for_print=True)
    shown = []
    for place, one in enumerate(pooled, start=1):
        name = f"forest-{place:02d}-{slug(one.what)}"
        label = f"Forest plot. {one}"
        wide = draw_inline(forest(one), figures, name, label)
        narrow = svg.to_svg(forest(one, width=NARROW), f"{name}-narrow")
        shown.append(
            {
                "pooled": one,
                "title": capitalize(one.what) or f"Effect {place}",
                "wide": wide,
                "narrow": inline(narrow, f"{name}-narrow", label),
            }
        )
    studies = list(dict.fromkeys(c.study for one in pooled for c in one.contributions))
    text = render_template("comparison.html.j2", {"shown": shown, "studies": studies})
    (folder / "comparison.html").write_text(text, encoding="utf-8")


def _studies(pooled: Sequence[Pooled]) -> Table:
    rows = []
    for one in pooled:
        for row in one.rows():
            found = {"estimate_low": row["low"], "estimate_high": row["high"]}
            rows.append({"effect": one.what} | row | found)
    columns = ("effect", "study", "estimate", "estimate_low", "estimate_high")
    return Table(
        "studies", (*columns, "level", "num", "weight", "note"), tuple(rows),
        "One effect in several studies", shares=("level", "weight"), split_by="effect",
    )  # fmt: skip


def _heterogeneity(pooled: Sequence[Pooled]) -> Table:
    rows = []
    for one in pooled:
        ends = (one.predicted_low, one.predicted_high)
        low, high = (end if math.isfinite(end) else None for end in ends)
        row: dict = {"effect": one.what, "studies": one.estimate.num_pairs, "tau": one.tau}
        row |= {"i_squared": one.i_squared, "q": one.q, "q_p_value": one.q_p_value}
        row |= {"predicted_from": low, "predicted_to": high, "sentence": str(one)}
        rows.append(row)
    columns = (
        "effect", "studies", "tau", "i_squared", "q", "q_p_value", "predicted_from",
        "predicted_to", "sentence",
    )  # fmt: skip
    title = "How much the studies differ, and where a further one is expected"
    return Table("heterogeneity", columns, tuple(rows), title, shares=("i_squared",))
