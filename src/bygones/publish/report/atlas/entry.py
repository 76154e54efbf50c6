"""Entry of the atlas: what one regime's study says of each of its sources, from its outcomes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import xarray as xr

from bygones.analysis.effects import all_effects, headline_metric
from bygones.analysis.observed_models import observing
from bygones.analysis.signature import Signature
from bygones.core.study_facts import ArmFacts, StudyFacts, facts_of
from bygones.core.values import Digest
from bygones.publish.verdicts import Reading, readings


@dataclass(frozen=True)
class Cell:
    """One source of a regime: the arm that stands for it, its reading, and what is known of the source."""

    source: str
    arm: ArmFacts
    reading: Reading
    seen_in: str = ""  # the observed model, where it is not the leading one

    @property
    def name(self) -> str:
        """The arm, and the model that it is seen in where that is not the leading one."""
        return f"{self.arm.name} (in {self.seen_in})" if self.seen_in else self.arm.name

    @property
    def steps(self) -> float | None:
        """The lifetime of the carrier in steps; None where it is unbounded."""
        return self.arm.treatments[0].lifetime_steps


@dataclass(frozen=True)
class Entry:
    """One regime: its arms' readings (the largest first), its signatures, and what it cost.

    `seen_in`: by arm, the observed model that its reading is of, where it does not reach the leading one.
    `seconds`: the time that training took, None where it was not measured. `num_bytes`: what is stored.
    `bundle`: the digest of its bundle, "" where none was written.
    """

    regime: str
    facts: StudyFacts
    num_seeds: int
    readings: tuple[Reading, ...]
    signatures: tuple[Signature, ...]
    seen_in: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    num_bytes: int = 0
    bundle: Digest = ""

    @property
    def arms(self) -> dict[str, ArmFacts]:
        """The treated arms by name, in the order of the study."""
        return {arm.name: arm for arm in self.facts.arms if arm.role == "treated"}

    @property
    def last(self) -> int:
        """The last horizon, in steps after the fork."""
        return self.readings[0].last.horizon

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One cell a source, in the order of the study.

        Of the arms that treat this source alone, the first that resets all of it; of an order or of streams,
        the first that draws them again; else the first.
        """
        by_name = {reading.arm: reading for reading in self.readings}
        alone: dict[str, list[ArmFacts]] = {}
        for arm in self.arms.values():
            if len({treatment.source for treatment in arm.treatments}) == 1:
                alone.setdefault(arm.treatments[0].source, []).append(arm)
        chosen = {source: min(arms, key=_rank) for source, arms in alone.items()}
        return tuple(
            Cell(source, arm, by_name[arm.name], self.seen_in.get(arm.name, ""))
            for source, arm in chosen.items()
        )


def _rank(arm: ArmFacts) -> int:
    """Return how well an arm stands for its source: 0 the best; of equal ones the study's first is taken."""
    treatment = arm.treatments[0]
    if treatment.intervention == "reset" and treatment.leaves == "*":
        return 0
    return 1 if treatment.intervention.startswith(("reseed", "resample")) else 2


def make_entry(
    regime: str,
    outcomes: xr.Dataset,
    signatures: Sequence[Signature] = (),
    *,
    seconds: float | None = None,
    num_bytes: int = 0,
    bundle: Digest = "",
) -> Entry:
    """Read a study's outcomes for the atlas: every treated arm in the study's headline distance.

    An arm that does not reach the model that leads is read from the first other observed one that it reaches.
    """
    read = _read(outcomes)
    others = [observing(outcomes, model) for model in facts_of(outcomes).models[1:]]
    seen_in: dict[str, str] = {}
    for other in others if any(one.kind == "unreached" for one in read) else ():
        reached = {one.arm: one for one in _read(other) if one.kind != "unreached"}
        for place, one in enumerate(read):
            if one.kind == "unreached" and one.arm in reached:
                read[place] = reached[one.arm]
                seen_in[one.arm] = facts_of(other).models[0]
    return Entry(
        regime,
        facts_of(outcomes),
        outcomes.sizes["seed"],
        tuple(read),
        tuple(signatures),
        seen_in,
        seconds,
        num_bytes,
        bundle,
    )


def _read(outcomes: xr.Dataset) -> list[Reading]:
    metric = headline_metric(outcomes)
    return readings(all_effects(outcomes, (metric,)), metric)
