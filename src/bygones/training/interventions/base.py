"""Interventions: pure functions from a source's state to a new state of the source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from bygones.core.checks import check_fields, refuse
from bygones.core.values import Capability, State, Window


@dataclass(frozen=True)
class Boundary:
    """The boundary at which an intervention acts, with the states that it may read.

    `entry`: the source's state at the start of the window. `fresh`: the source's state as if created now
    (None if the intervention does not need it). `donor`: the state of the same source at the same step
    of another seed's run (None likewise). `control`, `treated`: for a matched null, the state in the
    control's run at this boundary, and in the treated arm's after its treatment (None: to be derived from
    the null's own). `rng`: a generator keyed by seed, source and step alone, so that arms which kick the
    same source at the same step kick it in the same direction.
    """

    step: int
    window: Window
    source: str
    leaves: str
    entry: State
    fresh: State | None
    donor: State | None
    rng: np.random.Generator
    control: State | None = None
    treated: State | None = None


@dataclass(frozen=True)
class AbstractIntervention(ABC):
    """Base class of interventions: a frozen rule, fully described by its fields.

    The fields enter the digest of every arm. `requires`: the capability that a source must have.
    `restores_at_end`: at the end of the window, the chosen leaves return to `entry`. `single_step`: the
    window must be one boundary long.
    """

    requires: ClassVar[Capability] = "anything"
    needs_donor: ClassVar[bool] = False
    restores_at_end: ClassVar[bool] = False
    single_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)
        if getattr(self, "draw", 0) < 0:
            raise refuse(f"{type(self).__name__}(draw=…)", "0 or more", getattr(self, "draw", 0))

    @abstractmethod
    def __call__(self, state: State, at: Boundary) -> State:
        """Return the new state of the chosen leaves. Must change neither `state` nor anything in `at`."""

    def opposite(self) -> AbstractIntervention | None:
        """Return the intervention that makes the opposite change, None if there is none."""
        return None

    def __str__(self) -> str:
        values = ", ".join(_format_field(getattr(self, field.name)) for field in fields(self))
        return f"{self.verb}({values})" if values else self.verb

    @property
    def verb(self) -> str:
        """The name in the catalogue: the class's name in lower case, with hyphens."""
        name = type(self).__name__
        return "".join(
            f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name)
        )


def _format_field(value: object) -> str:
    """Write the value of a field; of a long one, the name of its class."""
    if isinstance(value, AbstractIntervention):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_format_field(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"{type(value).__name__}"
