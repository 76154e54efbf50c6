"""Treatments: an intervention on a source during a window, and the checks that it is valid there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bygones.core.checks import require_instance, require_text
from bygones.core.code_digest import third_party_digest
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.study_facts import Redraw
from bygones.core.values import Capability, Digest, Window
from bygones.training.interventions import (
    AbstractIntervention,
    Carry,
    MatchedNull,
    Nudge,
    Permute,
    Replace,
    Resample,
    Reseed,
    Sham,
    SwapWindows,
)
from bygones.training.moment_lifetimes import is_counter
from bygones.training.orders.base import AbstractOrder
from bygones.training.sources import AbstractSource

_LACKS: dict[Capability, str] = {
    "arrays": "it holds no arrays of floats",
    "order": "it is not an order of batches",
    "reseedable": "nothing is drawn from it",
    "resampleable": "what it still has to draw cannot be drawn anew by itself",
    "resettable": "",
}

_VERBS = {
    "reset": "resetting",
    "hold": "holding",
    "sham": "doing nothing to",
    "carry": "carrying",
    "permute": "permuting",
    "roll": "rolling",
    "reseed": "re-drawing",
    "resample": "resampling",
    "swap-windows": "swapping two windows of",
    "transplant": "transplanting",
    "nudge": "nudging",
    "kick": "kicking",
    "scale": "scaling",
    "replace": "replacing",
    "matched-null": "randomly kicking",
}

# Interventions whose settings say no more than which draw it is, or which treatment is matched.
_UNSAID = ("permute", "reseed", "resample", "matched-null")


@dataclass(frozen=True)
class Treatment:
    """Rewrite `source` by `intervention` at each boundary of `window`, on the leaves that match.

    >>> from bygones.training.interventions import Reset
    >>> print(Treatment("moments", Reset(), Window(300, 301)))
    resetting moments at step 300
    """

    source: str
    intervention: AbstractIntervention
    window: Window
    leaves: str = "*"

    def __post_init__(self) -> None:
        require_text(self.source, "a treatment's source", empty=True)
        require_text(self.leaves, "a treatment's leaves", empty=True, most=10_000)
        require_instance(
            self.intervention, AbstractIntervention, "a treatment's intervention", "Reset()"
        )
        require_instance(self.window, Window, "a treatment's window", "Window(300, 301)")

    def __str__(self) -> str:
        verb = _VERBS.get(self.intervention.verb, str(self.intervention))
        settings = str(self.intervention).partition("(")[2]
        what = self.source if self.leaves == "*" else f"{self.source} ({self.leaves})"
        how = (
            f" ({settings.rstrip(')')})"
            if settings and self.intervention.verb not in _UNSAID
            else ""
        )
        place = "at" if self.window.length == 1 else "over"
        return f"{verb} {what}{how} {place} {self.window}"

    def digest(self) -> Digest:
        """Hash names, window, the intervention's settings, and its code if it is not one of bygones."""
        intervention = self.intervention
        code = third_party_digest(type(self._inner))
        return digest(
            [self.source, intervention.verb, intervention, code, self.window, self.leaves]
        )

    @property
    def needs_donor(self) -> bool:
        """True if the intervention reads the state of another seed's run."""
        return self._inner.needs_donor

    @property
    def needs_fresh(self) -> bool:
        """True if the intervention reads the state that a new source would have."""
        return self._inner.requires == "resettable"

    @property
    def is_null(self) -> bool:
        """True for a matched null."""
        return isinstance(self.intervention, MatchedNull)

    @property
    def restores_at_end(self) -> bool:
        """True if the treated leaves return at the window's end to what they were at its start."""
        return self._inner.restores_at_end

    @property
    def boundaries(self) -> range:
        """The steps at which the source is rewritten: the window's, and its end where it is restored."""
        return range(self.window.start, self.window.stop + self.restores_at_end)

    @property
    def _inner(self) -> AbstractIntervention:
        """The intervention itself, or for a matched null the intervention that it matches."""
        return (
            self.intervention.of
            if isinstance(self.intervention, MatchedNull)
            else self.intervention
        )

    def order_policies(self) -> list[AbstractOrder]:
        """List the order policies that the treatment switches to."""
        if isinstance(self.intervention, Replace):
            return [v for v in self.intervention.with_.values() if isinstance(v, AbstractOrder)]
        return []


