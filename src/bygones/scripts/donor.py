"""Donors: the run of another seed that a transplant comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bygones.attach.isolation.fork import Child, fork
from bygones.attach.isolation.overlay import Overlay, guarding_native_writes
from bygones.attach.isolation.script import run_script
from bygones.attach.live_run import Baseline, Live
from bygones.attach.step_clock import Clock
from bygones.attach.watched_process import redirect_output
from bygones.attach.worker_emulation import emulating
from bygones.core.errors import ScriptError
from bygones.core.values import State
from bygones.scripts.arm_process import Job, allowed_folders, folder_of
from bygones.study.donor import capture_sources, donor_reads
from bygones.study.segment import donor_seed


def find_donor(job: Job, seed: int) -> dict[int, Mapping[str, State]]:
    """The states that are transplanted into this seed, by step: of a run with a seed of its own."""
    reads = donor_reads(job.study.arms)
    return _process_donor(job, donor_seed(seed), reads) if reads else {}


def _process_donor(
    job: Job, seed: int, reads: Mapping[int, Sequence[str]]
) -> dict[int, Mapping[str, State]]:
    side = fork()
    if isinstance(side, Child):
        said = side.wait()
        if not isinstance(said, dict):
            raise said or ScriptError(f"{job.script} was killed while it trained a donor.")
        return said
    clock = Clock(job.script.clock)
    script = job.home / job.script.path
    looks: list[Baseline] = []
    taken: dict[int, dict[str, State]] = {}

    def at_boundary(step: int) -> None:
        live = Live(script, clock, seed, looks[0], {})
        taken[step] = capture_sources(live.sources, reads[step])
        if step == max(reads):
            side.reply_and_exit(taken)

    clock.stops = frozenset(reads)
    clock.before_first = lambda: looks.append(Baseline(script, clock, seed))
    clock.at_boundary = at_boundary
    folder = folder_of(job, seed, "donor")
    redirect_output(folder)
    Overlay(job.home, folder / "files", allowed=allowed_folders(job)).enter()
    try:
        with clock.listening(), guarding_native_writes(), emulating():
            run_script(job.script, seed, job.home)
    except BaseException as error:
        side.reply_and_exit(
            ScriptError(
                f"{job.script} raised {type(error).__name__} for the donor's seed: {error}."
            )
        )
    side.reply_and_exit(
        ScriptError(f"{job.script} came to its end before step {max(reads)} for the donor's seed.")
    )
