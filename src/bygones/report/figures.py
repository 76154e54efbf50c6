"""The figures of a report, each from one function that returns a matplotlib Figure.

No pyplot and no global state: figures are built and saved inside a style context that starts from
matplotlib's own defaults, so that equal inputs give equal bytes whatever the caller has set.
Five hues, one meaning each (safe for colour-blind readers, and told apart by shape as well):
effect filled and solid, matched null hollow and dashed, sham dotted, another seed a thin line.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Transform, blended_transform_factory

from bygones.effects import Effect
from bygones.report.reading import (
    GONE_SHARE,
    Reading,
    number,
    share,
    steps,
    written,
    written_share,
)

INK, MUTED, HAIR = "#1d1d1b", "#63635e", "#d6d4cc"
EFFECT, NULL = "#0b5fae", "#b3500b"
PAPER = "#fffffe"  # what a hollow mark is filled with; not plain white, so that it can be mapped
# Colours become CSS variables in the page, where light and dark give them their values.
CSS_VARIABLES = {
    INK: "--ink", MUTED: "--muted", HAIR: "--hair",
    EFFECT: "--effect", NULL: "--null", PAPER: "--paper",
}  # fmt: skip

WIDE, NARROW, PANEL, HALF = 10.8, 3.72, 3.6, 4.1  # inches at 96 px: page, phone, third, half
NAME, TEXT, SMALL = 9.5, 9.0, 8.25  # points

_STYLE = {
    "svg.fonttype": "none",  # text stays text: selectable, read aloud, in the reader's own font
    "pdf.fonttype": 42,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,  # an arm's name may hold a dollar sign
    "axes.edgecolor": HAIR,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": HAIR,
    "ytick.color": HAIR,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # A name in a script the bundled font lacks is drawn as a box in the PNG; the page has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


# ---------------------------------------------------------------- scales


@dataclass(frozen=True)
class Scale:
    """An axis from 0 up: linear, or logarithmic above `threshold` and linear between 0 and it."""

    high: float
    ticks: tuple[float, ...]
    threshold: float | None = None

    @property
    def low(self) -> float:
        """A little below 0, so that a mark at exactly 0 is drawn whole."""
        return -0.03 * self.high if self.threshold is None else -0.35 * self.threshold

    def apply(self, ax: Axes, axis: str) -> None:
        if self.threshold is not None:
            options = {"linthresh": self.threshold, "linscale": 0.45}
            (ax.set_xscale if axis == "x" else ax.set_yscale)("symlog", **options)
        (ax.set_xlim if axis == "x" else ax.set_ylim)(self.low, self.high)
        target = ax.xaxis if axis == "x" else ax.yaxis
        target.set_major_locator(FixedLocator(self.ticks))
        target.set_minor_locator(NullLocator())


def scale(values: Iterable[float], smallest: float) -> Scale:
    """The scale on which both the small and the large of `values` can be read.

    Linear (honest lengths) while the values span less than a factor of 30; otherwise logarithmic
    down to the power of ten below `smallest`, the size under which a difference has no meaning.
    """
    positive = sorted(value for value in values if math.isfinite(value) and value > 0)
    if not positive:
        return Scale(1.0, (0.0, 1.0))
    largest = positive[-1]
    meaningful = [value for value in positive if value >= smallest]
    if not meaningful or largest / meaningful[0] < 30:
        high = 1.08 * largest
        ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, high)
        return Scale(high, tuple(float(tick) for tick in ticks if 0 <= tick <= high))
    bottom = math.floor(math.log10(max(smallest, largest * 1e-6)))
    top = math.floor(math.log10(largest))
    stride = 1 + (top - bottom) // 6
    decades = tuple(10.0**power for power in range(bottom, top + 1, stride))
    return Scale(1.5 * largest, (0.0, *decades), 10.0**bottom)


def horizon_scale(horizons: Sequence[int]) -> Scale:
    """Steps after the fork: logarithmic with 0 shown where the horizons are spread that way."""
    positive = sorted(horizon for horizon in horizons if horizon > 0)
    last = max(horizons)
    if not positive or last / positive[0] < 20:
        ticks = MaxNLocator(4, integer=True).tick_values(0, max(last, 1))
        high = 1.03 * max(last, 1)
        return Scale(high, tuple(float(tick) for tick in ticks if 0 <= tick <= high))
    decades = [10.0**power for power in range(int(math.log10(last)) + 1)]
    # The last horizon gets its own label; a decade that would touch it gives way.
    return Scale(1.12 * last, (0.0, *(tick for tick in decades if tick < last / 2), float(last)), 1)


def distance_scale(readings: Sequence[Reading]) -> Scale:
    """One vertical scale for every arm's panel, so that panels can be compared by eye."""
    effects = [effect for reading in readings for effect in reading.course]
    values = [effect.estimate.value for effect in effects]
    values += [effect.estimate.high for effect in effects]
    values += [effect.null.high for effect in effects if effect.null is not None]
    ceilings = [effect.ceiling.value for effect in effects if effect.ceiling is not None]
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    reference = [value for value in ceilings if math.isfinite(value) and value > 0]
    smallest = GONE_SHARE * min(reference) if reference else largest / 1000
    return scale(values + ceilings, smallest)


