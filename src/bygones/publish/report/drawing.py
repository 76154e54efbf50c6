"""Drawing: sizes, colours and marks that the figures of a report share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform, blended_transform_factory

from bygones.publish.verdicts import number

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


class Picture(Figure):
    """A figure that a notebook shows by itself; matplotlib's own are shown through pyplot alone."""

    def _repr_png_(self) -> bytes:
        with figure_style(), BytesIO() as file:
            self.savefig(file, format="png", dpi=96, facecolor="white")
            return file.getvalue()


@contextmanager
def figure_style() -> Iterator[None]:
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # A name in a script the bundled font lacks is drawn as a box in the PNG; the page has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@dataclass(frozen=True)
class Frame:
    """Position of the axes in a figure, in inches.

    `left`, `right`: from the left edge; `head`, `foot`: the room above and below.
    """

    width: float
    height: float
    left: float
    right: float
    head: float
    foot: float

    @property
    def narrow(self) -> bool:
        """Whether the figure is as narrow as a phone's page."""
        return self.width < 6

    def make_axes(self) -> tuple[Figure, Axes]:
        """Return a new figure with its axes in this frame."""
        figure = Picture(figsize=(self.width, self.height))
        across = (self.right - self.left) / self.width
        upright = 1 - (self.head + self.foot) / self.height
        ax = figure.add_axes((self.left / self.width, self.foot / self.height, across, upright))
        return figure, ax


def draw_null(ax: Axes, x: float, y: float) -> None:
    ax.plot([x], [y], "D", color=NULL, markerfacecolor=PAPER, markersize=7.5, markeredgewidth=1.3,
            zorder=4, clip_on=False)  # fmt: skip


def draw_interval(ax: Axes, value: float, low: float, high: float, y: float) -> None:
    """Draw a filled mark with its interval; the ends stand taller than the mark, so they always show."""
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [y, y], "|-", color=EFFECT, linewidth=2.2, markersize=10,
                markeredgewidth=1.1, zorder=5, clip_on=False)  # fmt: skip
    if math.isfinite(value):
        ax.plot([value], [y], "o", color=EFFECT, markersize=5, zorder=6, clip_on=False)


def format_signed(value: float) -> str:
    text = number(value)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


def char_width(size: float) -> float:
    """Return the inches that a character takes on average; DejaVu is wide, so other fonts fit as well."""
    return 0.0073 * size


def clip_text(text: str, inches: float, size: float) -> str:
    """
    >>> clip_text("a name that is much too long for its column", 1.0, 9.0)
    'a name that is …'
    """
    limit = max(int(inches / char_width(size)), 4)
    return text if len(text) <= limit else text[: limit - 1].rstrip() + " …"


def _inches_across(ax: Axes) -> Transform:
    assert isinstance(ax.figure, Figure)
    return blended_transform_factory(ax.figure.dpi_scale_trans, ax.transData)


def draw_text(
    ax: Axes, x: float, y: float, words: str, size: float, color: str = INK,
    *, ha: str = "left", weight: str = "normal",
) -> None:  # fmt: skip
    """Draw words at `x` inches from the figure's left edge, on the row `y`."""
    ax.text(
        x, y, words, transform=_inches_across(ax), fontsize=size, color=color,
        ha=ha, va="center_baseline", fontweight=weight, clip_on=False,
    )  # fmt: skip


def draw_figure_text(figure: Figure, x: float, y: float, words: str) -> None:
    figure.text(x, y, words, transform=figure.dpi_scale_trans, fontsize=SMALL, color=MUTED,
                va="center_baseline")  # fmt: skip


def draw_title(ax: Axes, x: float, words: str, color: str, ha: str) -> None:
    along = blended_transform_factory(ax.transData, ax.transAxes)
    ax.annotate(
        words, (x, 1.0), xycoords=along, xytext=(0, 3), textcoords="offset points",
        ha=ha, va="bottom", fontsize=SMALL, color=color,
    )  # fmt: skip
