"""The answer figure: every treated arm at the last horizon, with its references."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    INK,
    MUTED,
    NAME,
    PAPER,
    SMALL,
    TEXT,
    WIDE,
    Frame,
    char_width,
    clip_text,
    draw_interval,
    draw_null,
    draw_text,
    draw_title,
    figure_style,
)
from bygones.publish.report.scales import Scale, scale
from bygones.publish.verdicts import (
    GONE_SHARE,
    Reading,
    format_effect_share,
    format_estimate,
    number,
    share,
    steps,
)


def answer(readings: Sequence[Reading], *, width: float = WIDE) -> Figure:
    """Draw every treated arm on one row: the effect at the last horizon as a share of another seed.

    Filled mark: estimate and interval. Hollow mark: matched null. Small mark and thin line: where
    the effect stood at the first horizon. Without a ceiling (one seed) the metric's own unit.
    """
    with figure_style():
        shares = bool(readings) and all(
            math.isfinite(share(reading.last, 1.0)) for reading in readings
        )
        rows = [_answer_row(reading, shares) for reading in readings]
        key_lines = _key_lines(rows, readings, width)
        frame = _frame(width, len(rows), len(key_lines))
        figure, ax = frame.make_axes()
        axis = _draw_axis(ax, rows, shares, frame.narrow)
        _draw_key(figure, key_lines)
        for index, row in enumerate(rows):
            # On a phone names and verdicts stand above and below the mark, so that the reference
            # lines are drawn a row at a time and do not strike through words.
            at = index - 0.02 if frame.narrow else index + 0.12
            ends = (at - 0.16, at + 0.16) if frame.narrow else (index - 0.5, index + 0.5)
            ax.plot([0, 0], ends, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
            if shares:
                ax.plot([1, 1], ends, color=INK, linewidth=0.9)
            _draw_answer(ax, row, at, axis)
            if frame.narrow:
                _label_around(ax, row, index, frame)
            else:
                _label_beside(ax, row, index, frame, axis)
        return figure


def _frame(width: float, num_rows: int, num_key_lines: int) -> Frame:
    narrow = width < 6
    pitch = 0.86 if narrow else 0.52
    head, foot = 0.18 * num_key_lines + 0.36, 0.62 if narrow else 0.46
    height = head + pitch * max(num_rows, 1) + foot
    left, right = (0.08, width - 0.08) if narrow else (2.95, width - 3.4)
    return Frame(width, height, left, right, head, foot)


def _draw_axis(ax: Axes, rows: Sequence[_AnswerRow], shares: bool, narrow: bool) -> Scale:
    """Draw the horizontal axis with the names of its two references, and return its scale."""
    values = [value for row in rows for value in row.values]
    axis = scale([*values, 1.0] if shares else values, GONE_SHARE / 10 if shares else 0.0)
    axis.apply(ax, "x")
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)
    tick = (lambda value, _: f"{100 * value:g}%") if shares else (lambda value, _: number(value))
    ax.xaxis.set_major_formatter(FuncFormatter(tick))
    kind = "" if axis.threshold is None else " (logarithmic, with 0 shown)"
    unit = "share of what another seed would change" if shares else "distance from the control"
    ax.set_xlabel(textwrap.fill(unit + kind, 50 if narrow else 90), labelpad=5)
    draw_title(ax, 0.0, "sham", MUTED, "left" if narrow else "center")
    if shares:
        draw_title(ax, 1.0, "another seed", INK, "right" if narrow else "center")
    return axis


def _label_around(ax: Axes, row: _AnswerRow, index: int, frame: Frame) -> None:
    """Write an arm's name and number above its mark and its verdict below, on a narrow page."""
    reading, left, right = row.reading, frame.left, frame.right
    room = right - len(row.label) * char_width(SMALL) - 0.1
    name = clip_text(reading.arm, room, 1.28 * NAME)  # bold is wider
    draw_text(ax, left, index - 0.32, name, NAME, weight="bold")
    draw_text(ax, right, index - 0.32, row.label, SMALL, EFFECT, ha="right")
    draw_text(ax, left, index + 0.24, reading.lead, SMALL)
    draw_text(ax, left, index + 0.40, clip_text(reading.rest, right, SMALL), SMALL, MUTED)


def _label_beside(ax: Axes, row: _AnswerRow, index: int, frame: Frame, axis: Scale) -> None:
    """Write an arm's name left of its mark, its number above it, and its verdict right of it."""
    reading = row.reading
    name = clip_text(reading.arm, 2.6, 1.28 * NAME)
    draw_text(ax, 0.02, index - 0.14, name, NAME, weight="bold")
    sentence = clip_text(reading.last.sentence, 2.75, SMALL)
    draw_text(ax, 0.02, index + 0.20, sentence, SMALL, MUTED)
    _label_mark(ax, row, index - 0.22, axis)
    place = frame.right + 0.22
    down = 0.0 if reading.rest else 0.14
    draw_text(ax, place, index - 0.14 + down, reading.lead, TEXT, weight="bold")
    draw_text(ax, place, index + 0.20, clip_text(reading.rest, 3.3, SMALL), SMALL, MUTED)


