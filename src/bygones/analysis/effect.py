"""An effect: an estimate with its floor, matched null, ceiling and excess, as a sentence."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from bygones.analysis.estimators import Estimate
from bygones.analysis.metrics import METRICS, Metric
from bygones.analysis.repeats import VarianceComponents
from bygones.core.notebook_text import html_paragraph
from bygones.core.study_facts import Redraw
from bygones.core.text import capitalize, format_count, join_names, to_plain


@dataclass(frozen=True)
class Effect:
    """Effect of one arm on the function by one step, in one metric; `str` is the sentence.

    `horizon` counts optimizer steps since the fork. `pair_correlation` (of treated and control)
    and `variance_ratio` (Var unpaired / Var paired: what pairing by seed was worth) exist for
    scores only. A reference that the study cannot give is None, and the sentence says so.
    `share_limit` is the upper limit of `fraction` that a claim of its smallness is judged by, and
    `resolution` what rounding of the observed outputs alone moves: a number within it cannot be told from
    rounding, and has no share. Where arms are repeated within seeds, `components` are the variances between
    and within seeds, and `by_fork` the effect at each fork, of which this is the mean.
    """

    arm: str
    sentence: str
    metric: str
    step: int
    horizon: int
    estimate: Estimate
    floor: Estimate | None
    null: Estimate | None
    excess: Estimate | None
    ceiling: Estimate | None
    fraction: Estimate | None
    num_diverged: int
    pair_correlation: float | None
    variance_ratio: float | None
    null_is: str = "a random change as large"  # what the matched null of this arm does
    unreached: str = ""  # that it does not reach the observed model, in words; "" where it does
    no_null: str = ""  # that and why it has none, as a clause
    redraw: Redraw = ""  # of an arm that is itself a random change: what else is a draw of it
    num_draws: int = 1  # distances that each seed's is the mean of
    share_limit: float | None = None
    resolution: float | None = None
    components: VarianceComponents | None = None
    by_fork: tuple[tuple[int, Estimate], ...] = ()
    equal_from: int | None = None  # the step by which it equals its control in every bit and seed

    @property
    def facts(self) -> Metric:
        """The metric that this was measured with."""
        return METRICS[self.metric]

    @property
    def is_rounding(self) -> bool:
        """Whether the effect itself is within the resolution of the arithmetic."""
        return self.is_within_resolution(self.estimate)

    def is_within_resolution(self, estimate: Estimate) -> bool:
        """Whether a number of this effect is not exactly 0, and no larger than what rounding alone moves."""
        return self.resolution is not None and 0.0 < abs(estimate.value) <= self.resolution

    @property
    def beyond_floor(self) -> bool | None:
        """Whether it can be told from the sham; None without a sham.

        A floor of exactly zero is beaten by any distance that is not, nor within the resolution; every
        other comparison needs two intervals that do not meet.
        """
        if self.floor is None:
            return None
        if self.is_rounding:
            return False
        if self.facts.kind == "distance" and _exactly_zero(self.floor):
            return not _exactly_zero(self.estimate)
        return self.estimate.low > self.floor.high or self.estimate.high < self.floor.low

    @property
    def beyond_null(self) -> bool | None:
        """Whether the excess is above the resolution, and its interval leaves out 0; None without a null."""
        if self.excess is None:
            return None
        return not self.is_within_resolution(self.excess) and not self.excess.covers(0.0)

    def __repr__(self) -> str:
        return f"<Effect of {self.arm} at horizon {self.horizon}: {self.metric} {self.estimate}>"

    def _repr_html_(self) -> str:
        """Return the sentence, for a notebook."""
        return html_paragraph(str(self))

    def __str__(self) -> str:
        if self.estimate.num_pairs == 0:
            return (
                f"{capitalize(self.sentence)} cannot be judged at step {self.step}: "
                f"all {format_count(self.num_diverged, 'seed pair')} diverged."
            )
        if self.unreached:
            when = f"{format_count(self.estimate.num_pairs, 'seed pair')}"
            return f"{capitalize(self.sentence)} {self.unreached} ({when})."
        parts = [self._what_moved(), self._beside_sham_and_null()]
        if self.is_rounding:
            parts.append(
                f"it is within the resolution of the arithmetic ({self._resolution_words()})"
            )
        alike = [
            f"from {other}"
            for other, beyond in (
                ("the sham", self.beyond_floor),
                ("the matched null", self.beyond_null),
            )
            if beyond is False
        ]
        if alike:
            parts.append(f"it cannot be told {' or '.join(alike)}")
        if self.facts.kind == "distance":
            parts.append(self._beside_another_seed())
        if self.washed_out:
            parts.append(self.washed_out)
        return "; ".join(parts) + "."

    @property
    def washed_out(self) -> str:
        """Say from which step on the arm equals its control in every bit; "" where it was not found to."""
        if self.equal_from is None:
            return ""
        return f"from step {self.equal_from} on it equals its control in every bit"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON: a number that is not finite becomes None.

        What only some studies have (repeats within seeds, arms that come to equal their control) is left out
        where there is none.
        """
        told = dataclasses.asdict(self)
        optional = {"components": None, "by_fork": (), "equal_from": None}
        told = {name: one for name, one in told.items() if optional.get(name, self) != one}
        return to_plain(told)

    def _what_moved(self) -> str:
        unit, estimate = self.facts.unit, self.estimate.scaled(self.facts.scale)
        is_distance = self.facts.kind == "distance"
        verb = "moved the function" if is_distance else f"changed {self.facts.label}"
        said = (
            f"{capitalize(self.sentence)} {verb} by {_amount(estimate)} {unit} {self._when()} "
            f"{estimate.interval}, "
            f"{format_count(estimate.num_pairs, 'seed pair')}, {estimate.method}"
        )
        if self.num_draws > 1:
            said += f", each pair the mean of {self.num_draws} distances between draws"
        if self.num_diverged:
            num_all = estimate.num_pairs + estimate.num_dropped
            said += f" ({self.num_diverged} of {num_all} pairs diverged and are left out)"
        if estimate.note and not _exactly_zero(estimate):
            said += f" ({estimate.note})"
        return said + self._components()

    def _when(self) -> str:
        """Return the step, or that this is the mean over fork times, and which."""
        on = f"{format_count(self.horizon, 'step')} on"
        if not self.by_fork:
            return f"at step {self.step}, {on}"
        steps = join_names([fork for fork, _ in self.by_fork])
        return f"{on}, as the mean over forks at steps {steps} (windows as at the first)"

    def _components(self) -> str:
        """Return how much of the variance lies between seeds, which no repeat narrows, as a clause."""
        found = self.components
        if found is None or found.share_between is None:
            return ""
        what = (
            format_count(found.siblings, "continuation") + " a seed" if found.siblings > 1 else ""
        )
        if len(found.forks) > 1:
            what = f"{len(found.forks)} forks a seed" + (f", {what} and fork" if what else "")
        scale = self.facts.scale
        between, within = (scale * math.sqrt(v) for v in (found.between, found.within))
        unit = f" {self.facts.unit}" if self.facts.unit else ""
        return f" ({what}: standard deviation {between:.2g}{unit} between seeds, {within:.2g}{unit} within)"

    def _beside_sham_and_null(self) -> str:
        is_distance, scale = self.facts.kind == "distance", self.facts.scale
        if self.floor is None:
            said = "no sham was run"
        else:
            floor = self.floor.scaled(scale)
            said = f"doing nothing (sham) {'moves' if is_distance else 'changes'} it by "
            said += "exactly 0" if _exactly_zero(floor) else str(floor)
        if self.redraw:
            return f"{said}; it is itself a random change, so another draw of it is no reference"
        if self.null is None or self.excess is None:
            return f"{said}, and {self.no_null or 'no matched null was run'}"
        said += f", its matched null ({self.null_is}) by {_amount(self.null.scaled(scale))}"
        if self.null.num_dropped:
            said += f" (of which {format_count(self.null.num_dropped, 'pair')} diverged)"
        word = "excess" if is_distance else "difference"
        said += f", so the {word} is {self.excess.scaled(scale)}"
        return (
            said if self.excess.method == self.estimate.method else f"{said}, {self.excess.method}"
        )

    def _resolution_words(self) -> str:
        """Return what rounding moves, with its unit."""
        return f"{self.facts.scale * (self.resolution or 0.0):.1g} {self.facts.unit}".strip()

    def _beside_another_seed(self) -> str:
        if self.ceiling is None:
            return "there is no other seed to compare it with"
        said = f"another seed moves it {_amount(self.ceiling)}"
        if self.is_within_resolution(self.ceiling):
            return f"{said}, which is within the resolution too, so there is no share of it"
        if self.fraction is None or self.is_rounding:
            return said
        said += f", of which this is {describe_share(self.fraction)}"
        return said if self.fraction.method in _PLAIN else f"{said}, {self.fraction.method}"


