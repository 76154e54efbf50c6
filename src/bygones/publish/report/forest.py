"""Forest plot: one effect in several studies, with the pooled mean and the prediction interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bygones.analysis.estimators import Estimate
from bygones.analysis.meta_analysis import Contribution, Pooled
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    INK,
    MUTED,
    PAPER,
    SMALL,
    TEXT,
    WIDE,
    Frame,
    char_width,
    clip_text,
    draw_text,
    draw_title,
    figure_style,
)
from bygones.publish.verdicts import format_estimate, number, percent


def forest(pooled: Pooled, label: str = "", *, width: float = WIDE) -> Figure:
    """Draw one effect in several studies: a row a study, the pooled mean, and the prediction interval.

    Squares have the area of a study's weight; a hollow mark has none and is left out of the mean.
    Diamond: the pooled mean, as wide as its interval. Thin bar: the prediction interval, for the
    true effect of a further study; an arrowhead where it goes beyond the axis. `label`: what the
    axis shows, with its unit (default: what was pooled).
    """
    with figure_style():
        frame = _frame(pooled, width)
        figure, ax = frame.make_axes()
        _draw_axis(ax, pooled, label, frame)
        down = 0.18 if frame.narrow else 0.0  # on a phone words stand above their mark
        _draw_reference_lines(ax, pooled, down)
        if not frame.narrow:
            _draw_headings(figure, pooled.estimate.level, frame)
        low, high = ax.get_xlim()
        for index, study in enumerate(pooled.contributions):
            at = index + down
            ax.plot([low, high], [at, at], color=HAIR, linewidth=0.7, zorder=0)
            _draw_study(ax, study, at)
            weight = "no weight" if study.weight is None else percent(study.weight)
            _draw_words(ax, index, (study.study, format_estimate(study.estimate), weight), frame)
        num_studies, mean = len(pooled.contributions), pooled.estimate
        rule = num_studies - 0.4
        ax.plot([low, high], [rule, rule], color=INK, linewidth=0.8, clip_on=False)
        _draw_diamond(ax, mean, num_studies + 0.1 + down, 0.16 if frame.narrow else 0.24)
        _draw_words(
            ax, num_studies + 0.1, ("all studies", format_estimate(mean), ""), frame, bold=True
        )
        index = num_studies + 0.1 + 1
        _draw_prediction(ax, pooled, index + down)
        _draw_words(ax, index, ("a further study", _prediction_in_words(pooled), ""), frame)
        return figure


def _frame(pooled: Pooled, width: float) -> Frame:
    narrow, studies = width < 6, pooled.contributions
    pitch = 0.52 if narrow else 0.36
    head, foot = 0.42, 0.5
    num_rows = len(studies) + 2  # the pooled mean and the prediction
    height = head + pitch * (num_rows + 0.3) + foot
    room = max([len(study.study) for study in studies], default=0) * char_width(TEXT)
    aside = min(max(room + 0.3, 1.6), 0.34 * width)  # inches for the names
    left, right = (0.1, width - 0.1) if narrow else (aside, width - 2.95)
    return Frame(width, height, left, right, head, foot)


def _draw_axis(ax: Axes, pooled: Pooled, label: str, frame: Frame) -> None:
    ax.set_xlim(*_reach(pooled))
    ax.set_ylim(len(pooled.contributions) + 2 - 0.2, -0.5)
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4 if frame.narrow else 7))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.set_xlabel(clip_text(label or pooled.what, frame.width - 0.2, SMALL), labelpad=5)
    draw_title(ax, 0.0, "none", MUTED, "center")


def _draw_reference_lines(ax: Axes, pooled: Pooled, down: float) -> None:
    """Draw the upright lines at 0 and at the pooled mean."""
    rows = [float(row) for row in range(len(pooled.contributions))]
    for ends in _upright([*rows, len(rows) + 0.1, len(rows) + 1.1], down):
        ax.plot([0, 0], ends, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    mean = pooled.estimate.value
    if math.isfinite(mean):
        for ends in _upright(rows, down):
            ax.plot([mean] * 2, ends, color=EFFECT, linewidth=0.8, alpha=0.5, zorder=1)


def _draw_headings(figure: Figure, level: float, frame: Frame) -> None:
    """Name the columns of numbers, right of the marks."""
    y = frame.height - 0.26
    figure.text(frame.right + 0.22, y, f"estimate, {level:.0%} interval",
                transform=figure.dpi_scale_trans, fontsize=SMALL, color=MUTED)  # fmt: skip
    figure.text(frame.width - 0.08, y, "weight", transform=figure.dpi_scale_trans,
                fontsize=SMALL, color=MUTED, ha="right")  # fmt: skip


def _draw_prediction(ax: Axes, pooled: Pooled, at: float) -> None:
    """Draw the prediction interval, with an arrowhead where it goes beyond the axis."""
    ends = (pooled.predicted_low, pooled.predicted_high)
    if not all(math.isfinite(end) for end in ends):
        return
    low, high = ax.get_xlim()
    ax.plot(ends, [at, at], "|-", color=EFFECT, linewidth=1.2, markersize=7)
    for end, edge, beyond in ((ends[0], low, "<"), (ends[1], high, ">")):
        if not low <= end <= high:
            ax.plot([edge], [at], beyond, color=EFFECT, markersize=5, clip_on=False)


def _prediction_in_words(pooled: Pooled) -> str:
    ends = (pooled.predicted_low, pooled.predicted_high)
    if not all(math.isfinite(end) for end in ends):
        return "takes three studies"
    mean = pooled.estimate
    further = Estimate(mean.value, *ends, mean.level, mean.num_pairs, "")
    return format_estimate(further)[len(further.number.replace("-", "−")) :].strip()


def _reach(pooled: Pooled) -> tuple[float, float]:
    """Return the ends of the axis: all intervals, 0, and the prediction as far as it does not dwarf them."""
    estimates = [pooled.estimate, *(study.estimate for study in pooled.contributions)]
    ends = [end for e in estimates for end in (e.value, e.low, e.high) if math.isfinite(end)]
    ends.append(0.0)
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    predicted = (pooled.predicted_low, pooled.predicted_high)
    if all(math.isfinite(end) for end in predicted):
        low = max(min(low, predicted[0]), low - span)
        high = min(max(high, predicted[1]), high + span)
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


def _upright(rows: Sequence[float], down: float) -> list[tuple[float, float]]:
    """Return the ends of an upright line: in one, or in pieces where it would strike through words."""
    if not down:
        return [(-0.5, rows[-1] + 0.7)]
    return [(row + down - 0.17, row + down + 0.17) for row in rows]


def _draw_study(ax: Axes, study: Contribution, at: float) -> None:
    estimate = study.estimate
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        ax.plot([estimate.low, estimate.high], [at, at], color=EFFECT, linewidth=1.6, zorder=3)
    if math.isfinite(estimate.value):
        size = 5.0 if study.weight is None else max(2.5, 16.0 * math.sqrt(study.weight))
        face = PAPER if study.weight is None else EFFECT
        ax.plot([estimate.value], [at], "s", color=EFFECT, markerfacecolor=face, markersize=size,
                zorder=4, clip_on=False)  # fmt: skip


def _draw_diamond(ax: Axes, mean: Estimate, at: float, half: float) -> None:
    if not math.isfinite(mean.value):
        return
    low = mean.low if math.isfinite(mean.low) else mean.value
    high = mean.high if math.isfinite(mean.high) else mean.value
    x = [low, mean.value, high, mean.value]
    ax.fill(x, [at, at - half, at, at + half], facecolor=EFFECT, edgecolor=EFFECT, zorder=5)


def _draw_words(
    ax: Axes, row: float, words: Sequence[str], frame: Frame, *, bold: bool = False
) -> None:
    """Write name, numbers and weight of a row: beside the marks, or above them on a phone."""
    left, right, width = frame.left, frame.right, frame.width
    name, numbers, weight = words
    style = "bold" if bold else "normal"
    if frame.narrow:
        said = f"{numbers} · {weight}" if weight else numbers
        room = width - 0.4 - len(said) * char_width(SMALL)
        draw_text(ax, left, row - 0.2, clip_text(name, room, 1.28 * SMALL), SMALL, weight=style)
        draw_text(ax, right, row - 0.2, said, SMALL, EFFECT, ha="right")
        return
    draw_text(ax, 0.05, row, clip_text(name, left - 0.2, TEXT), TEXT, weight=style)
    draw_text(ax, right + 0.22, row, numbers, SMALL, EFFECT, weight=style)
    draw_text(ax, width - 0.08, row, weight, SMALL, MUTED, ha="right")
