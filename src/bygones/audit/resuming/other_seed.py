"""Run of another seed: the reference that a distance of two functions is compared with."""

from __future__ import annotations

from typing import Any, NoReturn

from bygones.attach.watched_process import Ending
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import outputs_of
from bygones.audit.resume_runs import ReferenceRun


class OtherSeedRun(AuditedRun):
    """Run another seed to a boundary, and reply the function's outputs there."""

    def __init__(self, whole: ReferenceRun, end: int, *given: Any) -> None:
        super().__init__(*given, stops=frozenset({end}))
        self.whole = whole

    def at_boundary(self, step: int) -> None:
        assert self.whole.inputs is not None
        live = self.find_live(self.whole.expected)
        self.parent.reply_and_exit(outputs_of(live, self.whole.inputs))

    def finish(self, ending: Ending) -> NoReturn:
        self.parent.reply_and_exit({})
