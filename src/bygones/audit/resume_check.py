"""Does a script's checkpoint hold all that it goes on from; and if not, what does the loss cost?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bygones.analysis.estimators.base import Estimate
from bygones.analysis.estimators.paired_t import paired_t
from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
from bygones.attach.watched_process import CannotFork, WatchedProcess, in_child
from bygones.audit.continuation import function_distance, outputs_of, same_continuation
from bygones.audit.resume_runs import (
    ForkedArms,
    ForkingRun,
    InterruptedRun,
    ReferenceRun,
    ResumedRun,
    ResumedState,
    WholeRun,
)
from bygones.audit.resume_verdicts import Verdict, judge, judge_again, with_seeds
from bygones.core.errors import DesignError, ForkError, ScriptError

_OTHER_SEED = 1_000_003  # added to a seed, it gives the run that the ceiling is measured against


@dataclass(frozen=True)
class ResumeRequest:
    """How to run to the end, until interrupted, and on from there: the same script with other arguments.

    `at`: the step after which the process is ended, unless `interrupted` ends by itself. `horizon`: how many
    steps after the interruption are compared; to the end of the run if None. `again`: the step (of the whole
    run) after which the resumed run is interrupted in its turn, and resumed a second time.
    """

    whole: Script
    resumed: Script
    interrupted: Script | None = None
    at: int | None = None
    seeds: tuple[int, ...] = (0,)
    horizon: int | None = None
    again: int | None = None


@dataclass(frozen=True)
class Cost:
    """What the loss of a source costs the function, over the seeds that were run, and the references.

    `by_seed`: the distance at the last boundary in each seed; `ceiling`: between runs of two seeds.
    """

    source: str
    module: str  # which function: the trained module's (""), or an average's
    by_seed: tuple[float, ...]
    estimate: Estimate | None
    ceiling: float | None
    unit: str


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

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(v.source for v in self.verdicts if v.outcome == "FAIL")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "failed": self.failed}


@dataclass
class _Seed:
    """Everything that was seen of one seed."""

    whole: ReferenceRun
    resumed: ResumedState
    carried: ForkedArms
    at: int
    end: int
    verdicts: list[Verdict]
    ceiling: Mapping[str, float] = field(default_factory=dict)


def check_resume(
    asked: ResumeRequest, home: Path, on_run: Callable[[str], None] = lambda _: None
) -> ResumeReport:
    """Runs a script uninterrupted, interrupted and resumed, each in a process of its own, and compares."""
    for script in (asked.whole, asked.resumed, asked.interrupted or asked.whole):
        check_script(script)
    if not asked.seeds:
        raise DesignError("a resume check needs a seed; got none. Try --seeds 0.")
    warm()
    found: dict[int, _Seed] = {}
    with scratch_folder() as folder:
        for seed in asked.seeds:
            found[seed] = _one_seed(asked, home, seed, folder / str(seed), on_run)
    return _gathered(asked, found)


def _one_seed(
    asked: ResumeRequest, home: Path, seed: int, folder: Path, on_run: Callable[[str], None]
) -> _Seed:
    def go(
        make: Callable[..., WatchedProcess],
        script: Script,
        place: str,
        *given: Any,
        anew: bool = True,
    ) -> Any:
        on_run(place)
        where = folder / {"resumed": "interrupted"}.get(place, place.split()[-1])
        return in_child(lambda parent: make(*given, script, home, seed, where, parent), anew=anew)

    def whole_run(script: Script, look_at: int) -> ReferenceRun:
        said = go(WholeRun, script, "uninterrupted", look_at)
        if isinstance(said, int):  # the optimizer to count by: known once they have taken turns
            said = go(WholeRun, replace(script, clock=said), "uninterrupted", look_at)
        warm_for(said.libraries)
        return said

    script, at = asked.whole, asked.at
    interrupted = asked.interrupted
    if at is None and interrupted is None:
        at = _default_interruption_step(whole_run(script, 1))
    if interrupted is not None:
        at = go(InterruptedRun, interrupted, "interrupted", None)
    assert at is not None
    whole = whole_run(script, at)
    if interrupted is None:
        go(InterruptedRun, whole.script, "interrupted", at)
    end = whole.last if asked.horizon is None else min(whole.last, at + asked.horizon)
    if end <= at:
        raise DesignError(
            f"{script} takes {whole.steps} steps and is interrupted after {at}, so nothing is left to "
            f"compare. Interrupt it earlier (--at), or let it train for longer."
        )
    clock = whole.script.clock
    again = asked.again
    if again is not None:
        if not at < again < end:
            raise DesignError(
                f"the second interruption has to lie after the first (step {at}) and before step {end}; got "
                f"--again {again}."
            )
        for copy in ("again", "once"):
            shutil.copytree(folder / "interrupted", folder / copy, symlinks=True)
    resuming = replace(asked.resumed, clock=clock)
    resumed = go(ResumedRun, resuming, "resumed", whole, at, end, again, anew=False)
    if resumed.start is None:
        raise ScriptError(
            f"the resumed run, {asked.resumed}, {resumed.future.ended} without a training step. Expected it "
            f"to go on where the interrupted run stopped, after {at} of {whole.steps} steps."
        )
    carried = _carried(whole, resumed, end, go, on_run)
    if not same_continuation(carried.futures["carried"], carried.futures["sham"]):
        raise ForkError(
            f"{whole.script}: a twin of which every source was taken down and put back does not go on as the "
            f"run that it was forked from, so no difference can be laid to the checkpoint. `bygones twin` "
            f"says more."
        )
    verdicts = judge(whole, resumed, carried, end)
    if again is not None:
        start = again - resumed.start.step
        go(InterruptedRun, resuming, "interrupted again", start, anew=False)
        first = replace(whole, weights=resumed.weights)
        twice = go(ResumedRun, resuming, "resumed again", first, again, 0, None, anew=False)
        begin = again if twice.start is None else twice.start.step
        once = go(ResumedRun, resuming, "resumed once", whole, at, begin, begin, anew=False)
        verdicts = judge_again(verdicts, once, twice)
    ceiling = _ceiling(whole, carried, end, home, seed, folder, on_run)
    return _Seed(whole, resumed, carried, at, end, verdicts, ceiling)


def _carried(
    whole: ReferenceRun,
    resumed: ResumedState,
    end: int,
    go: Callable[..., Any],
    on_run: Callable[[str], None],
) -> ForkedArms:
    """The arms from one forked process; where that is impossible, each from the start in one of its own."""
    try:
        return go(ForkingRun, whole.script, "carried", whole, resumed, end, None)
    except CannotFork as why:
        on_run(f"each arm from the start, since {why}")
        carried = go(ForkingRun, whole.script, "carried", whole, resumed, end, "")
    futures = {
        name: go(ForkingRun, whole.script, f"carried: {name}", whole, resumed, end, name)
        for name in carried.futures
    }
    return replace(carried, futures=futures)


def _default_interruption_step(whole: ReferenceRun) -> int:
    """Inside an epoch, about a third into the run, so that epochs and schedules turn after it."""
    wanted = max(whole.steps // 3, 1)
    edges = set(whole.epochs)
    near = [step for step in range(1, whole.last) if step not in edges]
    if not near:
        raise DesignError(
            f"{whole.script} takes only {whole.steps} steps, too few to interrupt it. Let it train longer."
        )
    return min(near, key=lambda step: abs(step - wanted))


# ------------------------------------------------------------------ the ceiling


class _AnotherSeed(WatchedProcess):
    """A run with another seed, of which only the function at one boundary is wanted."""

    def __init__(self, whole: ReferenceRun, end: int, *given: Any) -> None:
        super().__init__(*given)
        self.whole, self.clock.stops = whole, frozenset({end})

    def at_boundary(self, step: int) -> None:
        assert self.whole.inputs is not None
        self.parent.reply_and_exit(outputs_of(self.live(self.whole.expected), self.whole.inputs))

    def ended(self, how: str) -> NoReturn:
        self.parent.reply_and_exit({})


def _ceiling(
    whole: ReferenceRun,
    carried: ForkedArms,
    end: int,
    home: Path,
    seed: int,
    folder: Path,
    on_run: Callable[[str], None],
) -> dict[str, float]:
    """How far the functions of two seeds are apart; nothing if the seed does not reach the script."""
    if whole.inputs is None:
        return {}
    on_run("another seed")
    other = in_child(
        lambda parent: _AnotherSeed(
            whole, end, whole.script, home, seed + _OTHER_SEED, folder / "other", parent
        )
    )
    mine = carried.futures["carried"].outputs
    apart = {
        name: function_distance(mine[name], other[name], whole.inputs.kind)
        for name in mine
        if name in other and mine[name].shape == other[name].shape
    }
    return apart if any(apart.values()) else {}


# ------------------------------------------------------------------ gathering


def _gathered(asked: ResumeRequest, found: Mapping[int, _Seed]) -> ResumeReport:
    one = next(iter(found.values()))
    assert one.resumed.start is not None
    start, whole = one.resumed.start.step, one.whole
    return ResumeReport(
        script=str(asked.whole),
        interrupted_at=one.at,
        start=start,
        until=one.end,
        seeds=tuple(found),
        verdicts=tuple(with_seeds({seed: mine.verdicts for seed, mine in found.items()})),
        costs=tuple(_costs(found)),
        floor=max(_floor(mine) for mine in found.values()),
        crossed={
            "epoch edges": sum(start < step < one.end for step in whole.epochs),
            "changes of the learning rate": _changes(whole, start, one.end),
            "batches a step": max(whole.backward_calls[start : one.end], default=1),
        },
        notes=tuple(_notes(one)),
    )


def _changes(whole: ReferenceRun, start: int, end: int) -> int:
    rates = [whole.rates[step] for step in sorted(whole.rates) if start <= step <= end]
    return sum(one != other for one, other in pairwise(rates))


def _floor(mine: _Seed) -> float:
    kind = "values" if mine.whole.inputs is None else mine.whole.inputs.kind
    control, sham = mine.carried.futures["carried"], mine.carried.futures["sham"]
    pairs = [(control.outputs[name], sham.outputs[name]) for name in control.outputs]
    return max((function_distance(a, b, kind) for a, b in pairs), default=0.0)


def _costs(found: Mapping[int, _Seed]) -> list[Cost]:
    """For each source and function: how far it moves, in each seed that has such an arm."""
    seen: dict[tuple[str, str], list[float]] = {}
    for mine in found.values():
        for verdict in mine.verdicts:
            for module, apart in (verdict.lost or {}).items():
                seen.setdefault((verdict.source, module), []).append(apart)
    kinds = {mine.whole.inputs.kind for mine in found.values() if mine.whole.inputs is not None}
    unit = "TV" if kinds == {"logits"} else "RMS"
    return [
        Cost(
            source,
            module,
            tuple(values),
            paired_t(np.asarray(values)) if len(values) > 1 else None,
            _mean([m.ceiling[module] for m in found.values() if module in m.ceiling]),
            unit,
        )
        for (source, module), values in seen.items()
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _notes(one: _Seed) -> list[str]:
    assert one.resumed.start is not None
    notes = []
    if not one.resumed.start.exact:
        notes.append(
            f"The resumed run's weights are not, to the bit, those of any boundary of the uninterrupted run; "
            f"it is compared with boundary {one.resumed.start.step}."
        )
    if one.resumed.future.ended:
        steps = len(one.resumed.future.losses)
        notes.append(
            f"The resumed run {one.resumed.future.ended} after {steps} steps, before the uninterrupted run's "
            f"boundary {one.end} was reached."
        )
    if not one.ceiling:
        notes.append(
            "There is no ceiling: another seed trains the same run. Let the seed reach the script by {seed} "
            "in its arguments or by --seed-env."
        )
    if one.whole.why_no_inputs:
        notes.append(f"The function is not observed: {one.whole.why_no_inputs}")
    return notes
