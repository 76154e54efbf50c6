"""Resume check of one seed: run the script uninterrupted, interrupted, resumed and with arms, and judge."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bygones.attach.isolation.fork import Parent
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter
from bygones.attach.isolation.script import Script
from bygones.attach.isolation.warmup import warm_for
from bygones.attach.job.watched import run_ranks
from bygones.attach.watched_process import (
    CannotFork,
    WatchedProcess,
    run_by_slowest,
    run_in_child,
)
from bygones.audit.continuation import (
    NOT_RUN,
    Continuation,
    function_distance,
    same_continuation,
    trained_shapes,
)
from bygones.audit.resume_arms import ForkedArms, ForkingRun, try_groups
from bygones.audit.resume_runs import (
    InterruptedRun,
    Interruption,
    ReferenceRun,
    ResumedRun,
    ResumedState,
    WholeRun,
)
from bygones.audit.resume_verdicts import Verdict, judge, judge_again
from bygones.audit.resuming.causes import note_unexplained, run_search
from bygones.audit.resuming.changed_settings import ChangedRunner
from bygones.audit.resuming.costs import SeedResult
from bygones.audit.resuming.files_verdict import FinishedRuns, judge_files
from bygones.audit.resuming.other_seed import OtherSeedRun
from bygones.audit.resuming.ranks import gather_ranks, name_ranks, of_rank
from bygones.audit.resuming.request import ResumeRequest
from bygones.core.errors import DesignError, ForkError, ScriptError
from bygones.core.first_difference import first_differing_index

_OTHER_SEED = 1_000_003  # added to a seed for the run that the ceiling is measured against


# A second uninterrupted run: the interpreter that it ran in, what it replied, and its folder.
_Repeated = tuple[FreshInterpreter | None, ReferenceRun, Path]


class SeedCheck:
    """The check of one seed.

    `folder`: where its files lie. `interpreter`: that of the resumed run; None: that of every run. `on_run`:
    called with the name of each run. `arms_at_once`: how many arms run side by side.
    """

    def __init__(
        self,
        request: ResumeRequest,
        home: Path,
        folder: Path,
        interpreter: FreshInterpreter | None,
        seed: int,
        on_run: Callable[[str], None] = lambda _: None,
        arms_at_once: int = 1,
    ) -> None:
        self.request, self.home, self.seed = request, home, seed
        self.folder, self.on_run = folder / str(seed), on_run
        self.interpreter, self.arms_at_once = interpreter, arms_at_once
        self.repeated: _Repeated | None = None
        self.other_seed: Mapping[str, np.ndarray] | None = None

    def check(self) -> SeedResult:
        """Run the script uninterrupted, interrupted, resumed and with arms, and judge every source."""
        whole, interrupted = self._interrupt()
        at = interrupted.step
        end = self._last_boundary(whole, at)
        resuming = replace(self.request.resumed, clock=whole.script.clock)
        resumed = self._resume(resuming, whole, interrupted, end)
        depends = self._depends_on_hashes(whole, resumed, end)
        if depends:  # what else is lost shows with the same hash seed
            resumed = self._resume_alike(resuming, whole, interrupted, end)
        assert resumed.start is not None
        if resumed.start.step == 0:
            given = self.request.resumed != self.request.whole
            return _begun_anew(whole, resumed, at, end, given=given)
        arms = self._fork_arms(whole, resumed, end)
        verdicts = judge(whole, resumed, arms, end)
        unexplained = _unexplained(verdicts, arms, resumed)
        verdicts = name_ranks([*depends, *verdicts], whole, resumed, arms)
        verdicts, notes = self._judge_files(verdicts, whole, resumed, arms)
        if self.request.again is not None:
            once, twice = self._resume_again(resuming, whole, resumed, interrupted, end)
            verdicts = judge_again(verdicts, resumed, once, twice)
        changed = None
        if self.request.other_settings:
            changed = self._change(whole, resuming).compare(
                resumed, arms.continuations["carried"], interrupted, end
            )
        ceiling = self._ceiling(whole, arms, end)
        return SeedResult(
            whole, resumed, arms, at, end, verdicts, ceiling, (*unexplained, *notes), changed
        )

    # -------------------------------------------------------------- runs

    def _run(
        self,
        make: Callable[..., WatchedProcess],
        script: Script,
        name: str,
        *given: Any,
        empty: bool = True,
        interpreter: FreshInterpreter | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Any:
        """Run one process, during which `meanwhile()` is called, or all of a job.

        Resumed runs find the files of the interrupted one in their folder.
        """
        self.on_run(name)
        folder = self.folder / {"resumed": "interrupted"}.get(name, name.split()[-1])
        if script.processes:
            return self._run_job(make, script, folder, given, empty=empty)
        _, reply = run_by_slowest(
            lambda script, parent: make(*given, script, self.home, self.seed, folder, parent),
            script,
            empty=empty,
            interpreter=interpreter,
            meanwhile=meanwhile,
        )
        return reply

    def _run_job(
        self,
        make: Callable[..., WatchedProcess],
        script: Script,
        folder: Path,
        given: tuple[Any, ...],
        *,
        empty: bool = True,
        seed: int | None = None,
    ) -> Any:
        """Run all ranks of a job, each with its own part of what earlier runs found; gather their replies."""
        seed = self.seed if seed is None else seed

        def make_rank(script: Script, number: int, parent: Parent) -> WatchedProcess:
            own = (of_rank(value, number) for value in given)
            return make(*own, script, self.home, seed, folder, parent)

        _, replies = run_ranks(
            make_rank, script, folder, empty=empty, patience=self.request.patience
        )
        return gather_ranks(replies)

    def _run_whole(self, look_at: int) -> ReferenceRun:
        whole: ReferenceRun = self._run(WholeRun, self.request.whole, "uninterrupted", look_at)
        self._import_libraries(whole)
        return whole

    def _import_libraries(self, whole: ReferenceRun) -> None:
        """Import what a run imported, here and in the other interpreter, for the runs to come."""
        other = self.interpreter
        if other is not None and whole.can_fork:  # it imports them while this process does
            other.warm(whole.libraries)
        harmless = warm_for(whole.libraries, known_to_fork=whole.can_fork)
        if other is not None and harmless and not whole.can_fork:
            other.warm(whole.libraries)

    def _repeat(self, script: Script) -> _Repeated:
        """Run the script uninterrupted, with the hash seed of the resumed run; once for all who ask."""
        done = self.repeated
        if done is None or done[0] is not self.interpreter or done[1].script.clock != script.clock:
            other, name = self.interpreter, "uninterrupted, repeated"
            if other is not None:
                name = "uninterrupted, other hashes"
            whole: ReferenceRun = self._run(WholeRun, script, name, 1, interpreter=other)
            self._import_libraries(whole)
            done = self.repeated = other, whole, self.folder / name.split()[-1]
        return done

    def _interrupt(self) -> tuple[ReferenceRun, Interruption]:
        """Run the script uninterrupted and interrupted."""
        at, interrupted = self.request.at, self.request.interrupted
        if interrupted is not None:
            ended = self._run(InterruptedRun, interrupted, "interrupted", None)
            return self._run_whole(ended.step), ended
        if at is None:
            at = _default_interruption_step(self._repeat(self.request.whole)[1])
        whole = self._run_whole(at)
        return whole, self._run(InterruptedRun, whole.script, "interrupted", at)

    def _last_boundary(self, whole: ReferenceRun, at: int) -> int:
        """Return the last boundary to compare at. Raises `DesignError` if none is left."""
        request = self.request
        end = whole.last if request.horizon is None else min(whole.last, at + request.horizon)
        if end <= at:
            raise DesignError(
                f"{request.whole} takes {whole.steps} steps and is interrupted after {at}, so nothing is "
                f"left to compare. Interrupt it earlier (--at), or let it train for longer."
            )
        if request.again is not None and not at < request.again < end:
            raise DesignError(
                f"the second interruption has to lie after the first (step {at}) and before step {end}; got "
                f"--again {request.again}."
            )
        return end

    def _resume(
        self, resuming: Script, whole: ReferenceRun, interrupted: Interruption, end: int
    ) -> ResumedState:
        again = self.request.again
        if again is not None:
            for copy in ("again", "once"):
                shutil.copytree(self.folder / "interrupted", self.folder / copy, symlinks=True)
        for copy in self._copies():
            shutil.copytree(
                self.folder / "interrupted", self.folder / copy, symlinks=True, dirs_exist_ok=True
            )
        given = (whole, interrupted, end, again, self.request.horizon is None)
        resumed = self._run(
            ResumedRun,
            resuming,
            "resumed",
            *given,
            empty=False,
            interpreter=self.interpreter,
            meanwhile=lambda: self._run_other_seed(whole, end),
        )
        if resumed.start is None:
            raise ScriptError(
                f"the resumed run, {self.request.resumed}, {resumed.continuation.ended} without a training "
                f"step. Expected it to go on where the interrupted run stopped, after {interrupted.step} of "
                f"{whole.steps} steps."
            )
        return resumed

    def _copies(self) -> list[str]:
        """Return the folders in which the interrupted run's files are kept for later runs."""
        wanted = {
            "kept": self.interpreter is not None,
            "changed": bool(self.request.other_settings),
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def _change(self, whole: ReferenceRun, resuming: Script) -> ChangedRunner:
        request, folder = self.request, self.folder / "changed"
        return ChangedRunner(
            whole,
            resuming,
            request.then,
            request.then_env,
            self.home,
            self.seed,
            folder,
            self.on_run,
            self.interpreter,
        )

    def _depends_on_hashes(
        self, whole: ReferenceRun, resumed: ResumedState, end: int
    ) -> list[Verdict]:
        """Return a failure if two uninterrupted runs that differ by the hash seed alone are not the same.

        Tried only if the resumed run, which has another one, has other losses than the uninterrupted run.
        """
        start, theirs = resumed.start, resumed.continuation
        if self.interpreter is None or start is None or start.step == 0:
            return []
        mine = tuple(whole.losses[start.step : end])
        if start.placed_by == "weights" and not start.passes and theirs.losses == mine:
            return []
        step = first_differing_index(whole.losses, self._repeat(whole.script)[1].losses)
        if step is None:
            return []
        why = (
            f"two uninterrupted runs that differ by PYTHONHASHSEED alone have other losses from step {step} "
            f"on, and each Python draws this seed anew: the order of a set, hash(), or a generator that is "
            f"not seeded decides something"
        )
        return [Verdict("what follows from string hashes", "FAIL", why, first_loss=step)]

    def _resume_alike(
        self, resuming: Script, whole: ReferenceRun, interrupted: Interruption, end: int
    ) -> ResumedState:
        """Resume once more, from the same files and with the hash seed of the interrupted run."""
        self.interpreter = None
        for copy in ("interrupted", "again", "once"):
            shutil.rmtree(self.folder / copy, ignore_errors=True)
        shutil.copytree(self.folder / "kept", self.folder / "interrupted", symlinks=True)
        return self._resume(resuming, whole, interrupted, end)

    def _judge_files(
        self,
        verdicts: list[Verdict],
        whole: ReferenceRun,
        resumed: ResumedState,
        arms: ForkedArms,
    ) -> tuple[list[Verdict], list[str]]:
        """Judge what both runs wrote and printed, if both went to their end."""
        if resumed.finished is None:
            return verdicts, []
        folders = self.folder / "uninterrupted", self.folder / "interrupted"
        shapes = trained_shapes(arms.states)
        runs = FinishedRuns(
            *folders,
            lambda: self._repeat(whole.script)[2],
            shapes,
            overrun=not resumed.finished,
        )
        return judge_files(verdicts, runs)

    def _resume_again(
        self,
        resuming: Script,
        whole: ReferenceRun,
        resumed: ResumedState,
        interrupted: Interruption,
        end: int,
    ) -> tuple[ResumedState, ResumedState]:
        """Interrupt the resumed run and resume it. Returns it at that boundary, resumed once and twice."""
        assert resumed.start is not None
        assert self.request.again is not None
        again, stop = self.request.again, self.request.again - resumed.start.step
        ended = self._run(InterruptedRun, resuming, "interrupted again", stop, empty=False)
        ended = Interruption(again, None if ended.saved is None else ended.saved + again - stop)
        first = replace(
            whole,
            weights=_up_to(whole.weights, resumed.start.step) | resumed.weights,
            moments=_up_to(whole.moments, resumed.start.step) | resumed.moments,
        )
        twice = self._run(
            ResumedRun, resuming, "resumed again", first, ended, end, None, False, empty=False
        )
        begin = again if twice.start is None else twice.start.step
        given = (whole, interrupted, begin, begin, False)
        once = self._run(ResumedRun, resuming, "resumed once", *given, empty=False)
        return once, twice

    # -------------------------------------------------------------- arms and references

    def _fork_arms(self, whole: ReferenceRun, resumed: ResumedState, end: int) -> ForkedArms:
        """Run the arms of one forked process; where that is impossible, as for a job, each from the start."""
        try:
            if whole.ranks:
                raise CannotFork(str(whole.script), "a fork of a job's process has no other ranks")
            given = (whole, resumed, end, None, self.arms_at_once)
            arms = self._run(ForkingRun, whole.script, "carried", *given)
        except CannotFork as error:
            self.on_run(f"each arm from the start, since {error.why}")
            arms = self._run_arms(whole, resumed, end)
        if not same_continuation(arms.continuations["carried"], arms.continuations["sham"]):
            raise ForkError(
                f"{whole.script}: a fork in which every source was captured and restored does not continue "
                f"as the run that it was forked from, so no difference can be attributed to the checkpoint. "
                f"`bygones audit transparency` shows where their output differs."
            )
        return arms

    def _run_arms(self, whole: ReferenceRun, resumed: ResumedState, end: int) -> ForkedArms:
        """Run each arm from the start, in a process of its own."""

        def run(name: str) -> Continuation:
            given = (whole, resumed, end, name, 1)
            return self._run(ForkingRun, whole.script, f"carried: {name}", *given)

        arms = self._run(ForkingRun, whole.script, "carried", whole, resumed, end, "", 1)
        found = {name: run(name) for name in arms.continuations}
        for group in arms.groups:
            found |= run_search(try_groups(group, found), run)
        arms = replace(arms, continuations=found)
        return replace(arms, causes=run_search(arms.search_causes(resumed), run))

    def _ceiling(self, whole: ReferenceRun, arms: ForkedArms, end: int) -> dict[str, float]:
        """Measure how far the functions of two seeds are apart, by module; empty if none is observed."""
        if whole.inputs is None:
            return {}
        mine, other = arms.continuations["carried"].outputs, self._run_other_seed(whole, end)
        return {
            name: function_distance(mine[name], other[name], whole.inputs.kind)
            for name in mine
            if name in other and mine[name].shape == other[name].shape
        }

    def _run_other_seed(self, whole: ReferenceRun, end: int) -> Mapping[str, np.ndarray]:
        """Run another seed, unless it was run, and return its outputs; none if no function is observed."""
        if self.other_seed is None and whole.inputs is not None:
            self.on_run("another seed")
            seed, folder = self.seed + _OTHER_SEED, self.folder / "other"
            if whole.ranks:
                self.other_seed = self._run_job(
                    OtherSeedRun, whole.script, folder, (whole, end), seed=seed
                )
            else:
                self.other_seed = run_in_child(
                    lambda parent: OtherSeedRun(
                        whole, end, whole.script, self.home, seed, folder, parent
                    )
                )
        return self.other_seed or {}


def _up_to(digests: Mapping[int, frozenset[str]], last: int) -> dict[int, frozenset[str]]:
    return {step: digest for step, digest in digests.items() if step <= last}


def _unexplained(verdicts: list[Verdict], arms: ForkedArms, resumed: ResumedState) -> list[str]:
    """Return a note if what is lost does not explain the resumed run; none where this is not known.

    That is where some of it was not tried, where the boundary is a guess, and where another order was put in:
    that run does not draw the numbers with which the resumed one shuffles.
    """
    failed = [v.source for v in verdicts if v.outcome == "FAIL"]
    tried = [arms.continuations.get(f"resumed {name}") for name in failed]
    placed = resumed.start is not None and resumed.start.placed_by == "weights"
    if not failed or not placed or "order" in failed:
        return []
    if any(arm is None or arm.untried or arm.ended for arm in tried):
        return []
    return note_unexplained(failed, arms.causes, resumed)


def _begun_anew(
    whole: ReferenceRun, resumed: ResumedState, at: int, end: int, *, given: bool
) -> SeedResult:
    """Return the result of a check whose resumed run has read nothing of the checkpoint.

    `given`: whether it is another command than the uninterrupted run.
    """
    assert resumed.start is not None
    arms = ForkedArms({}, {}, resumed.start.held, {}, {"carried": NOT_RUN, "sham": NOT_RUN})
    check = (
        "Check that the arguments of --resume reach the script, and that it loads its checkpoint"
        if given
        else "No --resume was given: add the arguments with which the script goes on from its checkpoint, "
        "like --resume '--resume last.pt'"
    )
    why = f"the resumed run began anew: its weights are those before the first step. {check}"
    return SeedResult(whole, resumed, arms, at, end, [Verdict("everything", "FAIL", why)])


def _default_interruption_step(whole: ReferenceRun) -> int:
    """Choose a step inside an epoch, about a third into the run, so that later epochs are compared."""
    wanted = max(whole.steps // 3, 1)
    edges = set(whole.epochs)
    near = [step for step in range(1, whole.last) if step not in edges]
    if not near:
        raise DesignError(
            f"{whole.script} takes only {whole.steps} steps, too few to interrupt it. Let it train longer."
        )
    return min(near, key=lambda step: abs(step - wanted))
