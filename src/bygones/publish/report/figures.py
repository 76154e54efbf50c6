"""Figures over time and of scores, each from one function that returns a matplotlib Figure.

No pyplot and no global state: figures are built and saved inside a style context that starts from
matplotlib's own defaults, so that equal inputs give equal bytes whatever the caller has set.
Five hues, one meaning each (safe for colour-blind readers, and told apart by shape as well):
effect filled and solid, matched null hollow and dashed, sham dotted, another seed a thin line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
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
    NULL,
    PANEL,
    SMALL,
    Frame,
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
from bygones.publish.report.scales import Scale, distance_scale, horizon_scale
from bygones.publish.verdicts import (
    Reading,
    format_estimate,
    number,
)

# ---------------------------------------------------------------- one arm over time


def course(
    reading: Reading,
    vertical: Scale | None = None,
    *,
    lifetime: float | None = None,
    unit: str = "TV",
) -> Figure:
    """Draw one arm's effect over the steps after the fork, with floor, matched null and ceiling.

    Bands are intervals, cut at 0 (a distance is never negative). `vertical`: the scale, if it is to
    be shared with other arms (`distance_scale`). `lifetime`: the carrier's, in steps (infinite:
    unbounded); drawn as a bar along the top.
    """
    with figure_style():
        width, height = PANEL, 2.55
        figure = Picture(figsize=(width, height))
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


def losses(values: np.ndarray, fork_at: int) -> Figure:
    """Draw the training loss of the controls by step, (seeds, steps): mean and range, the fork marked."""
    with figure_style():
        width, height = HALF, 1.9
        figure = Picture(figsize=(width, height))
        ax = figure.add_axes((0.55 / width, 0.46 / height, 1 - 0.7 / width, 1 - 0.76 / height))
        seen = values[:, np.isfinite(values).any(axis=0)]
        steps = np.flatnonzero(np.isfinite(values).any(axis=0)) + 1
        ax.fill_between(steps, np.nanmin(seen, axis=0), np.nanmax(seen, axis=0), color=EFFECT, alpha=0.22,
                        linewidth=0)  # fmt: skip
        ax.plot(steps, np.nanmean(seen, axis=0), color=EFFECT, linewidth=1.2)
        if seen.size and float(np.nanmin(seen)) > 0:
            ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        ax.axvline(fork_at, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        ax.grid(axis="y", color=HAIR, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel("optimizer step", labelpad=3)
        share = fork_at / max(int(steps[-1]) if steps.size else 1, 1)
        draw_figure_text(figure, 0.04, height - 0.1, "training loss")
        ax.text(fork_at, 1.03, "fork", transform=ax.get_xaxis_transform(), color=INK, fontsize=8.25,
                ha="left" if share < 0.5 else "right")  # fmt: skip
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
    """Draw the change of one score at the last horizon, one row an arm, 0 in the middle.

    `effects` in the order of the rows; numbers are multiplied by `factor` (100 for points).
    """
    with figure_style():
        width, pitch, head, foot = HALF, 0.44, 0.3, 0.45
        height = head + pitch * max(len(effects), 1) + foot
        frame = Frame(width, height, 0.1, width - 0.1, head, foot)
        figure, ax = frame.make_axes()
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
            words = format_estimate(estimate, factor, signed=True)
            if effect.num_diverged:
                words += f" · {effect.num_diverged} diverged"
            room = width - 0.3 - len(words) * char_width(SMALL)
            name = clip_text(effect.arm, room, 1.28 * SMALL)
            draw_text(ax, frame.left, index - 0.2, name, SMALL, weight="bold")
            draw_text(ax, frame.right, index - 0.2, words, SMALL, EFFECT, ha="right")
        return figure
