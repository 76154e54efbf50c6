"""A study's report: one HTML file that reads offline, its figures and its tables as files.

    report.html    figures/*.svg    tables/*.csv, *.tex

With `for_print` figures/*.pdf and *.png too.

`write_comparison` does the same for several studies pooled: comparison.html.

Each figure also comes from one public call that returns a matplotlib Figure; `save_figure` writes it:

    answer(readings(effects, "tv"))                 every arm at the last horizon
    course(reading)                                 one arm over the steps after the fork
    score(effects, label)                           the change of one score
    field_picture(function_field(…), images)        which inputs are moved
    breakdown_figure(breakdown(field, "class"))     by class, difficulty or labels of your own
    reliability_diagram(*reliability_curves(…))     calibration, treated and control
    forest(pool({study: estimate}), label)          one effect in several studies
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects, default_metrics, headline_metric
from bygones.core.errors import DesignError
from bygones.core.files import whole_folder
from bygones.core.study_facts import OrderFacts, facts_of
from bygones.publish.report import tables
from bygones.publish.report.answer_figure import answer
from bygones.publish.report.comparison import write_comparison
from bygones.publish.report.evidence import gather
from bygones.publish.report.evidence_tables import evidence_tables
from bygones.publish.report.field_figures import (
    breakdown_figure,
    field_picture,
    reliability_diagram,
)
from bygones.publish.report.figures import course, score
from bygones.publish.report.forest import forest
from bygones.publish.report.html import render
from bygones.publish.report.latex import write_latex
from bygones.publish.report.paper import write_paper
from bygones.publish.report.svg import FigureFolder, save_figure
from bygones.publish.verdicts import HEADLINES, readings

__all__ = [
    "write_report",
    "write_comparison",
    "readings",
    "answer",
    "course",
    "score",
    "field_picture",
    "breakdown_figure",
    "reliability_diagram",
    "forest",
    "FigureFolder",
    "save_figure",
]


def write_report(
    outcomes: xr.Dataset,
    folder: str | Path,
    *,
    effects: Sequence[Effect] | None = None,
    for_print: bool = False,
    title: str = "",
    question: str = "",
) -> Path:
    """Write a study's report into `folder` and return the path of its `report.html`.

    `outcomes`: dims (seed, arm, step, input, class), with `logits` or `values`; where there are
    `images` (input, height, width), the inputs are shown by them. Of the attributes, `family`
    (name, arms, metrics, horizons, method) declares which comparisons are judged together, `margins`
    (metric -> margin, unscaled) which effects are tested for being none to speak of.
    `effects`: what to show, if not the usual metrics; must hold the headline distance (`tv`, or
    `rms` for values). `for_print`: save figures as PDF and PNG too, which takes
    most of the time. `title`: the page's heading, instead of the study's name. `question`: what was asked,
    as a sentence on top. Equal outcomes and effects give equal files, byte for byte.
    Raises DesignError where there is no treated arm or no headline distance.
    """
    if effects is None:
        effects = all_effects(outcomes, default_metrics(outcomes))
    shown = {effect.metric for effect in effects}
    candidates = (headline_metric(outcomes), *HEADLINES)
    headline = next((name for name in candidates if name in shown), None)
    if headline is None:
        raise DesignError(
            f"a report leads with one of the distances {', '.join(HEADLINES)}, and the effects it "
            f"was handed are of {', '.join(sorted(shown)) or 'no metric at all'}; add one of them, "
            f"or leave `effects` out."
        )
    read = readings(effects, headline)
    evidence = gather(outcomes, effects, read)
    facts = facts_of(outcomes)
    made = {
        table.name: table
        for table in (
            tables.answer_table(read),
            tables.lifetimes_table(read, facts.arms),
            tables.effects_table(effects),
            tables.sources_table(facts.sources or ()),
            tables.diverged_table(outcomes),
            tables.orders_table(facts.orders or OrderFacts()),
            *evidence_tables(evidence),
        )
    }
    with whole_folder(Path(folder)) as filled:
        for part in ("figures", "tables"):
            (filled / part).mkdir()
        for table in made.values():
            tables.write_csv(table, filled / "tables")
            write_latex(table, filled / "tables")
        write_paper(
            read, facts, filled / "tables", [name for name, one in made.items() if one.rows]
        )
        figures = FigureFolder(filled / "figures", for_print)
        text = render(outcomes, effects, read, evidence, figures, made, (title, question))
        (filled / "report.html").write_text(text, encoding="utf-8")
    return Path(folder) / "report.html"
