"""Study metadata: what outcomes say of the study that they come from, as one typed record.

    arms, fork_at, repeats                 what was compared, where the runs were forked, and how often
    study, recipe, digests, design, way    what was run, and how
    headline, family, margins, interval    what was declared before it was run
    stopping                               how many seeds were added, and by which rule
    sources, orders, contract, rng, lanes  what the runs carried, and under which conditions
    models                                 whose outputs were observed, the one that leads first
    findings, certificate, num_steps       what the checks found, and what it cost

Training writes it, and analysis and reports read it: `facts_of(outcomes)` is the only reader of
`outcomes.attrs`. There, in a store's manifests and in bundles it is JSON, by the names of the fields.
A field that a study does not record is None, or empty where it has no other meaning, and is left out
of the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from bygones.core.errors import StoreError
from bygones.core.values import Digest

if TYPE_CHECKING:
    import xarray as xr

Role = Literal["control", "sham", "treated", "null"]
Redraw = Literal["", "null", "control"]


@dataclass(frozen=True)
class TreatmentFacts:
    """One treatment of an arm: which leaves of which source, by what, in which steps [start, stop).

    `lifetime`: of the source, in words; `lifetime_steps`: in steps, None where it is unbounded.
    """

    source: str
    intervention: str
    window: tuple[int, int]
    leaves: str
    lifetime: str
    lifetime_steps: float | None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        start, stop = value["window"]
        given: dict[str, Any] = {**value, "window": (start, stop)}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "window": list(self.window)}


@dataclass(frozen=True)
class ArmFacts:
    """One arm. `sentence`: what it does; `null_of`: the arm that a null matches; `noun`: what a null does.

    `redraw`: of an arm that is itself a random change, what else is a draw of the same law: its null, or
    the control too. `opposite_of`: the arm whose changes this one makes with the opposite sign.
    `no_null`: why an arm has no matched null. `null_ratio`: of a null, the smallest and the largest ratio
    of its displacement of the sources to the treated arm's, over seeds and boundaries.
    """

    name: str
    role: Role
    null_of: str | None = None
    noun: str | None = None
    treatments: tuple[TreatmentFacts, ...] = ()
    sentence: str = ""
    redraw: Redraw = ""
    opposite_of: str = ""
    no_null: str = ""
    null_ratio: tuple[float, float] | None = None

    @property
    def lifetime_steps(self) -> float | None:
        """The longest lifetime among the treated sources; infinite if one is unbounded, None without any."""
        lifetimes = [treatment.lifetime_steps for treatment in self.treatments]
        if not lifetimes:
            return None
        return max(math.inf if steps is None else float(steps) for steps in lifetimes)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        treatments = tuple(TreatmentFacts.from_dict(one) for one in value.get("treatments", ()))
        given: dict[str, Any] = {**value, "treatments": treatments}
        if given.get("null_ratio") is not None:
            given["null_ratio"] = tuple(given["null_ratio"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        told = {**asdict(self), "treatments": [one.to_dict() for one in self.treatments]}
        optional = {"redraw": "", "opposite_of": "", "no_null": "", "null_ratio": None}
        return {name: one for name, one in told.items() if optional.get(name, self) != one}


@dataclass(frozen=True)
class RepeatFacts:
    """One repeat of a study's arms within each seed: the step of its fork, and which continuation it is.

    `sibling` 0 goes on as the run does; every other draws what is still random after the fork anew.
    """

    fork_at: int
    sibling: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SourceFacts:
    """One source of memory of a run: where it was found, who can see it, how long it lasts, its size."""

    name: str
    origin: str
    visibility: str
    lifetime: str
    leaves: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class OrderFacts:
    """How examples are chosen, and a hash of the order that each seed's control really saw, by seed."""

    policy: str = ""
    policy_hash: Digest = ""
    realised: Mapping[str, Digest] = field(default_factory=dict[str, Digest])

    def to_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "policy_hash": self.policy_hash,
            "realised": dict(self.realised),
        }


@dataclass(frozen=True)
class CertificateFacts:
    """The result of a fork check, or of the comparison with sham twins where runs cannot be forked.

    `needed`, `inert`: sources whose omission was noticed and was not. `constant`: sources that held the same
    as in a new run of another seed, so that their omission left nothing out. `sufficiency`: whether all
    memory was found (`sufficient`, `said`), where that was checked.
    """

    passed: bool
    boundaries: tuple[int, ...]
    until: int
    needed: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    kind: Literal["twins"] | None = None
    sufficiency: Mapping[str, Any] | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        given: dict[str, Any] = dict(value)
        lists = ("boundaries", "needed", "inert", "constant")
        given |= {n: tuple(value[n]) for n in lists if n in value}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "passed": self.passed,
            "boundaries": list(self.boundaries),
            "until": self.until,
            "needed": list(self.needed),
            "inert": list(self.inert),
        }
        optional = {
            "constant": list(self.constant) or None,
            "kind": self.kind,
            "sufficiency": self.sufficiency,
        }
        return told | {name: value for name, value in optional.items() if value is not None}


