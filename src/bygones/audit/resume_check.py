"""Resume check: what a script's checkpoint fails to restore, and how far each omission moves the function."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter, other_hashes
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
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
from bygones.audit.resume_arms import ForkedArms, ForkingRun, run_groups
from bygones.audit.resume_runs import (
    InterruptedRun,
    Interruption,
    ReferenceRun,
    ResumedRun,
    ResumedState,
    WholeRun,
)
from bygones.audit.resume_verdicts import Verdict, judge, judge_again, with_seeds
from bygones.audit.resuming.causes import run_search
from bygones.audit.resuming.changed_settings import (
    ChangedRunner,
    ChangedSettings,
    gather_changed,
)
from bygones.audit.resuming.costs import Cost, SeedResult, gather_costs, largest_sham_distance
from bygones.audit.resuming.files_verdict import FinishedRuns, judge_files
from bygones.audit.resuming.notes import write_notes
from bygones.audit.resuming.other_seed import OtherSeedRun
from bygones.audit.resuming.remedies import Remedy, suggest_remedies
from bygones.core.errors import DesignError, ForkError, ScriptError
from bygones.core.first_difference import first_differing_index
from bygones.core.text import to_plain

# Without --seeds, these are run if something is lost and the later ones take less than a minute.
_SEEDS, _SECONDS_FOR_INTERVALS = (0, 1, 2), 60
_OTHER_SEED = 1_000_003  # added to a seed for the run that the ceiling is measured against


@dataclass(frozen=True)
class ResumeRequest:
    """The script with its arguments for the whole run, the interrupted one and the resumed one.

    `at`: the step after which the process is ended, unless `interrupted` ends by itself. `horizon`: how many
    steps after the interruption are compared; to the end of the run if None. `again`: the step (of the whole
    run) after which the resumed run is interrupted too, and resumed a second time. `seeds`: if there are
    none, seed 0, and two more where something is lost and that takes less than a minute. `then`, `then_env`:
    arguments and environment variables of a resume under other settings, which is measured too.
    """

    whole: Script
    resumed: Script
    interrupted: Script | None = None
    at: int | None = None
    seeds: tuple[int, ...] = ()
    horizon: int | None = None
    again: int | None = None
    then: tuple[str, ...] = ()
    then_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def other_settings(self) -> str:
        """The arguments and variables of a resume under other settings, in words; empty if none are asked."""
        return " ".join([*(f"{n}={v}" for n, v in self.then_env.items()), *self.then])


@dataclass(frozen=True)
class ResumeReport:
    """What a resume check found. `floor`: the same distance for the sham, which is exactly 0."""

    script: str
    interrupted_at: int
    start: int
    until: int
    seeds: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    costs: tuple[Cost, ...]
    floor: float
    crossed: Mapping[str, int]
    notes: tuple[str, ...] = ()
    remedies: Mapping[str, Remedy] = field(default_factory=dict)  # what to write, by lost source
    settings: ChangedSettings | None = None  # a resume under other settings

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(v.source for v in self.verdicts if v.outcome == "FAIL")

    def to_dict(self) -> dict[str, Any]:
        return to_plain({"passed": not self.failed, **asdict(self), "failed": self.failed})


def audit_resume(
    request: ResumeRequest,
    home: Path,
    on_run: Callable[[str], None] = lambda _: None,
    interpreter: FreshInterpreter | None = None,
) -> ResumeReport:
    """Run a script uninterrupted, interrupted and resumed, each in its own process, and compare.

    `interpreter`: that of `other_hashes()`, if it was started before.
    """
    for script in (request.whole, request.resumed, request.interrupted or request.whole):
        check_script(script)
    with other_hashes() if interpreter is None else nullcontext(interpreter) as other:
        return _audit(request, home, on_run, other)


def _audit(
    request: ResumeRequest,
    home: Path,
    on_run: Callable[[str], None],
    interpreter: FreshInterpreter | None,
) -> ResumeReport:
    warm()
    found: dict[int, SeedResult] = {}
    began, seeds = time.monotonic(), list(request.seeds or _SEEDS[:1])
    with scratch_folder() as folder:
        for seed in seeds:
            check = _SeedCheck(request, home, seed, folder / str(seed), on_run, interpreter)
            found[seed] = check.check()
            if not request.seeds and len(found) == 1 and found[seed].has_costs:
                needed = (len(_SEEDS) - 1) * (time.monotonic() - began)
                if needed < _SECONDS_FOR_INTERVALS:
                    seeds += _SEEDS[1:]
                else:
                    found[seed].notes += (_why_one_seed(needed),)
    return _report(request, found)


def _why_one_seed(seconds: float) -> str:
    return (
        f"The effects have no interval: two more seeds would take about {seconds:.0f} seconds, and are run "
        f"by themselves only below {_SECONDS_FOR_INTERVALS}. Try --seeds 0-2."
    )


class _SeedCheck:
    """The check of one seed. Files lie in `folder`; `on_run` is called with the name of each run."""

    def __init__(
        self,
        request: ResumeRequest,
        home: Path,
        seed: int,
        folder: Path,
        on_run: Callable[[str], None],
        interpreter: FreshInterpreter | None,
    ) -> None:
        self.request, self.home, self.seed = request, home, seed
        self.folder, self.on_run = folder, on_run
        self.interpreter = interpreter  # of the resumed run; None: that of every run
        self.libraries: tuple[str, ...] = ()  # that the script imports, if that starts no threads

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
            return _begun_anew(whole, resumed, at, end)
        arms = self._fork_arms(whole, resumed, end)
        verdicts = [*depends, *judge(whole, resumed, arms, end)]
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
        return SeedResult(whole, resumed, arms, at, end, verdicts, ceiling, tuple(notes), changed)

    # -------------------------------------------------------------- runs

    def _run(
        self,
        make: Callable[..., WatchedProcess],
        script: Script,
        name: str,
        *given: Any,
        empty: bool = True,
        interpreter: FreshInterpreter | None = None,
    ) -> Any:
        """Run one process; resumed runs find the files of the interrupted one in their folder."""
        self.on_run(name)
        folder = self.folder / {"resumed": "interrupted"}.get(name, name.split()[-1])
        _, reply = run_by_slowest(
            lambda script, parent: make(*given, script, self.home, self.seed, folder, parent),
            script,
            empty=empty,
            interpreter=interpreter,
            libraries=self.libraries,
        )
        return reply

    def _run_whole(self, look_at: int) -> ReferenceRun:
        whole: ReferenceRun = self._run(WholeRun, self.request.whole, "uninterrupted", look_at)
        if warm_for(whole.libraries, known_to_fork=whole.can_fork):
            self.libraries = whole.libraries
        return whole

    def _interrupt(self) -> tuple[ReferenceRun, Interruption]:
        """Run the script uninterrupted and interrupted."""
        at, interrupted = self.request.at, self.request.interrupted
        if interrupted is not None:
            ended = self._run(InterruptedRun, interrupted, "interrupted", None)
            return self._run_whole(ended.step), ended
        if at is None:
            at = _default_interruption_step(self._run_whole(1))
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
            ResumedRun, resuming, "resumed", *given, empty=False, interpreter=self.interpreter
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
        other: ReferenceRun = self._run(
            WholeRun, whole.script, "uninterrupted, other hashes", end, interpreter=self.interpreter
        )
        step = first_differing_index(whole.losses, other.losses)
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

        def run_again() -> Path:
            name = "uninterrupted, repeated"
            self._run(WholeRun, whole.script, name, 1, interpreter=self.interpreter)
            return self.folder / name.split()[-1]

        folders = self.folder / "uninterrupted", self.folder / "interrupted"
        shapes = trained_shapes(arms.states)
        runs = FinishedRuns(*folders, run_again, shapes, overrun=not resumed.finished)
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
        """Run the arms of one forked process; where that is impossible, each from the start."""
        try:
            arms = self._run(ForkingRun, whole.script, "carried", whole, resumed, end, None)
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
            given = (whole, resumed, end, name)
            return self._run(ForkingRun, whole.script, f"carried: {name}", *given)

        arms = self._run(ForkingRun, whole.script, "carried", whole, resumed, end, "")
        found = {name: run(name) for name in arms.continuations}
        found |= run_groups(arms.groups, found["carried"], run)
        arms = replace(arms, continuations=found)
        return replace(arms, causes=run_search(arms.search_causes(resumed), run))

    def _ceiling(self, whole: ReferenceRun, arms: ForkedArms, end: int) -> dict[str, float]:
        """Measure how far the functions of two seeds are apart, by module; empty if none is observed."""
        if whole.inputs is None:
            return {}
        self.on_run("another seed")
        seed, folder = self.seed + _OTHER_SEED, self.folder / "other"
        other = run_in_child(
            lambda parent: OtherSeedRun(whole, end, whole.script, self.home, seed, folder, parent)
        )
        mine = arms.continuations["carried"].outputs
        return {
            name: function_distance(mine[name], other[name], whole.inputs.kind)
            for name in mine
            if name in other and mine[name].shape == other[name].shape
        }


def _up_to(digests: Mapping[int, frozenset[str]], last: int) -> dict[int, frozenset[str]]:
    return {step: digest for step, digest in digests.items() if step <= last}


def _begun_anew(whole: ReferenceRun, resumed: ResumedState, at: int, end: int) -> SeedResult:
    """Return the result of a check whose resumed run has read nothing of the checkpoint."""
    assert resumed.start is not None
    arms = ForkedArms({}, {}, resumed.start.held, {}, {"carried": NOT_RUN, "sham": NOT_RUN})
    why = (
        "the resumed run began anew: its weights are those before the first step. Check that the arguments "
        "of --resume reach the script, and that it loads its checkpoint"
    )
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


# ------------------------------------------------------------------ gathering


def _report(request: ResumeRequest, found: Mapping[int, SeedResult]) -> ResumeReport:
    one = next(iter(found.values()))
    assert one.resumed.start is not None
    start, whole = one.resumed.start.step, one.whole
    verdicts = tuple(with_seeds({seed: mine.verdicts for seed, mine in found.items()}))
    lost = [v.source for v in verdicts if v.outcome == "FAIL"]
    kinds = {mine.whole.inputs.kind for mine in found.values() if mine.whole.inputs is not None}
    return ResumeReport(
        script=str(request.whole),
        interrupted_at=one.at,
        start=start,
        until=one.end,
        seeds=tuple(found),
        verdicts=verdicts,
        costs=tuple(gather_costs(found)),
        floor=max(largest_sham_distance(mine) for mine in found.values()),
        crossed={
            "epoch edges": sum(start < step < one.end for step in whole.epochs),
            "changes of the learning rate": _rate_changes(whole, start, one.end),
            "batches a step": max(whole.backward_calls[start : one.end], default=1),
        },
        notes=tuple(write_notes(one)),
        remedies=suggest_remedies(lost, whole.expected.objects),
        settings=gather_changed(
            request.other_settings,
            [mine.changed for mine in found.values() if mine.changed],
            [mine.ceiling[""] for mine in found.values() if "" in mine.ceiling],
            kinds,
        ),
    )


def _rate_changes(whole: ReferenceRun, start: int, end: int) -> int:
    rates = [whole.rates[step] for step in sorted(whole.rates) if start <= step <= end]
    return sum(one != other for one, other in pairwise(rates))
