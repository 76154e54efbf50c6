"""Recording a job: each rank writes a ledger of its own, and one ledger chains those of all.

The ranks run for real, with their own output, as a launcher would start them. Beside the job's ledger
`job.jsonl` lie `job.rank0.jsonl`, `job.rank1.jsonl`, … Each entry of the job's has the fields of all ranks
and the hash of each rank's entry, so whoever trusts its last line trusts every rank's.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bygones.attach.isolation.fork import Parent, scratch_folder
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.job.rank import Rank
from bygones.attach.job.run import Patience, run_job
from bygones.attach.live_run import Live
from bygones.attach.step_clock import own_errors
from bygones.attach.watched_process import Ending
from bygones.core.errors import BygonesError, DesignError, ScriptError
from bygones.core.text import join_names
from bygones.scripts.job_sources import KEPT_ALIKE, is_kept_alike
from bygones.scripts.record import Recorder, ScriptRecorded
from bygones.store.ledger import Writer, read_ledger, refuse_existing
from bygones.store.ledger_diff import OF_RANK, fields
from bygones.study.record import Recorded

# A job at work is not ended; a collective of its own waits at most half an hour for another rank.
_PATIENCE = Patience(idle=3600.0, busy=math.inf)


@dataclass(frozen=True)
class JobRecorded(Recorded):
    """The ledger of a job.

    `ranks`: the ledgers of its ranks. `parted`: what differs between ranks although the script keeps it
    alike, with the first boundary.
    """

    ranks: tuple[str, ...]
    parted: Mapping[str, int]

    def __str__(self) -> str:
        text = f"{super().__str__()} Each rank's own: {join_names(list(self.ranks))}."
        for name, step in self.parted.items():
            text += (
                f" {name} are not the same in all ranks from boundary {step} on, although "
                f"DistributedDataParallel keeps the weights alike."
            )
        return text


def record_job(script: Script, home: Path, seed: int, every: int, path: Path) -> JobRecorded:
    """Run every rank of a job to its end, and write their ledgers and that of the job.

    Raises `ScriptError` if a rank fails; the ledgers of the ranks are then left without their last lines.
    """
    if every < 1:
        raise DesignError(f"--every counts boundaries, 1 or more; got {every}.")
    check_script(script)
    path = path.absolute()
    paths = [path.with_suffix(f".rank{n}{path.suffix}") for n in range(script.processes)]
    for one in (path, *paths):
        refuse_existing(one)
    warm()
    with scratch_folder() as folder:
        replies: list[tuple[ScriptRecorded, bool]] = run_job(
            lambda n, parent: _RankRecorder(script, home, seed, every, paths[n], parent),
            script.processes,
            folder,
            name=script.path,
            patience=_PATIENCE,
        )
    held_alike = all(alike for _, alike in replies)
    return join_ledgers(script, path, paths, KEPT_ALIKE if held_alike else ())


class _RankRecorder(Recorder):
    """A rank of a job that is recorded."""

    def __init__(
        self, script: Script, home: Path, seed: int, every: int, path: Path, parent: Parent
    ) -> None:
        super().__init__(script, home, seed, every, path)
        self.parent = parent
        self.keeps_alike = False

    def run(self, *, empty: bool = True) -> NoReturn:
        """Run the script, and reply what was recorded and whether the ranks are kept alike."""
        assert self.rank is not None
        atexit._clear()  # those of the process that this one was forked from
        try:
            self.rank.begin()
            with self.rank.counting_steps():
                ending = self.execute()
            atexit._run_exitfuncs()  # the script's own: this process is ended without them
            if ending.failed:
                raise self._failed(self.rank, ending)
            with own_errors:
                self.parent.reply_and_exit((self.end(), self.keeps_alike))
        except BygonesError as error:
            self.leave()
            self.parent.reply_and_exit(error)

    def header(self, live: Live) -> dict[str, Any]:
        self.keeps_alike = is_kept_alike(live)
        return super().header(live)

    def _failed(self, rank: Rank, ending: Ending) -> ScriptError:
        rank.note_failure(ending.error)
        return ScriptError(f"{self.script.path} {ending}")


def join_ledgers(
    script: Script, path: Path, paths: Sequence[Path], kept_alike: Sequence[str]
) -> JobRecorded:
    """Write the job's ledger from those of its ranks. Raises `ScriptError` if they have other boundaries."""
    ledgers = [read_ledger(one) for one in paths]
    steps = [[entry["step"] for entry in ledger.entries] for ledger in ledgers]
    for number, mine in enumerate(steps):
        if mine != steps[0]:
            raise ScriptError(
                f"rank {number} of {script.processes} took {mine[-1]} steps and rank 0 {steps[0][-1]}. "
                f"Expected as many, so that they have boundaries in common; the ledger of each rank is kept."
            )
    header = {k: v for k, v in ledgers[0].header.items() if k not in ("ledger", "entry")}
    parted: dict[str, int] = {}
    with Writer(path, {**header, "processes": script.processes}) as writer:
        for entries in zip(*(ledger.entries for ledger in ledgers), strict=True):
            writer.add(_join_entries(entries))
            for name in kept_alike:
                if len({entry["holds"].get(name) for entry in entries}) > 1:
                    parted.setdefault(name, entries[0]["step"])
        root_hash = writer.end()
    return JobRecorded(
        path=str(path),
        entries=len(steps[0]),
        until=steps[0][-1],
        root_hash=root_hash,
        ranks=tuple(str(one) for one in paths),
        parted=parted,
    )


def _join_entries(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the job's entry of a boundary: every field of every rank, and the hash of each rank's entry."""
    held = dict(_of_ranks(entries))
    return {
        "step": entries[0]["step"],
        "holds": held,
        "ranks": [entry["entry"] for entry in entries],
    }


def _of_ranks(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(entries):
        for name, value in fields(entry).items():
            yield f"{name}{OF_RANK}{number}", value
