"""Pilot run: run a script once up to the fork, in a child, to find its sources and its probe inputs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from bygones.attach.isolation.fork import Parent, scratch_folder, why_not_fork
from bygones.attach.isolation.script import Script, own_files
from bygones.attach.isolation.warmup import imported_libraries, versions
from bygones.attach.live_run import Live, settle
from bygones.attach.observed_models import observe_models
from bygones.attach.probe_inputs import Inputs, Listener, marked_inputs, observe
from bygones.attach.watched_process import Ending, WatchedProcess, run_by_slowest
from bygones.attach.worker_emulation import NotInProcess
from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ScriptError
from bygones.core.study_facts import OrderFacts
from bygones.scripts.measured_lifetime import (
    decaying_sources,
    halve,
    kept_fraction,
    measured_words,
)
from bygones.scripts.rng_contract import carried_contract
from bygones.study.describe import describe_sources, state_bytes

Query = Callable[[Live], Any]  # called while the script is alive


@dataclass(frozen=True)
class PilotResult:
    """What the pilot run found. `why_not_fork`: in words; `answer`: of the query."""

    script: Script
    sources: list[dict[str, Any]]
    why_not_fork: str | None
    chain: list[str]
    inputs: Inputs | None
    why_no_inputs: BygonesError | None
    shape: tuple[int, ...]
    models: tuple[str, ...]  # that are alive beside the trained one
    seconds_a_step: float
    snapshot_bytes: int
    order: OrderFacts
    libraries: tuple[str, ...]
    num_workers: int
    threads: int
    emulates: bool  # whether loaders' workers were emulated in this process
    rng: dict[str, Any]  # the RNG contract, see `bygones.scripts.rng_contract`
    answer: Any


def run_pilot(
    script: Script,
    home: Path,
    seed: int,
    at: int,
    query: Query = lambda live: None,
    probe: Callable[[Any], Any] | None = None,
    *,
    emulates: bool = True,
) -> PilotResult:
    """Run a script to the boundary `at` and find its memory. Raises `ScriptError` if it ends earlier.

    `query` is called with the live run at the boundary. `probe`: the user's function to observe. Where
    several optimizers take turns, the script is run again, counting by the one that closes a round.
    """
    if at < 1:
        raise ScriptError(
            f"a script's boundary lies after a step, so the fork is at step 1 or later; got {at}."
        )
    try:
        with scratch_folder() as folder:
            _, found = run_by_slowest(
                lambda script, parent: PilotProcess(
                    script, home, seed, folder, parent, at, query, probe, emulates
                ),
                script,
                killed=f"{script} was killed in its first run, before step {at} (out of memory?).",
            )
    except NotInProcess as error:
        if not emulates:
            raise
        real = run_pilot(script, home, seed, at, query, probe, emulates=False)
        return replace(real, why_not_fork=str(error))
    return found


class PilotProcess(WatchedProcess):
    """Run a script up to the boundary `at`, and reply a `PilotResult`."""

    def __init__(
        self,
        script: Script,
        home: Path,
        seed: int,
        folder: Path,
        parent: Parent,
        at: int,
        query: Query,
        probe: Callable[[Any], Any] | None,
        emulates: bool,
    ) -> None:
        stops = frozenset({at})
        super().__init__(script, home, seed, folder, parent, emulates=emulates, stops=stops)
        self.at, self.query, self.probe = at, query, probe
        self.listener = Listener()
        self.modules_before = frozenset(sys.modules)
        self.began = time.perf_counter()
        self.lifetimes: dict[str, str] = {}  # that the run contradicts, by source

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self.listener.recording_losses(), super().watching():
            yield

    def before_first(self) -> None:
        super().before_first()
        assert self.baseline is not None
        self.listener.attach(self.baseline.trained)
        self.began = time.perf_counter()

    def on_batch(self, batch: Any) -> None:
        self.listener.delivered(batch)

    def at_boundary(self, step: int) -> None:
        """Reply the result, or another optimizer to count by; the script goes no further."""
        if self.is_arm:
            self._reply_states()
        seconds = (time.perf_counter() - self.began) / max(step - 1, 1)
        self.check_optimizer()
        if not self._measure_lifetimes(step):
            return  # this is a fork, which goes on
        try:
            self.parent.reply_and_exit(self._result(seconds))
        except BygonesError as error:
            self.refuse(error)

    def _measure_lifetimes(self, step: int) -> bool:
        """Let one step pass in two forks, and compare what it keeps. Returns False in a fork."""
        live = self.find_live()
        names = decaying_sources(live)
        # A step of one rank alone would wait for the others.
        if not names or self.rank is not None or why_not_fork() is not None:
            return True
        before = {name: live.sources[name].capture() for name in names}
        after = []
        for halved in (False, True):
            child = self.fork_arm(self.folder / "step")
            if child is None:
                self.clock.stop_only_at(step + 1)
                for name in names if halved else ():
                    live.sources[name].restore(halve(before[name]))
                return False
            after.append(self.wait_for_arm(child))
        if all(after):
            kept = {name: kept_fraction(before[name], *(a[name] for a in after)) for name in names}
            self.lifetimes = measured_words(live, kept)
        return True

    def _reply_states(self) -> NoReturn:
        live = self.find_live()
        self.parent.reply_and_exit({n: live.sources[n].capture() for n in decaying_sources(live)})

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            self.parent.reply_and_exit({})
        where = f"step {self.at}, where it was to be forked"
        self.refuse(self.ended_early(ending, where))

    def _result(self, seconds: float) -> PilotResult:
        assert self.baseline is not None
        live = self.find_live()
        settle(live)
        why = why_not_fork()
        libraries = imported_libraries(self.modules_before)
        inputs, why_no_inputs = self._inputs(live)
        shape: tuple[int, ...] = ()
        models: tuple[str, ...] = ()
        if inputs is not None:
            outputs, labels = observe(inputs, live)
            shape = outputs.shape
            models = tuple(name for name in observe_models(inputs, live) if name)
            if self.probe is not None and labels is not None:
                inputs = replace(inputs, labels=labels, kind="logits")
        files, record = own_files(self.file), self.clock.record
        return PilotResult(
            script=replace(self.script, files=files, versions=versions(libraries)),
            sources=_with_digests(live, self.lifetimes),
            why_not_fork=why,
            chain=list(record.batches.steps),
            inputs=inputs,
            why_no_inputs=why_no_inputs,
            shape=shape,
            models=models,
            seconds_a_step=seconds,
            snapshot_bytes=sum(state_bytes(s.capture()) for s in live.sources.values()),
            order=_policy(record.loader),
            libraries=libraries,
            num_workers=record.num_workers,
            threads=torch.get_num_threads(),
            emulates=self.emulates,
            rng=carried_contract(live, self.baseline, self.script, self.clock),
            answer=self.query(live),
        )

    def _inputs(self, live: Live) -> tuple[Inputs | None, BygonesError | None]:
        try:
            label = live.clocked_module(self.clock.optimizers[self.script.clock])
            if self.probe is not None:
                path = f"{label}/"
                given = Inputs(path, (), None, "values", "the given probe", self.probe)
                return given, None
            return marked_inputs(live.trained) or self.listener.inputs(label), None
        except BygonesError as error:
            return None, error


def _with_digests(live: Live, lifetimes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the inventory, with the digest of each source's state, and lifetimes that were measured."""
    found = []
    for row in describe_sources(live):
        held = digest(live.sources[row.name].capture())
        lifetime = lifetimes.get(row.name, row.lifetime)
        found.append({**row.to_dict(), "lifetime": lifetime, "digest": held})
    return found


def _policy(iterator: _BaseDataLoaderIter | None) -> OrderFacts:
    """Return name and hash of the sampler that decides the order."""
    if iterator is None:
        return OrderFacts("drawn by the script itself")
    sampler: Any = iterator._index_sampler
    inner = getattr(sampler, "sampler", None)
    name = f"{type(sampler).__name__}({type(inner).__name__})" if inner else type(sampler).__name__
    return OrderFacts(name, digest([name, getattr(sampler, "batch_size", 0)]))
