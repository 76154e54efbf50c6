"""The first run of a script, up to the fork: which memory it has, what can be asked of it, and how.

It happens in a child of which nothing is left but the answer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from bygones.attach.isolation.fork import (
    ChildDied,
    Parent,
    fork,
    scratch_folder,
    why_not_fork,
)
from bygones.attach.isolation.overlay import Overlay, guarding_native_writes
from bygones.attach.isolation.script import Script, own_files, run_script
from bygones.attach.isolation.warmup import imported_libraries, versions
from bygones.attach.live_run import Baseline, Live, settle
from bygones.attach.probe_inputs import Inputs, Listener, marked_inputs, observe
from bygones.attach.step_clock import Clock
from bygones.attach.watched_process import over_too_soon, redirect_output
from bygones.attach.worker_emulation import NotInProcess, emulating
from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.study_facts import OrderFacts
from bygones.scripts.rng_contract import carried_contract
from bygones.study.describe import describe_sources, state_bytes

Ask = Callable[[Live], Any]  # something to find out while the script is alive


@dataclass(frozen=True)
class PilotResult:
    """What the first run found. `clock`: the optimizer that closes a round; `why_not_fork` in words."""

    script: Script
    sources: list[dict[str, Any]]
    why_not_fork: str | None
    chain: list[str]
    inputs: Inputs | None
    why_no_inputs: BygonesError | None
    shape: tuple[int, ...]
    seconds_a_step: float
    snapshot_bytes: int
    order: OrderFacts
    libraries: tuple[str, ...]
    num_workers: int
    threads: int
    emulates: bool  # whether loaders' workers were emulated in this process
    rng: dict[str, Any]  # the RNG contract, as `script.carried` writes it down
    answer: Any


def run_pilot(
    script: Script,
    home: Path,
    seed: int,
    at: int,
    ask: Ask = lambda live: None,
    probe: Callable[[Any], Any] | None = None,
    *,
    emulates: bool = True,
) -> PilotResult:
    """Runs a script to the boundary `at` and looks around; raises its sentence if it does not get there.

    Where several optimizers take turns, the one that closes a round is counted by, which shows only
    once they have: then the first run is done again with that one.
    """
    if at < 1:
        raise ScriptError(
            f"a script's boundary lies after a step, so the fork is at step 1 or later; got {at}."
        )
    try:
        said = _run(script, home, seed, at, ask, probe, emulates)
    except NotInProcess as error:
        if not emulates:
            raise
        real = run_pilot(script, home, seed, at, ask, probe, emulates=False)
        return replace(real, why_not_fork=str(error))
    if isinstance(said, int):
        script = replace(script, clock=said)
        said = _run(script, home, seed, at, ask, probe, emulates)
    assert isinstance(said, PilotResult)
    return said


def _run(
    script: Script,
    home: Path,
    seed: int,
    at: int,
    ask: Ask,
    probe: Callable[[Any], Any] | None,
    emulates: bool,
) -> Any:
    with scratch_folder() as folder:
        side = fork()
        if isinstance(side, Parent):
            _Scout(script, home, seed, at, ask, probe, side).run(folder, emulates)
        said = side.wait()
    if said is None:
        raise ScriptError(
            f"{script} was killed in its first run, before step {at} (out of memory?)."
        ) from ChildDied()
    if isinstance(said, BygonesError):
        raise said
    return said


class _Scout:
    def __init__(
        self,
        script: Script,
        home: Path,
        seed: int,
        at: int,
        ask: Ask,
        probe: Callable[[Any], Any] | None,
        parent: Parent,
    ) -> None:
        self.script, self.home, self.seed, self.at = script, home, seed, at
        self.ask, self.probe, self.parent = ask, probe, parent
        self.clock = Clock(script.clock)
        self.clock.stops = frozenset({at})
        self.clock.before_first = self._before_first
        self.clock.at_boundary = self._arrived
        self.listener = Listener()
        self.clock.on_batch = self.listener.delivered
        self.modules_before = frozenset(sys.modules)
        self.first: Baseline | None = None
        self.began = time.perf_counter()

    def run(self, folder: Path, emulates: bool) -> NoReturn:
        self.emulates = emulates
        redirect_output(folder)
        Overlay(self.home, folder / "files", allowed=(folder,)).enter()
        try:
            with (
                self.clock.listening(),
                self.listener.hearing_losses(),
                guarding_native_writes(),
                emulating() if emulates else nullcontext(),
            ):
                run_script(self.script, self.seed, self.home)
        except BygonesError as error:
            self.parent.reply_and_exit(error)
        except SystemExit as leaving:
            self._too_soon(f"called sys.exit({leaving.code!r})")
        except BaseException as error:
            self._too_soon(f"raised {type(error).__name__}: {error}")
        self._too_soon("came to its end")

    def _too_soon(self, how: str) -> NoReturn:
        where = f"step {self.at}, where it was to be forked"
        self.parent.reply_and_exit(
            over_too_soon(self.script, how, self.clock.step, where, self.clock)
        )

    def _before_first(self) -> None:
        path = self.home / self.script.path
        self.first = Baseline(path, self.clock, self.seed)
        self.listener.attach(self.first.trained)
        self.began = time.perf_counter()

    def _arrived(self, step: int) -> None:
        """At the boundary: everything is asked here, and the script goes no further."""
        seconds = (time.perf_counter() - self.began) / max(step - 1, 1)
        turn = self.clock.slowest_optimizer()
        if turn != self.script.clock:
            self.parent.reply_and_exit(turn)
        try:
            self._look_around(seconds)
        except BygonesError as error:
            self.parent.reply_and_exit(error)

    def _look_around(self, seconds: float) -> NoReturn:
        assert self.first is not None
        live = Live(self.home / self.script.path, self.clock, self.seed, self.first, {})
        settle(live)
        why = why_not_fork()
        libraries = imported_libraries(self.modules_before)
        inputs, why_no_inputs = self._inputs(live)
        shape: tuple[int, ...] = ()
        if inputs is not None:
            outputs, labels = observe(inputs, live)
            shape = outputs.shape
            if self.probe is not None and labels is not None:
                inputs = replace(inputs, labels=labels, kind="logits")
        self.parent.reply_and_exit(
            PilotResult(
                script=replace(
                    self.script,
                    files=own_files(self.home / self.script.path),
                    versions=versions(libraries),
                ),
                sources=_with_digests(live),
                why_not_fork=why,
                chain=list(self.clock.delivered.steps),
                inputs=inputs,
                why_no_inputs=why_no_inputs,
                shape=shape,
                seconds_a_step=seconds,
                snapshot_bytes=sum(state_bytes(s.capture()) for s in live.sources.values()),
                order=_policy(self.clock),
                libraries=libraries,
                num_workers=self.clock.num_workers,
                threads=torch.get_num_threads(),
                emulates=self.emulates,
                rng=carried_contract(live, self.first, self.script, self.clock),
                answer=self.ask(live),
            )
        )

    def _inputs(self, live: Live) -> tuple[Inputs | None, BygonesError | None]:
        try:
            label = live.clocked_module(self.clock.seen[self.script.clock])
            if self.probe is not None:
                path = f"{label}/"
                given = Inputs(path, (), None, "values", "the given probe", self.probe)
                return given, None
            return marked_inputs(live.trained) or self.listener.inputs(label), None
        except BygonesError as error:
            return None, error


def _with_digests(live: Live) -> list[dict[str, Any]]:
    """The inventory, with the digest of what each source holds here."""
    return [
        {**row.to_dict(), "digest": digest(live.sources[row.name].capture())}
        for row in describe_sources(live)
    ]


def _policy(clock: Clock) -> OrderFacts:
    """The sampler that decides the order, by name."""
    iterator = clock.loader
    if iterator is None:
        return OrderFacts("drawn by the script itself")
    sampler: Any = iterator._index_sampler
    inner = getattr(sampler, "sampler", None)
    name = f"{type(sampler).__name__}({type(inner).__name__})" if inner else type(sampler).__name__
    return OrderFacts(name, digest([name, getattr(sampler, "batch_size", 0)]))
