"""HTML report: one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from markupsafe import Markup

from bygones.analysis.arms import Arms
from bygones.analysis.control_scores import control_scores
from bygones.analysis.coverage import measured_coverage
from bygones.analysis.effect import Effect
from bygones.analysis.metrics import METRICS
from bygones.analysis.skewness import SKEWED_FROM
from bygones.core.errors import UnknownName
from bygones.core.study_facts import ArmFacts, facts_of
from bygones.core.text import capitalize, format_value
from bygones.publish.checklist import checklist, headline_of
from bygones.publish.report import figures, svg, tables
from bygones.publish.report.answer_figure import answer
from bygones.publish.report.drawing import NARROW
from bygones.publish.report.evidence import Evidence
from bygones.publish.report.page import (
    CONTENTS,
    add_contents,
    draw_inline,
    inline,
    render_template,
    slug,
)
from bygones.publish.report.paper import bibtex
from bygones.publish.report.scales import distance_scale
from bygones.publish.report.sections import PageData, render_sections
from bygones.publish.verdicts import (
    GONE_SHARE,
    Reading,
    format_effect_share,
    format_estimate,
    group_arms,
    number,
)


def render(
    outcomes: xr.Dataset,
    effects: Sequence[Effect],
    readings: Sequence[Reading],
    evidence: Evidence,
    folder: svg.FigureFolder,
    all_tables: Mapping[str, tables.Table],
    asked: tuple[str, str] = ("", ""),
) -> str:
    """Render the page; every figure is also saved under `folder`. `asked`: a title and a question, or ""."""
    context = _context(outcomes, effects, readings, evidence, folder, all_tables)
    context |= {"title": asked[0] or context["facts"].study, "question": asked[1]}
    return add_contents(render_template("template.html.j2", context))


def _context(
    outcomes: xr.Dataset,
    effects: Sequence[Effect],
    readings: Sequence[Reading],
    evidence: Evidence,
    folder: svg.FigureFolder,
    all_tables: Mapping[str, tables.Table],
) -> dict[str, Any]:
    facts = facts_of(outcomes)
    last = readings[0].last
    metric = METRICS[last.metric]
    filled = checklist(outcomes, effects)
    return {
        "facts": facts,
        "tables": all_tables,
        "readings": readings,
        "num_pairs": outcomes.sizes["seed"],
        "num_inputs": outcomes.sizes["input"],
        "last": last,
        "metric": metric,
        "metrics": METRICS,
        "gone_share": GONE_SHARE,
        "summary": group_arms(readings),
        "answer": _answer_figures(readings, folder),
        "courses": _course_figures(readings, facts.arms, metric.unit, folder),
        "scores": _score_figures(effects, readings, folder),
        "grids": _grids(effects),
        "floor_words": _floor_words(readings),
        "rule_words": _rule_words(last),
        "coverage_words": _coverage_words(last),
        "ceilings": [effect.ceiling for effect in readings[0].course],
        "control_words": _control_words(outcomes),
        "contents": CONTENTS,
        "losses": _loss_figure(outcomes, facts.fork_at, folder),
        "bibtex": bibtex(facts),
        "checklist": filled,
        "checklist_words": headline_of(filled),
        "plain": format_value,
        "sections": render_sections(
            PageData(evidence, readings, folder), {"metrics": METRICS, "last": last, "facts": facts}
        ),
    }


# ---------------------------------------------------------------- words


def _floor_words(readings: Sequence[Reading]) -> str:
    """Describe the effect of the sham; every arm of a study has the same sham."""
    floors = [effect.floor for effect in readings[0].course if effect.floor is not None]
    if not floors:
        return "no sham arm was run"
    if all(floor.value == 0 and floor.low == 0 and floor.high == 0 for floor in floors):
        return "here exactly 0 at every horizon"
    return f"here up to {number(max(floor.value for floor in floors))}"


def _rule_words(last: Effect) -> str:
    """Describe the rule by which each interval was chosen; "" where there was none."""
    if last.estimate.skewness is None:
        return ""
    return (
        f"By the rule that was fixed beforehand, pairs whose sample skewness is beyond ±{SKEWED_FROM:g} take "
        f"the longer, skewness-corrected interval, and such shares are taken on the log scale; which it was "
        f"stands beside every number."
    )


def _coverage_words(last: Effect) -> str:
    """Describe the coverage of intervals of this kind in simulated studies; "" for a user's own estimator."""
    found = last.estimate
    chosen = "by_skewness" if found.skewness is not None else found.method
    try:
        words = measured_coverage(chosen, found.num_pairs)
    except UnknownName:
        return ""
    return f"In simulated studies, {words}."


