"""The figures of a report, each from one function that returns a matplotlib Figure.

No pyplot and no global state: figures are built and saved inside a style context that starts from
matplotlib's own defaults, so that equal inputs give equal bytes whatever the caller has set.
Five hues, one meaning each (safe for colour-blind readers, and told apart by shape as well):
effect filled and solid, matched null hollow and dashed, sham dotted, another seed a thin line.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from bygones.analysis.effect import Effect
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    HALF,
    INK,
    MUTED,
    NAME,
    NULL,
    PANEL,
    PAPER,
    SMALL,
    TEXT,
    WIDE,
    char_width,
    clip_text,
    draw_figure_text,
    draw_interval,
    draw_null,
    draw_text,
    draw_title,
    figure_style,
    format_signed,
)
from bygones.publish.report.scales import Scale, distance_scale, horizon_scale, scale
from bygones.publish.report.verdicts import (
    GONE_SHARE,
    Reading,
    number,
    share,
    steps,
    written,
    written_share,
)

# ---------------------------------------------------------------- scales


# ---------------------------------------------------------------- the answer


def answer(readings: Sequence[Reading], *, width: float = WIDE) -> Figure:
    """Every treated arm on one row: the effect at the last horizon as a share of another seed.

    Filled mark: estimate and interval. Hollow mark: matched null. Small mark and thin line: where
    the effect stood at the first horizon. Without a ceiling (one seed) the metric's own unit.
    """
    with figure_style():
        narrow = width < 6
        shares = bool(readings) and all(
            math.isfinite(share(reading.last, 1.0)) for reading in readings
        )
        rows = [_answer_row(reading, shares) for reading in readings]
        key_lines = _key_lines(rows, readings, width)
        pitch = 0.86 if narrow else 0.52
        head, foot = 0.18 * len(key_lines) + 0.36, 0.62 if narrow else 0.46
        height = head + pitch * max(len(rows), 1) + foot
        figure = Figure(figsize=(width, height))
        left, right = (0.08, width - 0.08) if narrow else (2.95, width - 3.4)
        ax = figure.add_axes(
            (left / width, foot / height, (right - left) / width, 1 - (head + foot) / height)
        )
        values = [value for row in rows for value in row.drawn]
        axis = scale([*values, 1.0] if shares else values, GONE_SHARE / 10 if shares else 0.0)
        axis.apply(ax, "x")
        ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        ax.yaxis.set_visible(False)
        ax.spines["left"].set_visible(False)
        tick = (
            (lambda value, _: f"{100 * value:g}%") if shares else (lambda value, _: number(value))
        )
        ax.xaxis.set_major_formatter(FuncFormatter(tick))
        kind = "" if axis.threshold is None else " (logarithmic, with 0 shown)"
        unit = "share of what another seed would change" if shares else "distance from the control"
        ax.set_xlabel(textwrap.fill(unit + kind, 50 if narrow else 90), labelpad=5)
        draw_title(ax, 0.0, "sham", MUTED, "left" if narrow else "center")
        if shares:
            draw_title(ax, 1.0, "another seed", INK, "right" if narrow else "center")
        _draw_key(figure, key_lines)
        for index, row in enumerate(rows):
            # On a phone names and verdicts stand above and below the mark, so that the reference
            # lines are drawn a row at a time and do not strike through words.
            at = index - 0.02 if narrow else index + 0.12
            ends = (at - 0.16, at + 0.16) if narrow else (index - 0.5, index + 0.5)
            ax.plot([0, 0], ends, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
            if shares:
                ax.plot([1, 1], ends, color=INK, linewidth=0.9)
            _draw_answer(ax, row, at, axis)
            reading = row.reading
            if narrow:
                label = row.label
                room = right - len(label) * char_width(SMALL) - 0.1
                name = clip_text(reading.arm, room, 1.28 * NAME)  # bold is wider
                draw_text(ax, left, index - 0.32, name, NAME, weight="bold")
                draw_text(ax, right, index - 0.32, label, SMALL, EFFECT, ha="right")
                draw_text(ax, left, index + 0.24, reading.lead, SMALL)
                draw_text(
                    ax, left, index + 0.40, clip_text(reading.rest, right, SMALL), SMALL, MUTED
                )
            else:
                name = clip_text(reading.arm, 2.6, 1.28 * NAME)
                draw_text(ax, 0.02, index - 0.14, name, NAME, weight="bold")
                sentence = clip_text(reading.last.sentence, 2.75, SMALL)
                draw_text(ax, 0.02, index + 0.20, sentence, SMALL, MUTED)
                _direct_label(ax, row, index - 0.22, axis)
                place = right + 0.22
                down = 0.0 if reading.rest else 0.14
                draw_text(ax, place, index - 0.14 + down, reading.lead, TEXT, weight="bold")
                draw_text(
                    ax, place, index + 0.20, clip_text(reading.rest, 3.3, SMALL), SMALL, MUTED
                )
        return figure


def _direct_label(ax: Axes, row: _AnswerRow, at: float, axis: Scale) -> None:
    """The number over its mark, kept inside the axis and legible where it crosses a line."""
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
    def drawn(self) -> tuple[float, ...]:
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
    label = written_share(last.fraction) if shares else written(last.estimate)
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
    """The key, broken into lines that fit: (kind of mark, words, inches taken)."""
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


# ---------------------------------------------------------------- one arm over time


def course(
    reading: Reading,
    vertical: Scale | None = None,
    *,
    lifetime: float | None = None,
    unit: str = "TV",
) -> Figure:
    """One arm's effect over the steps after the fork, with floor, matched null and ceiling.

    Bands are intervals, cut at 0 (a distance is never negative). `vertical`: the scale, if it is to
    be shared with other arms (`distance_scale`). `lifetime`: the carrier's, in steps (infinite:
    unbounded); drawn as a bar along the top.
    """
    with figure_style():
        width, height = PANEL, 2.55
        figure = Figure(figsize=(width, height))
        left, right, bottom, top = 0.52, 0.86, 0.46, 0.3
        ax = figure.add_axes(
            (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
        )
        effects = reading.course
        horizons = [effect.horizon for effect in effects]
        horizontal = horizon_scale(horizons)
        horizontal.apply(ax, "x")
        (vertical or distance_scale([reading])).apply(ax, "y")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.grid(axis="y", color=HAIR, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("steps after the fork", labelpad=3)
        draw_figure_text(figure, 0.04, height - 0.1, unit)
        ends: list[tuple[float, str, str]] = []
        ceilings = [_value(effect.ceiling) for effect in effects]
        if any(math.isfinite(value) for value in ceilings):
            ax.plot(horizons, ceilings, color=INK, linewidth=0.9)
            ends.append((_last(ceilings), "another seed", INK))
        floors = [_value(effect.floor) for effect in effects]
        if any(math.isfinite(value) for value in floors):
            ax.plot(horizons, floors, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
            ends.append((_last(floors), "sham", MUTED))
        if any(effect.null is not None for effect in effects):
            nulls = [effect.null for effect in effects]
            _band(ax, horizons, nulls, NULL, 0.14)
            values = [_value(null) for null in nulls]
            ax.plot(horizons, values, color=NULL, linewidth=1.3, linestyle=(0, (4, 2)))
            ends.append((_last(values), "random change", NULL))
        _band(ax, horizons, [effect.estimate for effect in effects], EFFECT, 0.22)
        values = [effect.estimate.value for effect in effects]
        ax.plot(horizons, values, color=EFFECT, marker="o", markersize=3.2, zorder=5)
        ends.append((_last(values), "effect", EFFECT))
        _end_labels(ax, ends)
        _lifetime_bar(ax, horizontal, lifetime)
        return figure


def _value(estimate: object) -> float:
    return math.nan if estimate is None else float(estimate.value)  # type: ignore[attr-defined]


def _last(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def _band(ax: Axes, horizons: Sequence[int], estimates: Sequence, color: str, alpha: float) -> None:
    lows = [math.nan if estimate is None else max(estimate.low, 0.0) for estimate in estimates]
    highs = [math.nan if estimate is None else estimate.high for estimate in estimates]
    ax.fill_between(horizons, lows, highs, color=color, alpha=alpha, linewidth=0)


def _end_labels(ax: Axes, ends: Iterable[tuple[float, str, str]]) -> None:
    """Name each line where it ends, pushing names apart that would overlap."""
    spacing = 10.0  # points
    placed: list[list] = []
    for value, words, color in ends:
        if math.isfinite(value):
            y = float(ax.transData.transform((0.0, value))[1]) * 72 / ax.figure.dpi
            placed.append([y, words, color])
    placed.sort(key=lambda item: item[0])
    for below, item in pairwise(placed):
        item[0] = max(item[0], below[0] + spacing)
    top = ax.bbox.y1 * 72 / ax.figure.dpi
    for index in range(len(placed) - 1, -1, -1):
        limit = top if index == len(placed) - 1 else placed[index + 1][0] - spacing
        placed[index][0] = min(placed[index][0], limit)
    figure_height = ax.figure.bbox.height * 72 / ax.figure.dpi
    edge = ax.get_position().x1 + 0.015
    for y, words, color in placed:
        ax.figure.text(
            edge, y / figure_height, words, color=color, fontsize=SMALL, va="center_baseline"
        )


def _lifetime_bar(ax: Axes, horizontal: Scale, lifetime: float | None) -> None:
    if lifetime is None:
        return
    along = blended_transform_factory(ax.transData, ax.transAxes)
    end = min(lifetime, horizontal.high)
    ax.plot([0, end], [1.06, 1.06], color=MUTED, linewidth=3, transform=along, clip_on=False,
            solid_capstyle="butt")  # fmt: skip
    words = "carrier: unbounded" if math.isinf(lifetime) else f"carrier: {number(lifetime)} steps"
    right = ax.transData.transform((end, 0))[0] > ax.bbox.x0 + 0.55 * ax.bbox.width
    ax.annotate(
        words, (end, 1.06), xycoords=along, xytext=(0, 4) if right else (4, 0),
        textcoords="offset points", color=MUTED, fontsize=SMALL - 0.5,
        ha="right" if right else "left", va="bottom" if right else "center",
        annotation_clip=False,
    )  # fmt: skip


# ---------------------------------------------------------------- scores


def score(effects: Sequence[Effect], label: str, *, factor: float = 1.0) -> Figure:
    """The change of one score at the last horizon, one row an arm, 0 in the middle.

    `effects` in the order of the rows; numbers are multiplied by `factor` (100 for points).
    """
    with figure_style():
        width, pitch, head, foot = HALF, 0.44, 0.3, 0.45
        height = head + pitch * max(len(effects), 1) + foot
        figure = Figure(figsize=(width, height))
        left, right = 0.1, width - 0.1
        ax = figure.add_axes(
            (left / width, foot / height, (right - left) / width, 1 - (head + foot) / height)
        )
        reach = [1e-12]
        for effect in effects:
            for estimate in (effect.estimate, effect.null):
                if estimate is not None:
                    ends = (estimate.value, estimate.low, estimate.high)
                    reach += [abs(factor * end) for end in ends if math.isfinite(end)]
        limit = 1.08 * max(reach)
        ax.set_xlim(-limit, limit)
        ax.set_ylim(max(len(effects), 1) - 0.5, -0.5)
        ax.yaxis.set_visible(False)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(6, symmetric=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_signed(value)))
        ax.set_xlabel(label, labelpad=4)
        ax.axvline(0.0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), ymax=1.0)
        draw_title(ax, 0.0, "no change", MUTED, "center")
        for index, effect in enumerate(effects):
            at = index + 0.2
            ax.plot([-limit, limit], [at, at], color=HAIR, linewidth=0.7, zorder=0)
            estimate, null = effect.estimate, effect.null
            if null is not None and math.isfinite(null.value):
                draw_null(ax, factor * null.value, at)
            ends = (factor * estimate.value, factor * estimate.low, factor * estimate.high)
            draw_interval(ax, *ends, at)
            words = written(estimate, factor, signed=True)
            if effect.num_diverged:
                words += f" · {effect.num_diverged} diverged"
            room = width - 0.3 - len(words) * char_width(SMALL)
            draw_text(
                ax,
                left,
                index - 0.2,
                clip_text(effect.arm, room, 1.28 * SMALL),
                SMALL,
                weight="bold",
            )
            draw_text(ax, right, index - 0.2, words, SMALL, EFFECT, ha="right")
        return figure


# ---------------------------------------------------------------- text


# ---------------------------------------------------------------- out of matplotlib
