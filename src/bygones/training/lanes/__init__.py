"""Lanes: several seeds in one step, where that pays."""

from collections.abc import Sequence

from bygones.training.lanes.alone import Alone
from bygones.training.lanes.machine import Lanes, refusal
from bygones.training.lanes.stack import Unlike
from bygones.training.run import Run


def crew(runs: Sequence[Run], width: int) -> Lanes | Alone:
    """Runs that go together: as lanes of one step, or, where a step has one lane, a run by itself."""
    return Lanes(runs, width) if width > 1 else Alone(runs[0])


__all__ = ["Alone", "Lanes", "Unlike", "crew", "refusal"]