def _control_words(outcomes: xr.Dataset) -> str:
    """Say how good the untouched network is, at the last horizon and the first; "" without labels."""
    if "labels" not in outcomes or "logits" not in outcomes:
        return ""
    scores = control_scores(outcomes, "accuracy")
    (begin, first), (end, last) = min(scores.items()), max(scores.items())
    now, then = (format_estimate(one, 100.0) for one in (last, first))
    return (
        f"The control, which nothing was done to, is right on {now} % of the {outcomes.sizes['input']} "
        f"probe inputs at step {end}, and on {then} % at step {begin} (mean over seeds, 95% t interval)."
    )


# ---------------------------------------------------------------- figures


def _loss_figure(outcomes: xr.Dataset, fork_at: int, folder: svg.FigureFolder) -> Markup | None:
    """Draw the training loss of the controls; None where none was recorded."""
    if "train_loss" not in outcomes or not outcomes.sizes.get("train_step"):
        return None
    control = Arms.of(outcomes).control
    figure = figures.losses(outcomes["train_loss"].values[:, control], fork_at)
    label = (
        f"Training loss of the control, mean and range over seeds; the fork is at step {fork_at}."
    )
    return draw_inline(figure, folder, "losses", label)


def _answer_figures(readings: Sequence[Reading], folder: svg.FigureFolder) -> dict[str, Markup]:
    label = "Effect of every treated arm at the last horizon. " + " ".join(
        f"{reading.arm}: {_share_words(reading.last)}, {reading.verdict}." for reading in readings
    )
    wide = svg.save_figure(answer(readings), folder, "answer")
    narrow = svg.to_svg(answer(readings, width=NARROW), "answer-narrow")
    return {
        "wide": inline(wide, "answer", label),
        "narrow": inline(narrow, "answer-narrow", label),
    }


def _share_words(effect: Effect) -> str:
    if effect.fraction is None or effect.is_rounding:
        return format_estimate(effect.estimate)
    return f"{format_effect_share(effect)} of what another seed would change"


def _course_figures(
    readings: Sequence[Reading], arms: Sequence[ArmFacts], unit: str, folder: svg.FigureFolder
) -> list[dict[str, Any]]:
    vertical = distance_scale(readings)
    by_name = {arm.name: arm for arm in arms}
    panels = []
    for place, reading in enumerate(readings, start=1):
        name = f"course-{place:02d}-{slug(reading.arm)}"
        lifetime = by_name[reading.arm].lifetime_steps
        figure = figures.course(reading, vertical, lifetime=lifetime, unit=unit)
        label = f"{reading.arm} over steps after the fork: {reading.verdict}. {reading.last}"
        svg = draw_inline(figure, folder, name, label)
        panels.append({"reading": reading, "svg": svg})
    return panels


def _score_figures(
    effects: Sequence[Effect], readings: Sequence[Reading], folder: svg.FigureFolder
) -> list[dict[str, Any]]:
    panels = []
    for name in dict.fromkeys(effect.metric for effect in effects):
        metric = METRICS[name]
        if metric.kind != "score":
            continue
        last = {
            effect.arm: effect
            for effect in sorted(effects, key=lambda effect: effect.horizon)
            if effect.metric == name
        }
        ranked = [last[reading.arm] for reading in readings if reading.arm in last]
        unit = f" ({metric.unit})" if metric.unit else ""
        title = f"change in {metric.label}{unit}"
        figure = figures.score(ranked, f"treated minus control{unit}", factor=metric.scale)
        label = capitalize(title) + ". " + " ".join(str(effect) for effect in ranked)
        svg = draw_inline(figure, folder, f"score-{name}", label)
        panels.append({"name": name, "title": title, "svg": svg, "effects": ranked})
    return panels


# ---------------------------------------------------------------- the full table


def _grids(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """Return the full table, one part a metric."""
    return [
        {"metric": METRICS[name], "effects": [e for e in effects if e.metric == name]}
        for name in dict.fromkeys(effect.metric for effect in effects)
    ]
