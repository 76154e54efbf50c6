"""Recording: write the ledger of a script's real run, in its own folder and with its own output.

The run is watched and never changed. At each recorded boundary the live objects are found again, since a
script creates and drops them freely, and the state of each source is hashed. This takes some milliseconds
an entry; `every` sets how often.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from bygones.attach.isolation.script import Script, check_script, own_files
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import Live
from bygones.attach.watched_process import Ending, WatchedScript
from bygones.core.errors import BygonesError, DesignError, ScriptError
from bygones.core.text import format_count
from bygones.scripts.rng_contract import carried_contract
from bygones.store.ledger import Writer, refuse_existing
from bygones.study.record import Recorded
from bygones.training.contract import Contract


@dataclass(frozen=True)
class ScriptRecorded(Recorded):
    """The ledger that was written.

    `counted`: the optimizer that boundaries are counted by; `closes`: the one that closes a round.
    """

    seconds_an_entry: float
    counted: int
    closes: int

    def __str__(self) -> str:
        text = f"{super().__str__()} Each took {1e3 * self.seconds_an_entry:.1f} ms."
        if self.counted != self.closes:
            text += (
                f" Several optimizers take turns, and boundaries were counted by number {self.counted}; "
                f"--optimizer {self.closes} counts by the one that closes a round."
            )
        return text


def record_script(script: Script, home: Path, seed: int, every: int, path: Path) -> ScriptRecorded:
    """Run the script as the main program to its end, and write its ledger at every `every`-th boundary.

    If the script raises, its traceback is printed and the process exits as Python would; the ledger is then
    left without its last line.
    """
    if every < 1:
        raise DesignError(f"--every counts boundaries, 1 or more; got {every}.")
    check_script(script)
    path = path.absolute()  # the script may go to another folder
    refuse_existing(path)
    recorder = Recorder(script, home, seed, every, path)
    warm()  # freezes what torch has made so far, which makes finding objects ten times faster
    try:
        ending = recorder.execute()
    except BygonesError:
        recorder.leave()
        raise
    if ending.failed:
        recorder.leave()
        _exit_as_python_does(ending)
    return recorder.end()


class Recorder(WatchedScript):
    """A script that is recorded into the ledger at `path`, at every `every`-th boundary."""

    def __init__(self, script: Script, home: Path, seed: int, every: int, path: Path) -> None:
        super().__init__(script, home, seed, stops=None)
        self.key_seed = (
            0  # one for all runs: the keys of streams are bygones' own, not the script's
        )
        self.every, self.path = every, path
        self.writer: Writer | None = None
        self.last = -1
        self.count = 0
        self.seconds = 0.0

    def end(self) -> ScriptRecorded:
        """Write the last entry and the last line. Raises `ScriptError` if no step was counted."""
        if self.baseline is None or self.clock.step == 0:
            raise ScriptError(
                f"{self.script.path} came to its end without a step of any torch optimizer that is counted "
                f"in this process, so there is no boundary to write down."
            )
        if self.clock.step > self.last:
            self.add()
        assert self.writer is not None
        return ScriptRecorded(
            path=str(self.path),
            entries=self.count,
            until=self.last,
            root_hash=self.writer.end(),
            seconds_an_entry=self.seconds / self.count,
            counted=self.clock.optimizer,
            closes=self.clock.slowest_optimizer(),
        )

    def leave(self) -> None:
        """Close the ledger of a script that failed, without its last line, and say so."""
        if self.writer is None:
            text = f"{self.script.path} wrote no ledger: it ended before the first boundary to write down"
        else:
            self.writer.close()
            count = format_count(self.count, "entry", "entries")
            text = f"{self.path} has {count}, up to boundary {self.last}, and no last line"
        print(f"bygones: {text}, since the script did not come to its end.", file=sys.stderr)

    def at_boundary(self, step: int) -> None:
        if step % self.every == 0:
            self.add()

    def add(self) -> None:
        if self.writer is None:
            self.writer = Writer(self.path, self.header(self.find_live()))
        began = time.perf_counter()
        self.writer.add(self.find_live().entry())
        self.last = self.clock.step
        self.count += 1
        self.seconds += time.perf_counter() - began

    def header(self, live: Live) -> dict[str, Any]:
        assert self.baseline is not None
        devices = {str(p.device.type) for p in live.parameters.values()}
        contract = replace(
            Contract.here(),
            device=" and ".join(sorted(devices)) or "cpu",
            threads=torch.get_num_threads(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return {
            "run": str(self.script),
            "files": dict(own_files(self.file)),
            "seed": self.seed,
            "seeded_by": self.script.seeded_by,
            "optimizer": self.clock.optimizer,
            "every": self.every,
            "contract": contract.to_dict(),
            "rng": carried_contract(live, self.baseline, self.script, self.clock),
        }


def _exit_as_python_does(ending: Ending) -> NoReturn:
    """Exit with the script's own code; print the traceback of what it raised, without bygones' frames."""
    error = ending.error
    assert error is not None
    if not ending.raised:
        raise error  # its call of sys.exit
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("bygones"):
        place = place.tb_next
    sys.excepthook(type(error), error.with_traceback(place), place)
    sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