@dataclass(frozen=True)
class StoppingFacts:
    """The rule by which seeds were added until an interval was narrow enough, and the seeds of each batch.

    `half_width` was asked of every arm's excess, at most `max_seeds` were allowed; `reached`: whether the
    intervals became as narrow as that.
    """

    half_width: float
    max_seeds: int
    batches: tuple[tuple[int, ...], ...]
    reached: bool

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        batches: Sequence[Sequence[int]] = value["batches"]
        given: dict[str, Any] = {**value, "batches": tuple(tuple(batch) for batch in batches)}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "batches": [list(batch) for batch in self.batches]}

    def __str__(self) -> str:
        added = ", ".join(str(len(batch)) for batch in self.batches)
        ended = "reached" if self.reached else f"not reached by {self.max_seeds} seeds"
        return (
            f"seeds were added in batches of {added} until the excess of every arm was known within "
            f"± {self.half_width:g} ({ended})"
        )


@dataclass(frozen=True)
class StudyFacts:
    """All metadata of a study; see the module. `other`: what a later version recorded, kept as it is.

    `interval`: the estimator (its name in the catalogue) of every effect; studies before it was recorded
    have None. `repeats`: of all arms within each seed, the first one included; empty where there is just one.
    JSON in itself: `family` (the fields of `analysis.multiplicity.Family`), `contract` (numeric),
    `rng`, `design` (what runs the study again), `lanes` (how many seeds shared a step, and why).
    """

    arms: tuple[ArmFacts, ...]
    fork_at: int
    repeats: tuple[RepeatFacts, ...] = ()
    study: str = ""
    recipe: str = ""
    headline: str | None = None
    family: Mapping[str, Any] | None = None
    margins: Mapping[str, float] | None = None
    interval: str | None = None
    stopping: StoppingFacts | None = None
    sources: tuple[SourceFacts, ...] | None = None
    orders: OrderFacts | None = None
    digests: Mapping[str, Digest] = field(default_factory=dict[str, Digest])
    findings: tuple[str, ...] | None = None
    contract: Mapping[str, Any] = field(default_factory=dict[str, Any])
    design: Mapping[str, Any] | None = None
    rng: Mapping[str, Any] | None = None
    lanes: Mapping[str, Any] | None = None
    way: str = ""
    models: tuple[str, ...] = ()
    num_steps: Mapping[str, int] = field(default_factory=dict[str, int])
    certificate: CertificateFacts | None = None
    other: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, with the same or another version. Raises StoreError without arms."""
        for name in ("arms", "fork_at"):
            if name not in value:
                raise StoreError(
                    f"these outcomes do not say what was compared: '{name}' is not recorded. Expected the "
                    f"outcomes of a study, with the attributes that `measure` gives them."
                )
        names = {one.name for one in fields(cls)} - {"other"}
        known = {name: one for name, one in value.items() if name in names and one is not None}
        for name, read in _READERS.items():
            if name in known:
                known[name] = read(known[name])
        return cls(**known, other={n: one for n, one in value.items() if n not in names})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON; what is not recorded is left out."""
        nothing = StudyFacts((), 0)
        told = {
            one.name: _to_plain(getattr(self, one.name))
            for one in fields(self)
            if one.name in _ALWAYS or getattr(self, one.name) != getattr(nothing, one.name)
        }
        other = told.pop("other", {})
        return {**told, **other}


_ALWAYS = ("arms", "fork_at", "study", "recipe")


def _read_arms(value: Sequence[Mapping[str, Any]]) -> tuple[ArmFacts, ...]:
    return tuple(ArmFacts.from_dict(arm) for arm in value)


def _read_sources(value: Sequence[Mapping[str, Any]]) -> tuple[SourceFacts, ...]:
    return tuple(SourceFacts(**source) for source in value)


def describe_repeats(repeats: Sequence[RepeatFacts]) -> str:
    """Say how the arms are repeated within a seed; "" where they are not.

    >>> describe_repeats([RepeatFacts(300, 0), RepeatFacts(300, 1), RepeatFacts(400, 0), RepeatFacts(400, 1)])
    'every arm 4 times within each seed: 2 siblings each at the forks at steps 300, 400'
    """
    if len(repeats) < 2:
        return ""
    forks = dict.fromkeys(repeat.fork_at for repeat in repeats)
    siblings = len(repeats) // len(forks)
    at = f"the forks at steps {', '.join(map(str, forks))}"
    how = f"{siblings} siblings" if len(forks) == 1 else f"{siblings} siblings each at {at}"
    how = f"once at each of {at}" if siblings == 1 else how
    return f"every arm {len(repeats)} times within each seed: {how}"


def _read_repeats(value: Sequence[Mapping[str, Any]]) -> tuple[RepeatFacts, ...]:
    return tuple(RepeatFacts(**repeat) for repeat in value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "arms": _read_arms,
    "fork_at": int,
    "repeats": _read_repeats,
    "sources": _read_sources,
    "stopping": StoppingFacts.from_dict,
    "orders": lambda value: OrderFacts(**value),
    "findings": tuple,
    "models": tuple,
    "certificate": CertificateFacts.from_dict,
}


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(one) for one in cast(tuple[Any, ...], value)]
    return value.to_dict() if hasattr(value, "to_dict") else value


def facts_of(outcomes: xr.Dataset) -> StudyFacts:
    """Return what outcomes say of their study. Raises StoreError where they say nothing of its arms."""
    return StudyFacts.from_dict(outcomes.attrs)
