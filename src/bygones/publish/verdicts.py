"""Verdicts: the order of arms in a report, and a verdict in words for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bygones.analysis.effect import FACTOR_FROM, Effect, Washout
from bygones.analysis.effects import washout
from bygones.analysis.estimators import Estimate
from bygones.core.text import format_count

# Distances that may carry the headline, in order of preference: the first is bounded and reads as
# "this share of predictions"; the second is for runs whose function is a plain number.
HEADLINES = ("tv", "rms", "cka", "procrustes", "rsa")
GONE_SHARE = 0.01  # of the ceiling
_UNINFORMATIVE = 1000.0  # a share whose upper end is above this is not bounded by its interval


Kind = Literal[
    "redraw",
    "beyond",
    "like",
    "less",
    "alone",
    "unclear",
    "gone",
    "never",
    "rounding",
    "sham",
    "unreached",
    "nothing",
]


@dataclass(frozen=True)
class Reading:
    """One treated arm in the headline distance: its effects over horizons, and its verdict.

    `lead` is the verdict in a few words, `rest` what has to be known with it.
    """

    arm: str
    course: tuple[Effect, ...]
    washout: Washout
    kind: Kind
    lead: str
    rest: str

    @property
    def verdict(self) -> str:
        return f"{self.lead}; {self.rest}" if self.rest else self.lead

    @property
    def first(self) -> Effect:
        return self.course[0]

    @property
    def last(self) -> Effect:
        return self.course[-1]

    @property
    def peak(self) -> Effect:
        """The horizon with the largest estimate (the first of them; the last if none is finite)."""
        finite = [effect for effect in self.course if math.isfinite(effect.estimate.value)]
        return max(finite, key=lambda effect: effect.estimate.value, default=self.last)


def readings(effects: Iterable[Effect], metric: str) -> list[Reading]:
    """Return every treated arm's reading in `metric`, the largest effect at the last horizon first."""
    courses: dict[str, list[Effect]] = {}
    for effect in effects:
        if effect.metric == metric:
            courses.setdefault(effect.arm, []).append(effect)
    read = [_read(sorted(course, key=lambda e: e.horizon)) for course in courses.values()]
    return sorted(read, key=lambda reading: -_rank(reading))


def _rank(reading: Reading) -> float:
    value = reading.last.estimate.value
    return value if math.isfinite(value) else -math.inf


def _read(course: Sequence[Effect]) -> Reading:
    gone = washout(course, GONE_SHARE)
    return Reading(course[0].arm, tuple(course), gone, *_verdict(course, gone))


def _verdict(course: Sequence[Effect], gone: Washout) -> tuple[Kind, str, str]:
    last = course[-1]
    after = f"after {steps(last.horizon)}"
    if not math.isfinite(last.estimate.value):
        return "nothing", "no estimate", "no seed pair stayed finite"
    if last.unreached:
        return "unreached", "does not reach what is observed", "every output is the control's"
    if all(at_floor(effect) for effect in course):
        return "sham", "cannot be told from the sham", "exactly what doing nothing gives"
    if last.is_rounding and gone.last_standing in (None, last.horizon):
        return "rounding", f"within rounding {after}", "the resolution of the arithmetic"
    if gone.gone_by is not None:
        below = f"{GONE_SHARE:.0%} of another seed"
        if gone.last_standing is None:
            return "never", f"never above {below}", ""
        rest = f"below {below} since; above it at {gone.last_standing}"
        rest = f"{last.washed_out}; {rest}" if last.washed_out else rest
        return "gone", f"gone after {steps(gone.gone_by)}", rest
    if at_floor(last):
        return "sham", f"cannot be told from the sham {after}", ""
    if not math.isfinite(last.estimate.low):
        return "unclear", f"too few pairs to call {after}", "no interval"
    if last.floor is not None and not last.estimate.low > last.floor.high:
        return "unclear", f"too uncertain to call {after}", "the interval reaches the sham's"
    lead = f"still there {after}"
    if last.redraw:
        return "redraw", lead, "is itself a random change"
    if last.excess is None:
        return "alone", lead, last.no_null or "no matched null was run"
    if last.beyond_null and last.excess.low > 0:
        return "beyond", lead, f"more than {last.null_is}"
    if last.beyond_null:
        return "less", lead, f"less than {last.null_is}"
    return "like", lead, f"cannot be told from {last.null_is}"


# What the first lines of the page say, in this order; one group holds the arms of some kinds.
GROUPS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("Still there, and itself a random change", ("redraw",)),
    ("Still there, more than a random change as large", ("beyond",)),
    ("Still there, cannot be told from a random change as large", ("like",)),
    ("Still there, less than a random change as large", ("less",)),
    ("Still there, no matched null to compare with", ("alone",)),
    ("Too uncertain to call", ("unclear",)),
    ("Gone", ("gone",)),
    (f"Never above {GONE_SHARE:.0%} of another seed", ("never",)),
    ("Within the resolution of the arithmetic, cannot be told from rounding", ("rounding",)),
    ("Cannot be told from the sham", ("sham",)),
    ("Does not reach the model that is observed", ("unreached",)),
    ("No estimate", ("nothing",)),
)


def at_floor(effect: Effect) -> bool:
    """Return whether an effect equals the sham exactly, in value and in interval."""
    floor = effect.floor
    if floor is None:
        return False
    return effect.estimate.value == floor.value and not effect.estimate.high > floor.high


