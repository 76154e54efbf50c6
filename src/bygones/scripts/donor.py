"""Donors: the run of another seed that a transplant comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from bygones.attach.isolation.fork import Parent
from bygones.attach.watched_process import Ending, WatchedProcess, run_in_child
from bygones.core.errors import ScriptError
from bygones.core.values import State
from bygones.scripts.arm_process import Job, allowed_folders, folder_of
from bygones.study.donor import capture_sources, donor_reads
from bygones.study.segment import donor_seed


def find_donor(job: Job, seed: int) -> dict[int, Mapping[str, State]]:
    """Run the donor of a seed. Return the states that are transplanted, by step and source."""
    reads = donor_reads(job.study.arms)
    if not reads:
        return {}
    return run_in_child(
        lambda parent: DonorProcess(job, donor_seed(seed), reads, parent),
        killed=f"{job.script} was killed while it trained a donor.",
    )


class DonorProcess(WatchedProcess):
    """Train another seed, and reply the states of the sources in `reads` (names by step), by step."""

    def __init__(
        self, job: Job, seed: int, reads: Mapping[int, Sequence[str]], parent: Parent
    ) -> None:
        super().__init__(
            job.script,
            job.home,
            seed,
            folder_of(job, seed, "donor"),
            parent,
            allowed=allowed_folders(job),
            emulates=job.emulates,
            stops=frozenset(reads),
        )
        self.reads, self.last = reads, max(reads)
        self.taken: dict[int, dict[str, State]] = {}

    def at_boundary(self, step: int) -> None:
        self.taken[step] = capture_sources(self.find_live().sources, self.reads[step])
        if step == self.last:
            self.parent.reply_and_exit(self.taken)

    def finish(self, ending: Ending) -> NoReturn:
        self.parent.reply_and_exit(
            ScriptError(
                f"{self.script} {ending} before step {self.last}, in the run of seed {self.seed} that a "
                f"transplant is taken from."
            )
        )
