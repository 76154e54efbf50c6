"""Values of options: words, seeds, steps, lanes, margins and variables from text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bygones.core.errors import DesignError

if TYPE_CHECKING:
    from bygones.training.lanes.lane_width import Width


def split_words(text: str, option: str) -> list[str]:
    """Split the words of an option as a shell would. Raises `DesignError` for a quote that is not closed.

    >>> split_words("--resume 'last one.pt'", "--resume")
    ['--resume', 'last one.pt']
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise DesignError(
            f"{option} {text!r} cannot be split into words: {str(error).lower()}. Close the quotation."
        ) from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: numbers and ranges, both ends included.

    >>> parse_seeds("0-3,10")
    (0, 1, 2, 3, 10)
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise DesignError(
                f"invalid seeds '{text}': expected numbers and ranges, like 0-31 or 0-3,10."
            )
        stretch = range(int(first), int(last or first) + 1)
        if not stretch:
            raise DesignError(
                f"invalid seeds '{text}': the range {part.strip()} is empty. Write its smaller end first."
            )
        seeds += stretch
    return tuple(seeds)


def parse_steps(text: str) -> tuple[int, ...]:
    """Parse steps.

    >>> parse_steps("0,1,10")
    (0, 1, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_is_number(part) for part in parts):
        raise DesignError(
            f"invalid steps '{text}': expected numbers with commas between, like 0,1,10,100."
        )
    return tuple(int(part) for part in parts)


_MOST_LANES = 4096  # each lane is a run in memory; a pass gains nothing from more than some dozens


def parse_lanes(text: str) -> Width:
    """Parse how many seeds to train in one batched step.

    >>> parse_lanes("auto"), parse_lanes("16")
    ('auto', 16)
    """
    if text == "auto":
        return "auto"
    if not _is_number(text) or len(text) > 9 or not 1 <= int(text) <= _MOST_LANES:
        raise DesignError(
            f"invalid number of lanes '{text:.20}': expected auto, or a number from 1 to {_MOST_LANES:,}."
        )
    return int(text)


def parse_margins(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Parse equivalence margins by metric.

    >>> parse_margins(["accuracy=0.005"])
    (('accuracy', 0.005),)
    """
    margins = []
    for text in texts:
        metric, _, size = text.partition("=")
        try:
            margins.append((metric, float(size)))
        except ValueError:
            raise DesignError(
                f"invalid margin '{text}': expected METRIC=SIZE, like accuracy=0.005."
            ) from None
    return tuple(margins)


def parse_variables(texts: Sequence[str]) -> dict[str, str]:
    """Parse environment variables by name.

    >>> parse_variables(["OMP_NUM_THREADS=2"])
    {'OMP_NUM_THREADS': '2'}
    """
    found = {}
    for text in texts:
        name, is_given, value = text.partition("=")
        if not name or not is_given:
            raise DesignError(
                f"invalid variable '{text}': expected NAME=VALUE, like OMP_NUM_THREADS=2."
            )
        found[name] = value
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
