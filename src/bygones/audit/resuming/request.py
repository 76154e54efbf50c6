"""Request of a resume check: the script and how it is resumed, where it is interrupted, what is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bygones.attach.isolation.script import Script
from bygones.attach.job.run import Patience


@dataclass(frozen=True)
class ResumeRequest:
    """The script with its arguments for the whole run, the interrupted one and the resumed one.

    `at`: the step after which the process is ended, unless `interrupted` ends by itself. `horizon`: how many
    steps after the interruption are compared; to the end of the run if None. `again`: the step (of the whole
    run) after which the resumed run is interrupted too, and resumed a second time. `seeds`: if there are
    none, seed 0, and two more where something is lost and that takes less than a minute. `then`, `then_env`:
    arguments and environment variables of a resume under other settings, which is measured too. `patience`:
    when the ranks of a job count as hanging.
    """

    whole: Script
    resumed: Script
    interrupted: Script | None = None
    at: int | None = None
    seeds: tuple[int, ...] = ()
    horizon: int | None = None
    again: int | None = None
    then: tuple[str, ...] = ()
    then_env: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)

    @property
    def other_settings(self) -> str:
        """The arguments and variables of a resume under other settings, in words; empty if none are asked."""
        return " ".join([*(f"{n}={v}" for n, v in self.then_env.items()), *self.then])
