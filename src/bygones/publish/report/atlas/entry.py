"""Entry of the atlas: what one regime's study says of each of its sources, from its outcomes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from bygones.analysis.effects import all_effects, headline_metric
from bygones.analysis.signature import Signature
from bygones.core.study_facts import ArmFacts, StudyFacts, facts_of
from bygones.core.values import Digest
from bygones.publish.report.verdicts import Reading, readings


@dataclass(frozen=True)
class Cell:
    """One source of a regime: the arm that stands for it, its reading, and what is known of the source."""

    source: str
    arm: ArmFacts
    reading: Reading

    @property
    def lasts(self) -> str:
        """The lifetime of the carrier, in words."""
        return self.arm.treatments[0].lifetime

    @property
    def steps(self) -> float | None:
        """The lifetime of the carrier in steps; None where it is unbounded."""
        return self.arm.treatments[0].lifetime_steps


@dataclass(frozen=True)
class Entry:
    """One regime: its arms' readings (the largest first), its signatures, and what it cost.

    `seconds`: the time that training took, None where it was not measured. `num_bytes`: what is stored.
    `bundle`: the digest of its bundle, "" where none was written.
    """

    regime: str
    facts: StudyFacts
    num_seeds: int
    readings: tuple[Reading, ...]
    signatures: tuple[Signature, ...]
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

        Of the arms that treat this source alone, the first that resets all of it, else the first.
        """
        by_name = {reading.arm: reading for reading in self.readings}
        alone: dict[str, list[ArmFacts]] = {}
        for arm in self.arms.values():
            if len({treatment.source for treatment in arm.treatments}) == 1:
                alone.setdefault(arm.treatments[0].source, []).append(arm)
        chosen = {source: next(filter(_resets, arms), arms[0]) for source, arms in alone.items()}
        return tuple(Cell(source, arm, by_name[arm.name]) for source, arm in chosen.items())


def _resets(arm: ArmFacts) -> bool:
    first = arm.treatments[0]
    return first.intervention == "reset" and first.leaves == "*"


def make_entry(
    regime: str,
    outcomes: xr.Dataset,
    signatures: Sequence[Signature] = (),
    *,
    seconds: float | None = None,
    num_bytes: int = 0,
    bundle: Digest = "",
) -> Entry:
    """Read a study's outcomes for the atlas: every treated arm in the study's headline distance."""
    metric = headline_metric(outcomes)
    read = readings(all_effects(outcomes, (metric,)), metric)
    return Entry(
        regime,
        facts_of(outcomes),
        outcomes.sizes["seed"],
        tuple(read),
        tuple(signatures),
        seconds,
        num_bytes,
        bundle,
    )