def _label_mark(ax: Axes, row: _AnswerRow, at: float, axis: Scale) -> None:
    """Write the number over its mark, kept inside the axis and legible where it crosses a line."""
    x = row.value if math.isfinite(row.value) else 0.0
    pixel = float(ax.transData.transform((x, 0.0))[0])
    half = 0.5 * len(row.label) * char_width(SMALL) * ax.figure.dpi
    ha, x = "center", x
    if pixel - half < ax.bbox.x0:
        ha, x = "left", axis.low
    elif pixel + half > ax.bbox.x1:
        ha, x = "right", axis.high
    ax.text(
        x, at, row.label, ha=ha, va="center_baseline", color=EFFECT, fontsize=SMALL, zorder=6,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip


@dataclass(frozen=True)
class _AnswerRow:
    reading: Reading
    value: float
    low: float
    high: float
    null: float
    first: float
    label: str

    @property
    def values(self) -> tuple[float, ...]:
        return (self.value, self.high, self.null, self.first)


def _answer_row(reading: Reading, shares: bool) -> _AnswerRow:
    last, first = reading.last, reading.first
    null = math.nan if last.null is None else last.null.value
    if shares and last.fraction is not None:
        value, low, high = last.fraction.value, last.fraction.low, last.fraction.high
        null, start = share(last, null), share(first, first.estimate.value)
    else:
        value, low, high = last.estimate.value, last.estimate.low, last.estimate.high
        start = first.estimate.value
    label = format_effect_share(last) if shares else format_estimate(last.estimate)
    if last.num_diverged:
        label += f" · {last.num_diverged} diverged"
    return _AnswerRow(reading, value, max(low, 0.0), high, null, start, label)


def _draw_answer(ax: Axes, row: _AnswerRow, at: float, axis: Scale) -> None:
    ax.plot([axis.low, axis.high], [at, at], color=HAIR, linewidth=0.7, zorder=0)
    if math.isfinite(row.first) and row.reading.first.step != row.reading.last.step:
        ax.plot([row.first, row.value], [at, at], color=EFFECT, linewidth=0.9, alpha=0.55)
        ax.plot([row.first], [at], "|", color=EFFECT, markersize=6, markeredgewidth=1.2)
    if math.isfinite(row.null):
        draw_null(ax, row.null, at)
    draw_interval(ax, row.value, row.low, row.high, at)


def _key_lines(
    rows: Sequence[_AnswerRow], readings: Sequence[Reading], width: float
) -> list[list[tuple[str, str, float]]]:
    """Return the key, broken into lines that fit: (kind of mark, words, inches taken)."""
    last = readings[0].last if readings else None
    level = 0.95 if last is None else last.estimate.level
    horizon = 0 if last is None else last.horizon
    entries = [("effect", f"effect after {steps(horizon)}, {level:.0%} interval")]
    if any(math.isfinite(row.null) for row in rows):
        entries.append(("null", "matched null: a random change as large"))
    if readings and readings[0].first.step != readings[0].last.step:
        start = readings[0].first.horizon
        entries.append(
            ("first", f"effect after {steps(start)}" if start else "right after the fork")
        )
    lines: list[list[tuple[str, str, float]]] = [[]]
    used = 0.0
    for kind, words in entries:
        taken = 0.32 + len(words) * char_width(SMALL) + 0.2
        if lines[-1] and used + taken > width:
            lines.append([])
            used = 0.0
        lines[-1].append((kind, words, taken))
        used += taken
    return lines


def _draw_key(figure: Figure, lines: Sequence[Sequence[tuple[str, str, float]]]) -> None:
    width, height = figure.get_size_inches()
    ax = figure.add_axes((0, 0, 1, 1), zorder=-1)
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    for index, line in enumerate(lines):
        x, y = 0.08, height - 0.11 - 0.18 * index
        for kind, words, taken in line:
            if kind == "effect":
                draw_interval(ax, x + 0.08, x - 0.04, x + 0.2, y)
            elif kind == "null":
                draw_null(ax, x + 0.08, y)
            else:
                ax.plot([x, x + 0.2], [y, y], color=EFFECT, linewidth=0.9, alpha=0.55)
                ax.plot([x], [y], "|", color=EFFECT, markersize=6, markeredgewidth=1.2)
            ax.text(x + 0.28, y, words, fontsize=SMALL, color=MUTED, va="center_baseline")
            x += taken
