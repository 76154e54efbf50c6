"""A section of a report: what it may read, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bygones.publish.report.evidence import Evidence
from bygones.publish.report.svg import FigureFolder
from bygones.publish.verdicts import Reading


@dataclass(frozen=True)
class PageData:
    """What a section may read. `folder`: where it saves its figures."""

    evidence: Evidence
    readings: Sequence[Reading]
    folder: FigureFolder


# The values for the section's template, or None where the study has nothing for this section.
Section = Callable[[PageData], Mapping[str, Any] | None]
