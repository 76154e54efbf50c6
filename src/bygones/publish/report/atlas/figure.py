"""The picture of the atlas: every source of every regime, how much it matters and for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bygones.publish.report.atlas.entry import Cell, Entry
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    INK,
    MUTED,
    NAME,
    NULL,
    SMALL,
    TEXT,
    WIDE,
    Frame,
    char_width,
    clip_text,
    draw_figure_text,
    draw_interval,
    draw_null,
    draw_text,
    draw_title,
    figure_style,
)
from bygones.publish.report.scales import Scale, horizon_scale, scale
from bygones.publish.verdicts import GONE_SHARE, format_effect_share, share

_LASTS = 3.0  # inches of the panel of lifetimes, on a wide page
_GAP = 1.8  # inches between the panels: the numbers stand there
_EDGE = 0.22  # inches right of it, for the sign of what is unbounded

Row = tuple[str, Cell | None]  # a regime's heading, or a source


def picture(entries: Sequence[Entry], *, width: float = WIDE) -> Figure:
    """Draw one row a source: its share of another seed at the last horizon, and beside it both lifetimes.

    Left panel: share with its interval, and the matched null (hollow). Right panel, in steps after the
    fork: a bar as long as the effect was above 1% of another seed (an arrow where it still was at the
    last horizon), and an upright line at the lifetime of the carrier; "∞" where that is unbounded.
    A narrow page has the left panel alone.
    """
    rows = _rows(entries)
    with figure_style():
        frame = _frame(width, len(rows))
        figure, ax = frame.make_axes()
        axis = _draw_share_axis(ax, rows, frame)
        for at, (regime, cell) in enumerate(rows):
            if cell is None:
                draw_text(ax, 0.02, at + 0.1, regime, NAME, weight="bold")
            else:
                _draw_share(ax, cell, at, axis, frame)
        if not frame.narrow:
            _draw_lifetimes(figure, entries, rows, frame)
        _draw_key(figure, frame)
        return figure


def _rows(entries: Sequence[Entry]) -> list[Row]:
    rows: list[Row] = []
    for entry in entries:
        rows.append((f"{entry.regime}  ·  after {entry.last:,} steps", None))
        largest = sorted(entry.cells, key=lambda cell: -_share_of(cell))
        rows += [(entry.regime, cell) for cell in largest]
    return rows


def _share_of(cell: Cell) -> float:
    found = cell.reading.last.fraction
    return -1.0 if found is None or math.isnan(found.value) else found.value


def _frame(width: float, num_rows: int) -> Frame:
    narrow = width < 6
    pitch = 0.4 if narrow else 0.27
    head, foot = 0.82 if narrow else 0.62, 0.5
    height = head + pitch * max(num_rows, 1) + foot
    left, right = (0.08, width - 0.08) if narrow else (1.95, width - _LASTS - _GAP)
    return Frame(width, height, left, right, head, foot)


def _draw_share_axis(ax: Axes, rows: Sequence[Row], frame: Frame) -> Scale:
    values = [1.0]
    for last in (cell.reading.last for _, cell in rows if cell is not None):
        if last.fraction is not None:
            values += [last.fraction.value, min(last.fraction.high, 20.0)]
            values.append(share(last, math.nan if last.null is None else last.null.value))
    axis = scale(values, GONE_SHARE / 10)
    axis.apply(ax, "x")
    _clear(ax, len(rows))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    kind = "" if axis.threshold is None else " (logarithmic, 0 shown)"
    ax.set_xlabel(f"share of what another seed changes{kind}", labelpad=5)
    for at, (_, cell) in enumerate(rows):
        if cell is not None:  # not through a heading, nor on a phone through words
            ends = (at, at + 0.36) if frame.narrow else (at - 0.5, at + 0.5)
            ax.plot([1, 1], ends, color=INK, linewidth=0.9, zorder=1)
            ax.plot([0, 0], ends, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    draw_title(ax, 0.0, "sham", MUTED, "left" if frame.narrow else "center")
    draw_title(ax, 1.0, "another seed", INK, "right" if frame.narrow else "center")
    return axis


def _clear(ax: Axes, num_rows: int) -> None:
    ax.set_ylim(max(num_rows, 1) - 0.5, -0.5)
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)


def _draw_share(ax: Axes, cell: Cell, at: int, axis: Scale, frame: Frame) -> None:
    last, down = cell.reading.last, 0.18 if frame.narrow else 0.0
    label = "does not reach it" if cell.reading.kind == "unreached" else format_effect_share(last)
    ax.plot([axis.low, axis.high], [at + down] * 2, color=HAIR, linewidth=0.7, zorder=0)
    if last.null is not None and math.isfinite(share(last, last.null.value)):
        draw_null(ax, share(last, last.null.value), at + down)
    found = last.fraction
    if found is not None and math.isfinite(found.value):
        low, high = max(found.low, 0.0), min(found.high, axis.high)
        draw_interval(ax, found.value, low, high, at + down)
    if frame.narrow:
        room = frame.right - len(label) * char_width(SMALL) - 0.1
        draw_text(ax, 0.08, at - 0.24, clip_text(cell.name, room, SMALL), SMALL)
        draw_text(ax, frame.right, at - 0.24, label, SMALL, EFFECT, ha="right")
        return
    draw_text(ax, 0.14, at, clip_text(cell.name, frame.left - 0.2, TEXT), TEXT)
    draw_text(ax, frame.right + 0.14, at, label, SMALL, EFFECT)


def _draw_lifetimes(
    figure: Figure, entries: Sequence[Entry], rows: Sequence[Row], frame: Frame
) -> None:
    """Draw the right panel: how long each effect stood, and the lifetime of its carrier."""
    left = frame.width - _LASTS - _EDGE
    ax = figure.add_axes(
        (left / frame.width, frame.foot / frame.height, _LASTS / frame.width,
         1 - (frame.head + frame.foot) / frame.height)
    )  # fmt: skip
    carriers = [cell.steps for _, cell in rows if cell is not None and cell.steps]
    reach = [1, *(entry.last for entry in entries), *(math.ceil(steps) for steps in carriers)]
    axis = horizon_scale(reach)
    axis.apply(ax, "x")
    _clear(ax, len(rows))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("steps after the fork", labelpad=5)
    draw_title(ax, axis.low, "how long effect and carrier last", MUTED, "left")
    for at, (_, cell) in enumerate(rows):
        if cell is not None:
            ax.plot([axis.low, axis.high], [at, at], color=HAIR, linewidth=0.7, zorder=0)
            _draw_lifetime(ax, cell, at, axis)


def _draw_lifetime(ax: Axes, cell: Cell, at: int, axis: Scale) -> None:
    gone, stood = cell.reading.washout.gone_by, cell.reading.washout.last_standing
    last = cell.reading.last.horizon
    if cell.reading.kind not in ("nothing", "unreached", "sham", "never"):
        end = last if gone is None else (stood or 0)
        ax.plot([0, end], [at, at], color=EFFECT, linewidth=3.2, solid_capstyle="butt", zorder=3)
        if gone is None:
            ax.plot([end], [at], ">", color=EFFECT, markersize=6, zorder=4, clip_on=False)
        else:  # it went below between two steps at which it was observed
            ax.plot([end, gone], [at, at], color=EFFECT, linewidth=1, alpha=0.6, zorder=3)
    if cell.steps is None:
        ax.annotate("∞", (axis.high, at), xytext=(3, 0), textcoords="offset points", color=NULL,
                    va="center_baseline", fontsize=TEXT, annotation_clip=False)  # fmt: skip
    else:
        ax.plot([cell.steps], [at], "|", color=NULL, markersize=11, markeredgewidth=2.2, zorder=6)


def _draw_key(figure: Figure, frame: Frame) -> None:
    """Draw the key: the marks of the left panel, and on a wide page those of the right one."""
    ax = figure.add_axes((0, 0, 1, 1), zorder=-1)
    ax.set_axis_off()
    ax.set_xlim(0, frame.width)
    ax.set_ylim(0, frame.height)
    y = frame.height - 0.14
    draw_interval(ax, 0.16, 0.06, 0.28, y)
    draw_figure_text(figure, 0.4, y, "effect, 95% interval")
    if frame.narrow:
        y -= 0.2
    x = 0.16 if frame.narrow else 2.0
    draw_null(ax, x, y)
    draw_figure_text(figure, x + 0.24, y, "matched null: a random change as large")
    if frame.narrow:
        return
    x = frame.width - _LASTS - _EDGE
    ax.plot([x, x + 0.26], [y, y], color=EFFECT, linewidth=3.2, solid_capstyle="butt")
    draw_figure_text(figure, x + 0.36, y, "effect above 1%")
    ax.plot([x + 1.62], [y], "|", color=NULL, markersize=11, markeredgewidth=2.2)
    draw_figure_text(figure, x + 1.74, y, "carrier's lifetime")