@dataclass(frozen=True)
class Washout:
    """When an effect was gone, bracketed between two probe steps; `str` is the sentence.

    `last_standing` is the last horizon where it stood (None: it never did), `gone_by` the first
    from which it stayed gone (None: it still stands at the last horizon). It is gone where the
    upper limit of its share of the ceiling is below `share`.
    """

    arm: str
    metric: str
    share: float
    last_standing: int | None
    gone_by: int | None

    def __str__(self) -> str:
        limit = f"{100.0 * self.share:g}% of another seed ({METRICS[self.metric].unit})"
        if self.gone_by is None:
            last = format_count(self.last_standing or 0, "step")
            return f"{self.arm}: not below {limit} by the last horizon, {last} on."
        if self.last_standing is None:
            return f"{self.arm}: below {limit} at every horizon, from {self.gone_by} steps on."
        return (
            f"{self.arm}: not below {limit} {format_count(self.last_standing, 'step')} on, "
            f"below it from {self.gone_by} on."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return to_plain(dataclasses.asdict(self))


def _exactly_zero(estimate: Estimate) -> bool:
    return estimate.value == 0.0 and not (estimate.low < 0.0 or estimate.high > 0.0)


_PLAIN = (
    "jackknife",
    "anytime-valid jackknife",
)  # the effect's own kind of interval, named beside it
FACTOR_FROM = 10.0  # shares above this are printed as factors: 1550% is hard to read


def describe_share(share: Estimate) -> str:
    """Return a share in words with its interval: in percent, and as a factor what is above ten.

    The value of a share far below its upper end has digits of its own: with the interval's it would be 0.
    """
    if share.value > FACTOR_FROM:
        return f"{share.number} times {share.interval}"
    if math.isfinite(share.high) and share.high > FACTOR_FROM:
        kind = " ".join(share.interval.split(" ")[:2])  # "[95% CI"
        low, value = (f"{float(f'{100.0 * x:.2g}'):g}%" for x in (share.low, share.value))
        return f"{value} {kind} {low}, {share.high:.2g} times]"
    percent = share.scaled(100.0)
    return f"{percent.number}% {percent.interval}"


def _amount(estimate: Estimate) -> str:
    return "exactly 0" if _exactly_zero(estimate) else estimate.number
