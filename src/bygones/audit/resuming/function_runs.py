"""Runs of functions in one process: uninterrupted, resumed, and arms that replay the first up to a boundary.

    whole     make, train(at), save, train(rest)
    resumed   make, load, train(rest)
    arm       make, train(at), save, one source as the resumed run held it, or new; train(rest)

Each begins with the same states of the global generators, and with what the functions reach outside of the
state as it was at first, as a new process would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bygones.attach.discovery import HeldObjects
from bygones.attach.isolation.script import seed_everything
from bygones.attach.live_run import Baseline, KnownMemory, Live
from bygones.attach.sources.carried_streams import but_keys
from bygones.attach.sources.plain_data import arrays_in
from bygones.attach.step_clock import Clock
from bygones.audit.continuation import (
    Continuation,
    capture_sources,
    ended_continuation,
    plain_values,
    steps_since,
    untried,
)
from bygones.audit.resume_runs import Held
from bygones.audit.resuming.function_roots import OuterMemory, function_roots, state_roots
from bygones.core.digest import as_array
from bygones.core.errors import DesignError, RecipeError
from bygones.core.hash_chain import fast_digest
from bygones.core.values import State


@dataclass(frozen=True)
class Functions:
    """What is checked: four functions of a state, and how its function is observed."""

    make: Callable[[], Any]
    train: Callable[[Any, int], Any]
    save: Callable[[Any, Path], Any]
    load: Callable[[Any, Path], Any]
    probe: Callable[[Any], Any] | None = None

    @property
    def roots(self) -> list[tuple[str, Any, Any]]:
        named = {"make": self.make, "train": self.train, "save": self.save, "load": self.load}
        return function_roots(named)


@dataclass
class FunctionRun:
    """One run: its state and clock, and what is known of its memory."""

    functions: Functions
    seed: int
    state: Any
    clock: Clock
    baseline: Baseline
    since: int = 0  # updates before the boundary
    passes: int = 0  # backward passes of the step that was under way at the boundary

    @property
    def clocked(self) -> Any:
        """What a continuation is read from: an object with this clock."""
        return SimpleNamespace(clock=self.clock)

    def live(self, known: KnownMemory | None = None) -> Live:
        """Find the sources of memory that the run has now."""
        roots = _held(self.functions, self.state)
        return Live(roots, self.clock, self.seed, self.baseline, {}, known)

    def train(self, steps: int) -> None:
        with self.clock.listening():
            self.functions.train(self.state, steps)

    def begin_comparison(self) -> None:
        """Count steps and batches of the continuation from here on."""
        self.since = self.clock.step
        self.passes = self.clock.record.open_backward_calls

    def hold(self, known: KnownMemory) -> Held:
        """Copy what the run holds now."""
        live = self.live(known)
        return Held(capture_sources(live), plain_values(live), live.roots)

    def continuation(self, known: KnownMemory) -> Continuation:
        """Return how the run went on since `begin_comparison`."""
        live = self.live(known)
        states = {
            name: fast_digest(but_keys(source.capture()))
            for name, source in live.sources.items()
            if name != "order" and not source.is_result
        }
        steps = steps_since(self.clocked, self.since, self.passes)
        return Continuation(self._outputs(live), states, *steps, roots=live.roots)

    def _outputs(self, live: Live) -> dict[str, np.ndarray]:
        """Return what the probe sees of the state, else the weights; and each average's own weights."""
        seen: dict[str, np.ndarray] = {}
        if self.functions.probe is not None:
            with torch.no_grad():
                seen[""] = _row(self.functions.probe(self.state))
        elif "weights" in live.sources:
            seen[""] = _flat(live.sources["weights"].capture())
        for name, source in live.sources.items():
            if source.origin == "averaging":
                seen[name] = _flat(source.capture())
        return {name: values for name, values in seen.items() if values.size}


@dataclass
class Runner:
    """Begins runs of the same functions, each as in a new process. `at`, `until`: steps of `train`."""

    functions: Functions
    at: int
    until: int
    seed: int
    folder: Path
    known: KnownMemory = field(default_factory=KnownMemory)
    made: list[Any] = field(
        default_factory=list
    )  # kept alive, so that identities are not used again

    def __post_init__(self) -> None:
        self.outer = OuterMemory(self.functions.roots)

    def make(self, seed: int | None = None) -> FunctionRun:
        """Build a new state from the seed."""
        self.outer.restore()
        seed_everything(self.seed if seed is None else seed)
        state = self.functions.make()
        clock = Clock(keeps_batches=True)
        roots = _held(self.functions, state)
        run = FunctionRun(
            self.functions,
            self.seed,
            state,
            clock,
            Baseline(roots, clock, self.seed),
        )
        self._refuse_shared(run)
        return run

    def run_to_boundary(self, path: Path, seed: int | None = None) -> FunctionRun:
        """Train a new run up to the boundary, and save it there."""
        run = self.make(seed)
        run.train(self.at)
        self.functions.save(run.state, path)
        run.begin_comparison()
        return run

    def run_arm(self, treat: Callable[[FunctionRun], None]) -> Continuation:
        """Replay the run up to the boundary, treat it there, and return how it goes on."""
        run = self.run_to_boundary(self.folder / "arm.pt")
        try:
            treat(run)
        except (RecipeError, KeyError) as error:
            return untried(str(error))
        return self.finish(run)

    def finish(self, run: FunctionRun) -> Continuation:
        """Train to the last step, and return how the run went on; one that raises ends there."""
        try:
            run.train(self.until - self.at)
        except Exception as error:
            how = f"raised {type(error).__name__}" + (f": {error}" if str(error) else "")
            return ended_continuation(run.clocked, how, run.since, run.passes)
        return run.continuation(self.known)

    def resume(self, path: Path) -> FunctionRun:
        """Build a new run, and load the checkpoint into it."""
        run = self.make()
        loaded = self.functions.load(run.state, path)
        if loaded is not None and type(loaded) is type(run.state):
            run.state = loaded  # a load that returns the state, in place of changing it
        return run

    def _refuse_shared(self, run: FunctionRun) -> None:
        """Raise `DesignError` if two calls of `make` return states that share parameters."""
        mine = [p for module in run.baseline.trained.values() for p in module.parameters()]
        shared = {id(p) for p in self.made} & {id(p) for p in mine}
        if shared:
            raise DesignError(
                "make() returned the same model twice, so that no run could be told from the one before. "
                "Build model and optimizer inside make()."
            )
        self.made += mine


def _held(functions: Functions, state: Any) -> HeldObjects:
    return HeldObjects((*state_roots(state), *functions.roots))


def _flat(state: State) -> np.ndarray:
    """Return all arrays of a state as one row [1, N] of float64."""
    rows = [_row(array) for leaf, value in state.items() for _, array in arrays_in(leaf, value)]
    return np.concatenate(rows, axis=1) if rows else np.zeros((1, 0))


def _row(array: Any) -> np.ndarray:
    """Return the numbers of an array as one row [1, N] of float64."""
    if isinstance(array, torch.Tensor):
        array = array.detach().to("cpu", torch.float64)
    return np.asarray(as_array(array), np.float64).reshape(1, -1)


def trim_to(run: Continuation, control: Continuation) -> Continuation:
    """Return a resumed run's continuation without the batches that it fetched only to skip them."""
    contents, indices = list(run.contents), list(run.indices)
    if contents and control.contents:
        size = len(control.contents[0])
        if 0 < size < len(contents[0]):
            contents[0], indices[0] = contents[0][-size:], indices[0][-size:]
    return replace(run, contents=tuple(contents), indices=tuple(indices))
