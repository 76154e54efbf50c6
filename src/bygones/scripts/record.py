"""A script's own run, written down boundary by boundary: in its own folder, with its own files and output.

This is the real run and no copy of it. It is watched, and never touched: at each boundary that is written
down, what is alive is looked for anew, since a script makes and drops objects as it likes, and what each
source holds is hashed. That takes some milliseconds an entry; `every` says how often.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from bygones.attach.isolation.script import Script, check_script, own_files, run_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import Baseline, Live
from bygones.attach.step_clock import Clock
from bygones.core.errors import BygonesError, DesignError, ScriptError
from bygones.scripts.rng_contract import carried_contract
from bygones.store.ledger import Writer, refuse_existing
from bygones.study.record import Recorded
from bygones.training.contract import Contract

# Keys of streams and orders are named after a seed by bygones, and so are no part of what a script carries:
# with one seed for all runs they never differ.
_NO_SEED = 0


@dataclass(frozen=True)
class ScriptRecorded(Recorded):
    """`counted`: the optimizer that boundaries are counted by; `closes`: the one that closes a round."""

    seconds_an_entry: float
    counted: int
    closes: int

    def __str__(self) -> str:
        said = f"{super().__str__()} Each took {1e3 * self.seconds_an_entry:.1f} ms."
        if self.counted != self.closes:
            said += (
                f" Several optimizers take turns, and boundaries were counted by number {self.counted}; "
                f"--optimizer {self.closes} counts by the one that closes a round."
            )
        return said


def record_script(script: Script, home: Path, seed: int, every: int, path: Path) -> ScriptRecorded:
    """Runs the script as the main program to its end, and writes its ledger.

    What the script raises is shown as Python shows it, and ends the process with its exit code; the
    ledger is then left without its last line.
    """
    if every < 1:
        raise DesignError(f"--every counts boundaries, 1 or more; got {every}.")
    check_script(script)
    path = path.absolute()  # the script may go to another folder
    refuse_existing(path)
    recorder = _Recorder(script, home, seed, every, path)
    warm()  # what torch has made so far is not looked at: a tenth of the time
    try:
        with recorder.clock.listening():
            run_script(script, seed, home)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            recorder.leave()
            raise
    except BygonesError:
        recorder.leave()
        raise
    except BaseException as error:
        recorder.leave()
        _end_as_python_does(error)
    return recorder.end()


class _Recorder:
    def __init__(self, script: Script, home: Path, seed: int, every: int, path: Path) -> None:
        self.script, self.seed, self.every, self.path = script, seed, every, path
        self.file = home / script.path
        self.clock = Clock(script.clock)
        self.clock.stops = None
        self.clock.before_first = self._first_look
        self.clock.at_boundary = self._at_boundary
        self.first: Baseline | None = None
        self.writer: Writer | None = None
        self.last = -1
        self.count = 0
        self.seconds = 0.0

    def end(self) -> ScriptRecorded:
        """The script came to its end: its last entry, and the last line."""
        if self.first is None or self.clock.step == 0:
            raise ScriptError(
                f"{self.script.path} came to its end without a step of any torch optimizer that is counted "
                f"in this process, so there is no boundary to write down."
            )
        if self.clock.step > self.last:
            self._add()
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
        """The script did not come to its end: what was written stays, without the last line."""
        if self.writer is None:
            said = f"{self.script.path} wrote no ledger: it ended before the first boundary to write down"
        else:
            self.writer.close()
            count = "1 entry" if self.count == 1 else f"{self.count} entries"
            said = f"{self.path} has {count}, up to boundary {self.last}, and no last line"
        print(f"bygones: {said}, since the script did not come to its end.", file=sys.stderr)

    def _first_look(self) -> None:
        self.first = Baseline(self.file, self.clock, _NO_SEED)

    def _at_boundary(self, step: int) -> None:
        if step % self.every == 0:
            self._add()

    def _add(self) -> None:
        assert self.first is not None
        if self.writer is None:
            live = Live(self.file, self.clock, _NO_SEED, self.first, {})
            self.writer = Writer(self.path, self._header(live, self.first))
        began = time.perf_counter()
        live = Live(self.file, self.clock, _NO_SEED, self.first, {})
        self.writer.add(live.entry())
        self.last = self.clock.step
        self.count += 1
        self.seconds += time.perf_counter() - began

    def _header(self, live: Live, first: Baseline) -> dict[str, Any]:
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
            "rng": carried_contract(live, first, self.script, self.clock),
        }


def _end_as_python_does(error: BaseException) -> NoReturn:
    """The traceback from the script's own first line on, and the exit code."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("bygones"):
        place = place.tb_next
    sys.excepthook(type(error), error.with_traceback(place), place)
    sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