# ---------------------------------------------------------------- the answer


def answer(readings: Sequence[Reading], *, width: float = WIDE) -> Figure:
    """Every treated arm on one row: the effect at the last horizon as a share of another seed.

    Filled mark: estimate and interval. Hollow mark: matched null. Small mark and thin line: where
    the effect stood at the first horizon. Without a ceiling (one seed) the metric's own unit.
    """
    with _style():
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
        _above(ax, 0.0, "sham", MUTED, "left" if narrow else "center")
        if shares:
            _above(ax, 1.0, "another seed", INK, "right" if narrow else "center")
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
                room = right - len(label) * _char(SMALL) - 0.1
                name = _clip(reading.arm, room, 1.28 * NAME)  # bold is wider
                _text(ax, left, index - 0.32, name, NAME, weight="bold")
                _text(ax, right, index - 0.32, label, SMALL, EFFECT, ha="right")
                _text(ax, left, index + 0.24, reading.lead, SMALL)
                _text(ax, left, index + 0.40, _clip(reading.rest, right, SMALL), SMALL, MUTED)
            else:
                name = _clip(reading.arm, 2.6, 1.28 * NAME)
                _text(ax, 0.02, index - 0.14, name, NAME, weight="bold")
                sentence = _clip(reading.last.sentence, 2.75, SMALL)
                _text(ax, 0.02, index + 0.20, sentence, SMALL, MUTED)
                _direct_label(ax, row, index - 0.22, axis)
                place = right + 0.22
                down = 0.0 if reading.rest else 0.14
                _text(ax, place, index - 0.14 + down, reading.lead, TEXT, weight="bold")
                _text(ax, place, index + 0.20, _clip(reading.rest, 3.3, SMALL), SMALL, MUTED)
        return figure


def _direct_label(ax: Axes, row: _AnswerRow, at: float, axis: Scale) -> None:
    """The number over its mark, kept inside the axis and legible where it crosses a line."""
    x = row.value if math.isfinite(row.value) else 0.0
    pixel = float(ax.transData.transform((x, 0.0))[0])
    half = 0.5 * len(row.label) * _char(SMALL) * ax.figure.dpi
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
        _null_mark(ax, row.null, at)
    _interval(ax, row.value, row.low, row.high, at)


def _null_mark(ax: Axes, x: float, y: float) -> None:
    ax.plot([x], [y], "D", color=NULL, markerfacecolor=PAPER, markersize=7.5, markeredgewidth=1.3,
            zorder=4, clip_on=False)  # fmt: skip


def _interval(ax: Axes, value: float, low: float, high: float, y: float) -> None:
    """A filled mark with its interval; the ends stand taller than the mark, so they always show."""
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [y, y], "|-", color=EFFECT, linewidth=2.2, markersize=10,
                markeredgewidth=1.1, zorder=5, clip_on=False)  # fmt: skip
    if math.isfinite(value):
        ax.plot([value], [y], "o", color=EFFECT, markersize=5, zorder=6, clip_on=False)


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
        taken = 0.32 + len(words) * _char(SMALL) + 0.2
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
                _interval(ax, x + 0.08, x - 0.04, x + 0.2, y)
            elif kind == "null":
                _null_mark(ax, x + 0.08, y)
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
    with _style():
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
        _figure_text(figure, 0.04, height - 0.1, unit)
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
    with _style():
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
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
        ax.set_xlabel(label, labelpad=4)
        ax.axvline(0.0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), ymax=1.0)
        _above(ax, 0.0, "no change", MUTED, "center")
        for index, effect in enumerate(effects):
            at = index + 0.2
            ax.plot([-limit, limit], [at, at], color=HAIR, linewidth=0.7, zorder=0)
            estimate, null = effect.estimate, effect.null
            if null is not None and math.isfinite(null.value):
                _null_mark(ax, factor * null.value, at)
            ends = (factor * estimate.value, factor * estimate.low, factor * estimate.high)
            _interval(ax, *ends, at)
            words = written(estimate, factor, signed=True)
            if effect.num_diverged:
                words += f" · {effect.num_diverged} diverged"
            room = width - 0.3 - len(words) * _char(SMALL)
            _text(
                ax, left, index - 0.2, _clip(effect.arm, room, 1.28 * SMALL), SMALL, weight="bold"
            )
            _text(ax, right, index - 0.2, words, SMALL, EFFECT, ha="right")
        return figure