def share(effect: Effect, value: float) -> float:
    """Return a value of the effect's metric as a share of its ceiling; NaN where none is above rounding."""
    if effect.ceiling is None or not effect.ceiling.value > (effect.resolution or 0.0):
        return math.nan
    return value / effect.ceiling.value


def steps(count: int) -> str:
    """
    >>> steps(1), steps(300)
    ('1 step', '300 steps')
    """
    return format_count(count, "step")


def number(value: float | None, digits: int = 3) -> str:
    """Format a number: three significant digits, a true minus, 0 only when it is exactly 0.

    >>> number(0.0081234), number(0.0), number(-0.04), number(3.1e-7), number(None)
    ('0.00812', '0', '−0.04', '3.1×10⁻⁷', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        if "e" in text:
            text = f"{value:.0f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}×10{superscript}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """Format a share as a percentage: as many decimals as are significant, "< 0.01%" below that.

    Above 1000% it is a factor.

    >>> percent(0.3712), percent(0.0123), percent(0.0), percent(0.00001), percent(15.5)
    ('37%', '1.2%', '0%', '< 0.01%', '16×')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) > FACTOR_FROM:
        return _factor(value)
    if value == 0:
        return "0%"
    points = abs(value) * 100
    if points < 0.01:
        return "< 0.01%"
    decimals = 0 if points >= 9.95 else 1 if points >= 0.95 else 2
    return f"{value * 100:.{decimals}f}%".replace("-", "−")


def _factor(value: float) -> str:
    """
    >>> _factor(15.5), _factor(2.345), _factor(12345.0)
    ('16×', '2.3×', '12,345×')
    """
    text = f"{value:,.0f}" if abs(value) >= FACTOR_FROM else f"{value:.1f}"
    return f"{text}×".replace("-", "−")


def format_estimate(estimate: Estimate | None, factor: float = 1.0, *, signed: bool = False) -> str:
    """Format an estimate for a row or cell, `0.0081 [0.0075, 0.0087]`; level and method stand beside it.

    Rounded to its own error, as `str(estimate)` is. `factor`: the metric's scale.
    """
    if estimate is None or math.isnan(estimate.value):
        return "–"
    scaled = estimate.scaled(factor)
    if scaled.value == scaled.low == scaled.high:
        return f"exactly {number(scaled.value)}"
    value = f"+{scaled.number}" if signed and scaled.value > 0 else scaled.number
    if not (math.isfinite(scaled.low) and math.isfinite(scaled.high)):
        return f"{value} (no interval)".replace("-", "−")
    interval = scaled.interval.replace(f"{100 * scaled.level:g}% CI ", "")
    return f"{value} {interval}".replace("-", "−")


def format_share(estimate: Estimate | None) -> str:
    """Format a share of the ceiling for a row or cell: `37% [35%, 39%]`, cut at 0.

    As factors, `16× [9.0×, 22×]`, where the share itself is above 1000%. An upper end that says nothing, as
    few skewed seeds give it on the log scale, is cut.

    >>> format_share(Estimate(0.004, 1e-9, 1e26, 0.95, 4, "jackknife on the log scale"))
    '0.40% [< 0.01%, over 1,000×]'
    >>> format_share(Estimate(0.02, 0.01, math.inf, 0.95, 4, "jackknife"))
    '2.0% [1.0%, unbounded]'
    """
    if estimate is None or math.isnan(estimate.value):
        return "–"
    if estimate.value == estimate.low == estimate.high == 0:
        return "exactly 0"
    low, high = max(estimate.low, 0.0), estimate.high
    if math.isnan(low) or math.isnan(high) or low == high:
        return percent(estimate.value)
    if not math.isfinite(high):
        return f"{percent(estimate.value)} [{percent(low)}, unbounded]"
    if high > _UNINFORMATIVE >= estimate.value:
        return f"{percent(estimate.value)} [{percent(low)}, over {_factor(_UNINFORMATIVE)}]"
    style = _factor if estimate.value > FACTOR_FROM else percent
    return f"{style(estimate.value)} [{style(low)}, {style(high)}]"


def format_effect_share(effect: Effect) -> str:
    """Format an effect's share of its ceiling, or say that there is none: the number is rounding."""
    if effect.is_rounding:
        return "within rounding"
    if effect.ceiling is not None and effect.is_within_resolution(effect.ceiling):
        return "no share: another seed is within rounding"
    return format_share(effect.fraction)


_NAMED = 4  # arms named in one line before it says "and so many more"


def group_arms(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return the answer as a few lines: a verdict's words, the arms it holds for, how many are not named."""
    lines = []
    for words, kinds in GROUPS:
        members = [reading for reading in readings if reading.kind in kinds]
        if members:
            named = [{"arm": reading.arm, "aside": _aside(reading)} for reading in members[:_NAMED]]
            lines.append({"words": words, "arms": named, "more": len(members) - len(named)})
    return lines


def _aside(reading: Reading) -> str:
    if reading.kind == "gone":
        return f"after {steps(reading.washout.gone_by or 0)}"
    if reading.kind in ("sham", "unreached", "nothing", "never"):
        return ""
    if reading.last.fraction is None or reading.last.is_rounding:
        return format_estimate(reading.last.estimate)
    return format_effect_share(reading.last)
