"""Audited run: a watched process whose continuations are compared with those of other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bygones.attach.isolation.fork import Child, Parent
from bygones.attach.isolation.script import Script
from bygones.attach.watched_process import WatchedProcess
from bygones.audit.continuation import KILLED, Continuation


class AuditedRun(WatchedProcess):
    """A watched process that keeps the batches of each step.

    What the script saves at an epoch's end comes before the boundary, so it belongs to the run so far.
    """

    def __init__(
        self, script: Script, home: Path, seed: int, folder: Path, parent: Parent, **clock: Any
    ) -> None:
        super().__init__(
            script, home, seed, folder, parent, keeps_batches=True, past_epoch_end=True, **clock
        )

    def fork_continuation(self, until: int) -> Continuation | None:
        """Fork an arm that runs to `until`. Returns its continuation; None in the arm itself."""
        child = self.fork_arm(self.folder / "arm")
        if child is None:
            self.clock.stop_only_at(until)
            return None
        return self.continuation_from(child)

    def continuation_from(self, arm: Child) -> Continuation:
        """Wait for an arm, and return how it went on."""
        reply = self.wait_for_arm(arm)
        return reply if isinstance(reply, Continuation) else KILLED