def _signed(value: float) -> str:
    text = number(value)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


# ---------------------------------------------------------------- text


def _char(size: float) -> float:
    """Inches that a character takes on average; DejaVu is wide, so other fonts fit as well."""
    return 0.0073 * size


def _clip(text: str, inches: float, size: float) -> str:
    """
    >>> _clip("a name that is much too long for its column", 1.0, 9.0)
    'a name that is …'
    """
    limit = max(int(inches / _char(size)), 4)
    return text if len(text) <= limit else text[: limit - 1].rstrip() + " …"


def _inches_across(ax: Axes) -> Transform:
    assert isinstance(ax.figure, Figure)
    return blended_transform_factory(ax.figure.dpi_scale_trans, ax.transData)


def _text(
    ax: Axes, x: float, y: float, words: str, size: float, color: str = INK,
    *, ha: str = "left", weight: str = "normal",
) -> None:  # fmt: skip
    """Words at `x` inches from the figure's left edge, on the row `y`."""
    ax.text(
        x, y, words, transform=_inches_across(ax), fontsize=size, color=color,
        ha=ha, va="center_baseline", fontweight=weight, clip_on=False,
    )  # fmt: skip


def _figure_text(figure: Figure, x: float, y: float, words: str) -> None:
    figure.text(x, y, words, transform=figure.dpi_scale_trans, fontsize=SMALL, color=MUTED,
                va="center_baseline")  # fmt: skip


def _above(ax: Axes, x: float, words: str, color: str, ha: str) -> None:
    along = blended_transform_factory(ax.transData, ax.transAxes)
    ax.annotate(
        words, (x, 1.0), xycoords=along, xytext=(0, 3), textcoords="offset points",
        ha=ha, va="bottom", fontsize=SMALL, color=color,
    )  # fmt: skip


# ---------------------------------------------------------------- out of matplotlib


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG file's text; equal figures and names give equal text."""
    with _style(), matplotlib.rc_context({"svg.hashsalt": name}):
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
        return buffer.getvalue()


def inline_svg(text: str, name: str, label: str) -> str:
    """An SVG to stand inside the page: own ids, CSS variables for colours, nothing from outside.

    `name` goes before every id, so that two figures in one page cannot reach each other's clip
    paths; `label` is what a screen reader says. Both are escaped here.
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    # Only inside tags: a text may hold anything, an arm called 'id="x"' for one.
    body = re.sub(r"<[^>]+>", lambda tag: _localise(tag[0], name), body)
    box = re.search(r'viewBox="[^"]*"', body)
    width = re.search(r'width="([0-9.]+)pt"', body)
    assert box is not None
    assert width is not None
    natural = f"{float(width[1]) * 4 / 3:.0f}px"
    opening = (
        f'<svg {box[0]} style="max-width: {natural}" role="img" aria-label="{_escape(label)}">'
    )
    return opening + body[body.index(">") + 1 :].strip()


def _localise(tag: str, name: str) -> str:
    tag = re.sub(r'\sid="', f' id="{name}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag)
    tag = re.sub(r"url\(#", f"url(#{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", tag)
    tag = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--sans)", tag)
    for color, variable in CSS_VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return tag


def _escape(text: str) -> str:
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, entity)
    return text


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write `<folder>/<name>.pdf`, `.png` and `.svg`; the SVG's text is returned for the page."""
    text = svg(figure, name)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    with _style():
        undated = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(folder / f"{name}.pdf", metadata=undated)
        figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    return text
