"""Figures of the function field and of calibration, each from one function.

As in `figures`: effect filled, matched null hollow and dashed, sham and "no change" dotted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bygones.analysis.breakdown import Group
from bygones.analysis.calibration import ReliabilityBin, ReliabilityCurve
from bygones.analysis.function_field import FunctionField, moved_inputs
from bygones.core.errors import DesignError
from bygones.publish.report.drawing import (
    EFFECT,
    HAIR,
    HALF,
    INK,
    MUTED,
    NULL,
    PAPER,
    SMALL,
    WIDE,
    Picture,
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
from bygones.publish.verdicts import format_estimate, number

_TILE, _GAP, _UNDER = 0.74, 0.16, 0.48  # inches: a picture, between two, for the words below one
_LEAST_SHARE = 0.002  # share of all predictions from which a bin is part of the curve
_OF = {
    "classes": "change of probability",
    "label": "change of the label's probability",
    "log_odds": "change of the label's log odds",
}


def field_picture(
    field: FunctionField,
    images: np.ndarray | None = None,
    *,
    num_shown: int = 24,
    width: float = WIDE,
) -> Figure:
    """Draw which inputs a treatment moves: a dot with its interval an input, the moved ones as pictures.

    Above, all N inputs in the order of their change (the scale is logarithmic beyond a hundredth of
    the largest); vertical lines are simultaneous intervals, those
    that leave out 0 in colour; the dashed line is the matched null's inputs, ordered in the same way.
    Below, where `images` is given (N, H, W) or (N, H, W, 3), the `num_shown` surest; where none is
    moved, the clearest, and it says so. Raises DesignError where there is not one image an input.
    """
    if images is not None and (images.ndim not in (3, 4) or len(images) != len(field.value)):
        raise DesignError(
            f"the picture of a field takes one image an input, ({len(field.value)}, H, W); got an "
            f"array of shape {list(images.shape)}."
        )
    with figure_style():
        shown = [] if images is None else _shown(field, num_shown)
        a_row = max(1, int((width - 0.1 + _GAP) // (_TILE + _GAP)))
        num_rows = math.ceil(len(shown) / a_row)
        tiles = (0.34 + num_rows * (_TILE + _UNDER)) if shown else 0.0
        left, right, head, strip, foot = 0.66, 0.1, 0.5, 1.9, 0.5
        height = head + strip + foot + tiles
        figure = Picture(figsize=(width, height))
        ax = figure.add_axes(
            (
                left / width,
                (tiles + foot) / height,
                (width - left - right) / width,
                strip / height,
            )
        )
        _strip(ax, field)
        title = _OF[field.of] if field.labels is not None else "change"
        draw_figure_text(figure, 0.08, height - 0.12, f"{title} (logarithmic, with 0 shown)")
        _counts(figure, height - 0.3, field)
        if shown and images is not None:
            num_moved = int(field.moved.sum())
            words = (
                f"the {len(shown)} surest of {num_moved} moved inputs"
                if num_moved > len(shown)
                else f"all {num_moved} moved inputs, the surest first"
                if num_moved > 1
                else "the one moved input"
                if num_moved
                else "no input is moved for sure; these come closest"
            )
            draw_figure_text(figure, 0.08, tiles - 0.14, words)
            limits = float(np.nanmin(images)), float(np.nanmax(images))
            for place, i in enumerate(shown):
                row, column = divmod(place, a_row)
                x = 0.08 + column * (_TILE + _GAP)
                y = tiles - 0.3 - row * (_TILE + _UNDER) - _TILE
                _tile(figure, (x, y, _TILE), images[i], limits, field, i)
        return figure


def _counts(figure: Figure, y: float, field: FunctionField) -> None:
    """Write how many inputs are moved, by the treatment and by its matched null, in their colours."""
    said = [(f"{int(field.moved.sum())} of {len(field.moved)} inputs moved", EFFECT)]
    if field.null is not None:
        said.append((f"its matched null (dashed): {int(field.null.moved.sum())}", NULL))
    x = 0.08
    for words, color in said:
        figure.text(x, y, words, transform=figure.dpi_scale_trans, fontsize=SMALL, color=color,
                    va="center_baseline")  # fmt: skip
        x += len(words) * char_width(SMALL) + 0.2


def _shown(field: FunctionField, num_shown: int) -> list[int]:
    moved = [m.input for m in moved_inputs(field)]
    if moved:
        return moved[:num_shown]
    clearest = np.abs(field.band.t).max(axis=1)
    return np.argsort(-clearest, kind="stable")[: min(num_shown, len(clearest))].tolist()


def _strip(ax: Axes, field: FunctionField) -> None:
    order = np.argsort(field.value, kind="stable")
    value, low, high, moved = (a[order] for a in (field.value, field.low, field.high, field.moved))
    x = np.arange(1, len(order) + 1)
    still = ~moved
    ax.axhline(0.0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    bounded = np.isfinite(low) & np.isfinite(high)
    thick = max(0.5, min(2.0, 300 / len(order)))
    for which, color, zorder in ((still & bounded, HAIR, 2), (moved & bounded, EFFECT, 3)):
        alpha = 0.35 if color == EFFECT else 1.0
        ax.vlines(
            x[which],
            low[which],
            high[which],
            color=color,
            alpha=alpha,
            zorder=zorder,
            linewidth=thick,
        )
    dots = 3.4 if len(order) <= 120 else 2.0
    ax.plot(x[still], value[still], "o", color=MUTED, markersize=0.7 * dots, zorder=4)
    ax.plot(x[moved], value[moved], "o", color=EFFECT, markersize=dots, zorder=5)
    reach = [value, low[bounded], high[bounded]]
    if field.null is not None:
        null = np.sort(field.null.value)
        ax.plot(x, null, color=NULL, linewidth=1.3, linestyle=(0, (4, 2)), zorder=6)
        reach.append(null)
    everything = np.concatenate([a[np.isfinite(a)] for a in reach])
    _two_sided(ax, everything if everything.size else np.zeros(1))
    ax.set_xlim(0, len(order) + 1)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, prune="lower"))
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", color=HAIR, linewidth=0.5, alpha=0.7)
    ax.set_axisbelow(True)
    ax.set_xlabel("inputs, in the order of their change", labelpad=3)


def _two_sided(ax: Axes, numbers: np.ndarray) -> None:
    """Apply a vertical scale for both signs, logarithmic but for the innermost hundredth around 0.

    A few inputs move by half and most by a thousandth: on a linear scale those are one flat line.
    """
    bottom, top = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    largest = max(-bottom, top)
    if largest == 0.0:
        ax.set_ylim(-1.0, 1.0)
        ax.yaxis.set_major_locator(FixedLocator([0.0]))
    else:
        decade = math.floor(math.log10(largest))
        threshold = 10.0 ** (decade - 2)
        ax.set_yscale("symlog", linthresh=threshold, linscale=0.6)
        ax.set_ylim(1.4 * bottom - 0.5 * threshold, 1.4 * top + 0.5 * threshold)
        sizes = [10.0**power for power in (decade - 2, decade - 1, decade)]
        ticks = [*(-size for size in sizes if size <= -bottom), 0.0]
        ax.yaxis.set_major_locator(FixedLocator([*ticks, *(t for t in sizes if t <= top)]))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_signed(y)))


def _tile(
    figure: Figure,
    place: tuple[float, float, float],
    image: np.ndarray,
    limits: tuple[float, float],
    field: FunctionField,
    i: int,
) -> None:
    width, height = figure.get_size_inches()
    x, y, size = place
    ax = figure.add_axes((x / width, y / height, size / width, size / height))
    ax.imshow(image, cmap="gray_r", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(NullLocator())
    for spine in ax.spines.values():
        spine.set_visible(True)
    change = field.band[i, int(field._largest[i])]
    at = int(field.at_class[i])
    label = "" if field.labels is None else f"is {int(field.labels[i])}"
    own = field.labels is not None and at == int(field.labels[i])
    of = label if own or not label else f"{label}, p({at})"
    words = of or f"output {at}"
    middle = x + size / 2
    color = EFFECT if field.moved[i] else MUTED
    by = change.number.replace("-", "−") if change.value < 0.0 else f"+{change.number}"
    for row, (said, tone) in enumerate(((words, MUTED), (by, color))):
        figure.text(
            middle, y - 0.1 - 0.14 * row, said, transform=figure.dpi_scale_trans, ha="center",
            va="center_baseline", fontsize=SMALL, color=tone,
        )  # fmt: skip


# ---------------------------------------------------------------- groups


def breakdown_figure(groups: Sequence[Group], *, title: str = "", factor: float = 100.0) -> Figure:
    """Draw the effect on each group of inputs: one row a group, 0 dotted, the matched null hollow.

    Intervals are simultaneous over the groups. `factor` 100: percentage points of the label's
    probability; 1 for plain values. `title`: what the groups are, in words.
    """
    with figure_style():
        width, pitch, head, foot = HALF + 1.9, 0.3, 0.5, 0.45
        height = head + pitch * max(len(groups), 1) + foot
        figure = Picture(figsize=(width, height))
        names = [f"{g.name} · {g.num_inputs}" for g in groups]
        left = min(max([len(n) * char_width(SMALL) for n in names], default=0.5) + 0.2, 0.4 * width)
        words = [format_estimate(g.shift, factor, signed=True) for g in groups]
        right = width - max([len(w) * char_width(SMALL) for w in words], default=1.0) - 0.24
        ax = figure.add_axes(
            (left / width, foot / height, (right - left) / width, 1 - (head + foot) / height)
        )
        ends = [0.0]
        for group in groups:
            for estimate in (group.shift, group.null):
                if estimate is not None:
                    ends += [factor * e for e in (estimate.value, estimate.low, estimate.high)]
        known = [end for end in ends if math.isfinite(end)]
        pad = 0.07 * max(max(known) - min(known), 1e-12)
        ax.set_xlim(min(known) - pad, max(known) + pad)
        ax.set_ylim(max(len(groups), 1) - 0.5, -0.5)
        ax.yaxis.set_visible(False)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_signed(value)))
        unit = (
            "change of the label's probability, percentage points" if factor == 100.0 else "change"
        )
        ax.set_xlabel(unit, labelpad=4)
        ax.axvline(0.0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        draw_title(ax, 0.0, "no change", MUTED, "center")
        draw_figure_text(figure, 0.08, height - 0.13, title)
        if any(group.null is not None for group in groups):
            figure.add_artist(_dot(width - 1.16, height - 0.13, "D", PAPER, NULL, figure))
            draw_figure_text(figure, width - 1.04, height - 0.13, "matched null")
        for index, (group, name) in enumerate(zip(groups, names, strict=True)):
            ax.plot(ax.get_xlim(), [index, index], color=HAIR, linewidth=0.7, zorder=0)
            if group.null is not None and math.isfinite(group.null.value):
                draw_null(ax, factor * group.null.value, index)
            shift = group.shift
            draw_interval(ax, factor * shift.value, factor * shift.low, factor * shift.high, index)
            draw_text(ax, 0.08, index, clip_text(name, left - 0.1, SMALL), SMALL)
            draw_text(ax, width - 0.06, index, words[index], SMALL, EFFECT, ha="right")
        return figure


# ---------------------------------------------------------------- calibration


def reliability_diagram(
    treated: ReliabilityCurve, control: ReliabilityCurve, *, width: float = HALF
) -> Figure:
    """Draw the reliability diagram: accuracy by confidence, of control and treated, with seed intervals.

    On the dotted diagonal a prediction's confidence can be taken at its word; below it, it is too
    sure. Bins with less than 0.2 % of the predictions are dots beside the line. The strip shows
    where the predictions are, on a logarithmic scale.
    """
    with figure_style():
        left, right, head, gap, strip, foot = 0.62, 0.16, 0.42, 0.12, 0.62, 0.48
        side = width - left - right
        height = head + side + gap + strip + foot
        figure = Picture(figsize=(width, height))
        ax = figure.add_axes(
            (left / width, (foot + strip + gap) / height, side / width, side / height)
        )
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        ax.set_ylabel("share that is right")
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        ax.set_xticks(ticks, [""] * len(ticks))
        ax.set_yticks(ticks, [f"{t:.0%}" for t in ticks])
        ax.grid(color=HAIR, linewidth=0.5)
        ax.set_axisbelow(True)
        below = figure.add_axes((left / width, foot / height, side / width, strip / height))
        below.set_xlim(-0.02, 1.02)
        shares = [b.share for curve in (control, treated) for b in curve.bins]
        smallest = min([share for share in shares if share > 0], default=0.01)
        floor = 10.0 ** math.floor(math.log10(smallest) - 1e-9)
        below.set_yscale("log")
        below.set_ylim(floor, 1.6)
        powers = [10.0**e for e in range(round(math.log10(floor)), 1)]
        below.set_yticks(powers[:: max(1, len(powers) // 3)][-3:])
        below.yaxis.set_minor_locator(NullLocator())
        below.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))
        below.set_xticks(ticks, [f"{t:.0%}" for t in ticks])
        below.set_xlabel("confidence", labelpad=3)
        below.set_ylabel("of all", labelpad=4)
        # Side by side, a little apart: equal curves would hide each other.
        for curve, color, shift in ((control, INK, -0.006), (treated, EFFECT, 0.006)):
            _reliability(ax, curve, color, shift, filled=curve is treated)
            for b in curve.bins:
                bin_width = b.high - b.low
                start = b.low + (0.5 if curve is treated else 0.14) * bin_width
                below.bar(
                    start, b.share - floor, bottom=floor, width=0.36 * bin_width, align="edge",
                    facecolor=color if curve is treated else PAPER, edgecolor=color, linewidth=0.8,
                )  # fmt: skip
        key = (("o", PAPER, INK, f"control, gap {_points(control.gap)}"),)
        key += (("o", EFFECT, EFFECT, f"{treated.arm}, gap {_points(treated.gap)}"),)
        for row, (mark, face, edge, words) in enumerate(key):
            y = height - 0.11 - 0.17 * row
            figure.add_artist(_dot(0.14, y, mark, face, edge, figure))
            draw_figure_text(figure, 0.24, y, clip_text(words, width - 0.3, SMALL))
        return figure


def _points(gap: float) -> str:
    return f"{number(100 * gap)} points"


def _dot(x: float, y: float, mark: str, face: str, edge: str, figure: Figure) -> Line2D:
    return Line2D(
        [x], [y], marker=mark, markersize=5, markerfacecolor=face, markeredgecolor=edge,
        linestyle="none", transform=figure.dpi_scale_trans,
    )  # fmt: skip


def _reliability(
    ax: Axes, curve: ReliabilityCurve, color: str, shift: float, *, filled: bool
) -> None:
    def bounded(b: ReliabilityBin) -> bool:
        return math.isfinite(b.accuracy.low) and math.isfinite(b.accuracy.high)

    x = [b.confidence + shift for b in curve.bins]
    y = [b.accuracy.value for b in curve.bins]
    for at, b in zip(x, curve.bins, strict=True):
        if bounded(b):
            ax.plot([at, at], [b.accuracy.low, b.accuracy.high], "_-", color=color, linewidth=1.2,
                    markersize=5, alpha=0.8, clip_on=False)  # fmt: skip
    style = (0, ()) if filled else (0, (4, 2))
    # A line through bins that hold hardly a prediction would be a line through noise.
    points = [
        (at, up) for at, up, b in zip(x, y, curve.bins, strict=True) if b.share >= _LEAST_SHARE
    ]
    ax.plot([at for at, _ in points], [up for _, up in points], color=color, linewidth=1.1,
            linestyle=style, zorder=4)  # fmt: skip
    ax.plot(x, y, "o", color=color, markersize=4.5, markerfacecolor=color if filled else PAPER,
            zorder=5, clip_on=False)  # fmt: skip