def check_pair(treatment: Treatment, source: AbstractSource) -> None:
    """Raise `DesignError` if an intervention cannot be applied to its source. Nothing is trained."""
    intervention = treatment.intervention
    if isinstance(intervention, MatchedNull):
        check_pair(
            Treatment(source.name, intervention.of, treatment.window, treatment.leaves), source
        )
        if len(treatment.boundaries) > 1 and not intervention.against:
            raise DesignError(
                f"a matched null over several boundaries reads where the control and the treated arm are at "
                f"each of them, so only a study can add it; got one of {treatment.source} at "
                f"{treatment.window}. Give the arm {intervention.of}: its null is added by itself."
            )
    if intervention.single_step and treatment.window.length > 1:
        raise DesignError(
            f"{intervention.verb} acts at one boundary; its window must be one step long, got "
            f"{treatment.window}."
        )
    if isinstance(intervention, SwapWindows) and treatment.window.length % 2:
        raise DesignError(
            f"swap-windows exchanges the two halves of its window, so the length must be even; got "
            f"{treatment.window.length} steps ({treatment.window})."
        )
    permutes = isinstance(intervention, Permute) and source.capabilities & {"arrays", "order"}
    if intervention.requires in ("anything", *source.capabilities) and (
        permutes or not isinstance(intervention, Permute)
    ):
        return
    if intervention.requires == "resettable":
        raise DesignError(f"'{source.name}' cannot be reset: {source.reset_refusal}")
    need: Capability = "arrays" if isinstance(intervention, Permute) else intervention.requires
    raise DesignError(
        f"'{intervention.verb}' cannot be applied to '{source.name}': {_LACKS[need]}."
    )


def matched_null(
    treatment: Treatment, source: AbstractSource, arm: Sequence[Treatment] = ()
) -> Treatment | None:
    """Return the matched null of a treatment, or None where there is none (`null_refusal` says why).

    Of arrays: a random displacement of the same norm. Of a rearranged window of an order: a random
    permutation of the same window. Of a re-drawn stream, or an order changed otherwise: another draw.
    `arm`: all treatments of the arm, if it has others.
    """
    intervention, against = treatment.intervention, _against(arm or (treatment,))
    match intervention:
        case Carry() | Sham() | MatchedNull():
            return None
        case SwapWindows():
            null: AbstractIntervention = Permute()
        case Permute() if "order" in source.capabilities:
            null = Permute(draw=intervention.draw + 1)
        case Reseed():
            null = Reseed(draw=intervention.draw + 1)
        case Resample():
            null = Resample(draw=intervention.draw + 1)
        case Nudge():
            null = Nudge(intervention.epsilon, draw=intervention.draw + 1)
        case _ if _is_of_counters(treatment):
            return None
        case _ if "arrays" in source.capabilities and not source.linked_leaves():
            null = MatchedNull(of=intervention, against=against)
        case _ if "arrays" not in source.capabilities and "reseedable" in source.capabilities:
            null = Reseed(draw=1)
        case _:
            return None
    return Treatment(treatment.source, null, treatment.window, treatment.leaves)


def _is_of_counters(treatment: Treatment) -> bool:
    """Return True for the counts of an optimizer alone, such as `*/step`, of which a kick moves nothing."""
    return treatment.source == "moments" and is_counter(treatment.leaves.rpartition("/")[2])


def _against(arm: Sequence[Treatment]) -> tuple[Treatment, ...]:
    """Return the treatments that a null of this arm is compared with at each boundary: none if it has one."""
    boundaries = {step for treatment in arm for step in treatment.boundaries}
    return tuple(arm) if len(boundaries) > 1 else ()


def null_refusal(treatment: Treatment, source: AbstractSource) -> str:
    """Return why a treatment has no matched null, as the end of a sentence; "" if it has one."""
    if isinstance(treatment.intervention, Carry | Sham | MatchedNull):
        return "it is a reference itself"
    if matched_null(treatment, source) is not None:
        return ""
    linked = source.linked_leaves() if "arrays" in source.capabilities else ""
    return linked or f"no random change of {source.name} as large is defined"


def is_redraw(treatment: Treatment) -> bool:
    """Return True for a treatment that is itself random: its matched null is another draw of it."""
    match treatment.intervention:
        case Nudge() | Reseed() | Resample():
            return True
        case Permute():
            return treatment.source == "order"
        case _:
            return False


def redraw_of(treatment: Treatment, source: AbstractSource) -> Redraw:
    """Return what else is a draw of the same law as a random change; "" if a treatment is none.

    "null": another draw of the treatment. "control": also what it replaces, for that was drawn so too.
    """
    if not is_redraw(treatment):
        return ""
    if isinstance(treatment.intervention, Resample):
        return "control"
    reseeds = isinstance(treatment.intervention, Reseed)
    return "control" if reseeds and source.redraws_alike(treatment.window.start) else "null"


def describe_null(treatment: Treatment) -> str:
    """Describe what a matched null does, as a noun phrase."""
    match treatment.intervention:
        case Permute():
            return "another shuffle of the window"
        case Reseed() | Resample() | Nudge():
            return "another draw"
        case _:
            return "a random kick as large"
