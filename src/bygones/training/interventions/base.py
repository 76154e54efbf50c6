"""What an intervention is: a pure function from a source's state to a source's state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from bygones.core.values import Capability, State, Window


@dataclass(frozen=True)
class Boundary:
    """Where an intervention acts, and what it may look at there.

    `entry`: the source's state when the window was entered. `fresh`: the source as if created now
    (None where that has no meaning). `donor`: the same source at the same step of another seed's run.
    `rng`: draws that depend on seed, source and step alone, so that arms which kick the same source
    at the same step kick it in the same direction.
    """

    step: int
    window: Window
    source: str
    leaves: str
    entry: State
    fresh: State | None
    donor: State | None
    rng: np.random.Generator


@dataclass(frozen=True)
class AbstractIntervention(ABC):
    """A frozen rule. Its fields are its whole description, and enter the digest of every arm."""

    requires: ClassVar[Capability] = (
        "anything"  # what a source must offer for this to mean something
    )
    needs_donor: ClassVar[bool] = False
    restores_at_end: ClassVar[bool] = (
        False  # at the window's end, the chosen leaves return to `entry`
    )
    single_step: ClassVar[bool] = False  # a window longer than one boundary would have no meaning

    @abstractmethod
    def __call__(self, state: State, at: Boundary) -> State:
        """The chosen leaves as they shall be. Neither `state` nor anything in `at` is changed."""

    def __str__(self) -> str:
        values = ", ".join(_short(getattr(self, field.name)) for field in fields(self))
        return f"{self.verb}({values})" if values else self.verb

    @property
    def verb(self) -> str:
        """The catalogue's name: the class's, in lower case with hyphens."""
        name = type(self).__name__
        return "".join(
            f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name)
        )


def _short(value: object) -> str:
    if isinstance(value, AbstractIntervention):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_short(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"{type(value).__name__}"
