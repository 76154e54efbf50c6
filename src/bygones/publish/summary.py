"""Summary table of a study: every treated arm at the last horizon, with its references and its verdict.

The same rows stand in the terminal, in a notebook and in `str(bygones.load(store))`; every effect as a
sentence is `str(effect)`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from bygones.analysis.effect import Effect
from bygones.analysis.metrics import METRICS
from bygones.core.text import format_count, join_names
from bygones.publish.verdicts import (
    Reading,
    format_effect_share,
    format_estimate,
)

_NARROWEST = 22  # columns that a verdict takes beside its arm
COLUMNS = ("arm", "effect", "of another seed", "excess over null", "verdict")


@dataclass(frozen=True)
class Summary:
    """A heading, one row of cells for each arm, and the notes that belong to every number in them.

    A cell with an interval has two lines: the value, and the interval below it.
    """

    heading: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int | None = 100) -> str:
        """Return it as plain text of so many columns; None: as wide as it needs, nothing wrapped.

        Where too few columns are left for the verdict, it stands on lines of its own, below its arm.
        """
        cells = [COLUMNS, *self.rows]
        widths = [max(_width(row[i]) for row in cells) for i in range(len(COLUMNS) - 1)]
        left = None if width is None else width - sum(widths) - 2 * len(widths)
        below = left is not None and left < _NARROWEST
        head, *rows = (_lines(row, widths, width if below else left, below) for row in cells)
        lines = [*(head[:1] if below else head), *(line for row in rows for line in row)]
        blocks = ("\n".join(_wrap(text, width)) for text in (self.heading, *self.notes))
        heading, *notes = blocks
        return "\n".join([heading, "", *lines, "", *notes])


def summarize(readings: Sequence[Reading]) -> Summary:
    """Return the summary of a study's readings (`verdicts.readings`), the largest effect first."""
    last = readings[0].last
    metric = METRICS[last.metric]
    on = format_count(last.horizon, "step")
    heading = f"Effect {on} after the fork, in {metric.label}, {last.estimate.num_pairs} seed pairs"
    return Summary(heading, tuple(map(_row, readings)), _notes(readings))


def _row(reading: Reading) -> tuple[str, ...]:
    last = reading.last
    scale = last.facts.scale
    share = "–" if last.fraction is None and not last.is_rounding else format_effect_share(last)
    excess = format_estimate(last.excess, scale, signed=True)
    cells = (format_estimate(last.estimate, scale), share, excess)
    return (reading.arm, *(cell.replace(" [", "\n[") for cell in cells), reading.verdict)


def _notes(readings: Sequence[Reading]) -> tuple[str, ...]:
    last = readings[0].last
    level = f"{100 * last.estimate.level:g}%"
    notes = [f"[…]: {level} interval over seeds ({_methods([one.last for one in readings])})."]
    notes.append(_floor_note([one.last for one in readings]))
    if last.ceiling is not None:
        ceiling = format_estimate(last.ceiling, last.facts.scale)
        notes.append(
            f"Another seed moves the function by {ceiling}; “of another seed” is relative to it."
        )
    if any(one.last.excess is not None for one in readings):
        notes.append(
            "Null: a random change of the same source, as large. –: there is none, for the arm is itself "
            "a random change, or as the report says."
        )
    diverged = {one.arm: one.last.num_diverged for one in readings if one.last.num_diverged}
    if diverged:
        said = join_names([f"{count} in {arm}" for arm, count in diverged.items()])
        notes.append(f"Seed pairs that diverged and are left out: {said}.")
    return tuple(notes)


def _floor_note(effects: Sequence[Effect]) -> str:
    floors = [effect.floor for effect in effects if effect.floor is not None]
    if not floors:
        return (
            "No sham was run: nothing shows that an arm without a change would equal its control."
        )
    if all(floor.value == floor.low == floor.high == 0 for floor in floors):
        return "The sham, an arm that changes nothing, moves it by exactly 0."
    largest = max(floors, key=lambda floor: floor.value)
    scale = effects[0].facts.scale
    return f"The sham, an arm that changes nothing, moves it by {format_estimate(largest, scale)}."


def _methods(effects: Sequence[Effect]) -> str:
    """Name the method of the intervals; where arms differ in it, with the arms of the rarer ones."""
    arms: dict[str, list[str]] = {}
    for effect in effects:
        arms.setdefault(effect.estimate.method, []).append(effect.arm)
    usual, *rarer = sorted(arms, key=lambda method: -len(arms[method]))
    return "; ".join([usual, *(f"{method} for {join_names(arms[method])}" for method in rarer)])


# ------------------------------------------------------------------ plain text


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _lines(row: Sequence[str], widths: Sequence[int], room: int | None, below: bool) -> list[str]:
    """Return the lines of one row; the verdict is wrapped at words, beside the cells or `below` them."""
    cells = [cell.split("\n") for cell in row[:-1]]
    verdict = [row[-1]] if room is None else textwrap.wrap(row[-1], room - 2 * below) or [""]
    height = max(len(cell) for cell in (cells if below else [*cells, verdict]))
    lines: list[str] = []
    for at in range(height):
        texts = [cell[at] if at < len(cell) else "" for cell in cells]
        padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        beside = verdict[at] if not below and at < len(verdict) else ""
        lines.append("  ".join([*padded, beside]).rstrip())
    return [*lines, *(f"  {line}" for line in verdict)] if below else lines


def _wrap(text: str, width: int | None) -> list[str]:
    return [text] if width is None else textwrap.wrap(text, width)
