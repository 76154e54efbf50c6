"""Resume check of functions: whether what `save` writes and `load` reads is all that `train` goes on from.

The verdicts are those of the audit of scripts (`bygones audit resume`), found in one process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bygones.attach.isolation.script import Script
from bygones.attach.live_run import Live
from bygones.audit.continuation import (
    Continuation,
    capture_sources,
    distance,
    plain_values,
    same_continuation,
    same_run,
)
from bygones.audit.resume_arms import (
    RESULTS,
    ForkedArms,
    aliases_in,
    treatments_of,
    try_groups,
)
from bygones.audit.resume_runs import ReferenceRun, ResumedState, ResumePoint
from bygones.audit.resume_verdicts import Verdict, judge
from bygones.audit.resuming.causes import TOGETHER, run_search
from bygones.audit.resuming.function_runs import FunctionRun, Functions, Runner, trim_to
from bygones.audit.resuming.remedies import Remedy, suggest_remedies
from bygones.core.errors import DesignError
from bygones.core.first_difference import first_differing_index
from bygones.core.text import to_plain
from bygones.core.values import State
from bygones.training.generators import preserve_global_generators

_OTHER_SEED = 1_000_003  # added to the seed for the run that the ceiling is measured against


@dataclass(frozen=True)
class ResumeResult:
    """What `check_resume` found.

    `verdicts`: of every source, failures first. `ceiling`: how far another seed moves the function.
    `measured`: what distances are measured in. `remedies`: what to write, by lost source.
    """

    at: int
    until: int
    verdicts: tuple[Verdict, ...]
    ceiling: float | None
    measured: str
    remedies: Mapping[str, Remedy] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no source is lost."""
        return not self.lost

    @property
    def lost(self) -> tuple[str, ...]:
        """Return the sources that are lost, the cause first."""
        return tuple(v.source for v in self.verdicts if v.outcome == "FAIL")

    def assert_nothing_lost(self) -> None:
        """Raise `AssertionError`, with the whole result as its message, if a source is lost."""
        if not self.passed:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return to_plain(
            {
                "passed": self.passed,
                "lost": self.lost,
                "at": self.at,
                "until": self.until,
                "verdicts": [vars(verdict) for verdict in self.verdicts],
                "ceiling": self.ceiling,
                "measured": self.measured,
                "remedies": {name: vars(remedy) for name, remedy in self.remedies.items()},
            }
        )

    def __str__(self) -> str:
        window = f"saved after step {self.at} and compared up to step {self.until}"
        if self.lost:
            first = f"{window}: the checkpoint does not carry {', '.join(self.lost)}."
        else:
            first = f"{window}: the resumed run goes on as the uninterrupted one, to the bit."
        return "\n".join([first[0].upper() + first[1:], *map(self._line, self.verdicts)])

    def _line(self, verdict: Verdict) -> str:
        why = verdict.why + (f" ({verdict.leaves})" if verdict.leaves else "")
        cost = ""
        if verdict.outcome == "FAIL" and verdict.lost:
            cost = "; " + "; ".join(self._cost(*item) for item in verdict.lost.items())
        remedy = self.remedies.get(verdict.source)
        advice = "" if remedy is None else f". To carry it: {remedy}"
        return f"{verdict.outcome:<8}{verdict.source}: {why}{cost}{advice}"

    def _cost(self, module: str, apart: float) -> str:
        what = module or self.measured
        verb = "are" if what.endswith("s") and not module else "is"
        if apart == 0:
            return f"{what} {verb} not moved"
        text = f"{what} {verb} moved by RMS {apart:.2g}"
        if self.ceiling and not module:
            text += (
                f", {apart / self.ceiling:.0%} of the distance to another seed ({self.ceiling:.2g})"
            )
        return text


def check_resume(
    make: Callable[[], Any],
    train: Callable[[Any, int], Any],
    save: Callable[[Any, Path], Any],
    load: Callable[[Any, Path], Any],
    *,
    at: int = 3,
    until: int = 8,
    probe: Callable[[Any], Any] | None = None,
    seed: int = 0,
) -> ResumeResult:
    """Check that a run which is saved, built anew and loaded goes on as the uninterrupted one, to the bit.

    `make()` returns a new state: a dict or an object that holds model, optimizer and whatever else the run
    goes on from. `train(state, n)` trains n steps more. `save(state, path)` and `load(state, path)` write
    and read a checkpoint. `at`, `until`: the steps after which the run is saved, and compared last. `probe`:
    returns an array of the state's outputs; without it, distances are those of the weights. Returns the
    verdicts. Raises `DesignError` for steps that are not 0 < at < until, or a `make` that returns the same
    model twice, and what the four functions raise. The global generators of python, numpy and torch, and the
    functions' own globals, are afterwards as before.

    >>> import torch
    >>> def make():
    ...     model = torch.nn.Linear(2, 1)
    ...     return {"model": model, "optimizer": torch.optim.Adam(model.parameters())}
    >>> def train(state, n):
    ...     for _ in range(n):
    ...         state["model"](torch.ones(4, 2)).sum().backward()
    ...         state["optimizer"].step()
    ...         state["optimizer"].zero_grad()
    >>> def save(state, path):
    ...     torch.save(state["model"].state_dict(), path)
    >>> def load(state, path):
    ...     state["model"].load_state_dict(torch.load(path))
    >>> check_resume(make, train, save, load).lost
    ('moments',)
    """
    if not 0 < at < until:
        raise DesignError(f"expected steps with 0 < at < until; got at={at} and until={until}.")
    functions = Functions(make, train, save, load, probe)
    with preserve_global_generators(), tempfile.TemporaryDirectory(prefix="bygones-") as folder:
        runner = Runner(functions, at, until, seed, Path(folder))
        try:
            return _check(runner)
        finally:
            runner.outer.restore()


def _check(runner: Runner) -> ResumeResult:
    checkpoint = runner.folder / "checkpoint.pt"
    whole = runner.run_to_boundary(checkpoint)
    runner.known = whole.live().known
    step = whole.clock.step
    whole.train(runner.until - runner.at)
    live = whole.live()
    runner.known |= live.known
    control = whole.continuation(runner.known)
    try:
        run = runner.resume(checkpoint)
    except Exception as error:
        verdicts = [Verdict("load", "FAIL", f"load raised {type(error).__name__}: {error}")]
    else:
        resumed = _resume(runner, run, control, step, whole.passes)
        verdicts = _judge(runner, whole, control, resumed)
    lost = [verdict.source for verdict in verdicts if verdict.outcome == "FAIL"]
    return ResumeResult(
        runner.at,
        runner.until,
        tuple(verdicts),
        _ceiling(runner, control),
        "the probe's outputs" if runner.functions.probe else "the weights",
        suggest_remedies(lost, runner.known.objects),
    )


def _judge(
    runner: Runner, whole: FunctionRun, control: Continuation, resumed: ResumedState
) -> list[Verdict]:
    """Return the verdict on every source; only why nothing can be told, where the run does not repeat."""
    arms = _run_arms(runner, resumed)
    wrong = _of_repetition(control, arms)
    if wrong:
        return wrong
    verdicts = judge(_reference(whole, runner), resumed, arms, whole.clock.step)
    unseen = not any(control.contents)
    return [
        *(verdict for verdict in verdicts if not (verdict.source == "order" and unseen)),
        *_of_single_call(runner, control),
    ]


def _resume(
    runner: Runner, run: FunctionRun, control: Continuation, step: int, passes: int
) -> ResumedState:
    held = run.hold(runner.known)
    continuation = trim_to(runner.finish(run), control)
    if passes and continuation.losses:
        continuation = replace(continuation, losses=(0.0, *continuation.losses[1:]))
    point = ResumePoint(step, passes, "weights", held, {})
    return ResumedState(point, continuation)


def _run_arms(runner: Runner, resumed: ResumedState) -> ForkedArms:
    """Run the arms: carried, sham, each source as the resumed run held it, and each made new."""
    assert resumed.start is not None
    theirs = resumed.start.held
    no_reset: dict[str, str] = {}
    differing: dict[str, State] = {}
    first = runner.run_to_boundary(runner.folder / "arm.pt")
    live = first.live(runner.known)
    held = capture_sources(live, but=aliases_in(live))
    names = [name for name, _ in treatments_of(live, held, theirs, no_reset, differing)]
    kinds = {name: _kind_of(name, live, first) for name in live.sources}
    results = [name for name, source in live.sources.items() if source.is_result]
    groups = tuple(
        tuple(f"{how} {name}" for name in results if f"{how} {name}" in names)
        for how in ("reset", "resumed")
    )
    grouped = {name for group in groups for name in group}
    run = partial(_run_arm, runner, resumed)
    found = {name: run(name) for name in names if name not in grouped}
    for group in groups:
        found |= run_search(try_groups(group, found), run)
    arms = ForkedArms(held, plain_values(live), theirs, kinds, found, no_reset, differing, groups)
    return replace(arms, causes=run_search(arms.search_causes(resumed), run))


def _run_arm(runner: Runner, resumed: ResumedState, name: str) -> Continuation:
    """Run one arm, or several that are tried together."""
    assert resumed.start is not None
    theirs = resumed.start.held

    def treat(run: FunctionRun) -> None:
        live = run.live(runner.known)
        held = capture_sources(live, but=aliases_in(live))
        arms = dict(treatments_of(live, held, theirs, {}, {}))
        for one in [name] if name in arms else name.split(TOGETHER):
            arms[one]()

    return runner.run_arm(treat)


def _kind_of(name: str, live: Live, run: FunctionRun) -> str:
    source = live.sources[name]
    if not source.is_result:
        return source.origin
    first = run.baseline.data
    known = any(place.path in first for place in source.locations.values())
    return RESULTS[0] if known else RESULTS[1]


def _reference(whole: FunctionRun, runner: Runner) -> ReferenceRun:
    """Return what the verdicts need to know of the uninterrupted run."""
    record = whole.clock.record
    return ReferenceRun(
        script=Script("functions"),
        last=whole.clock.step,
        steps=whole.clock.step,
        weights={},
        moments={},
        indices=record.batches.indices,
        contents=record.batches.contents,
        losses=tuple(record.losses),
        epochs=tuple(record.epochs),
        backward_calls=tuple(record.backward_calls),
        rates={},
        expected=runner.known,
        inputs=None,
        why_no_inputs="",
        libraries=(),
        can_fork=False,
        loops=(),
        heads={},
    )


def _of_repetition(control: Continuation, arms: ForkedArms) -> list[Verdict]:
    """Return a failure if the run does not repeat itself, or is disturbed by being copied."""
    carried, sham = arms.continuations["carried"], arms.continuations["sham"]
    if not same_continuation(control, carried):
        step = first_differing_index(control.losses, carried.losses)
        why = (
            "the run does not repeat itself with one seed, so a resumed run cannot be told from another one: "
            "something in it is not decided by the global generators, or lies where it was not found"
        )
        return [Verdict("repetition", "FAIL", why, first_loss=step)]
    if not same_continuation(carried, sham):
        why = (
            "a run in which every source was captured and restored is another one, so no difference can be "
            "attributed to the checkpoint"
        )
        return [Verdict("sham", "FAIL", why)]
    return []


def _of_single_call(runner: Runner, control: Continuation) -> list[Verdict]:
    """Say so if `train` called once for all steps is another run than called twice."""
    run = runner.make()
    run.train(runner.until)
    run.since = run.clock.step - len(control.losses)
    single = run.continuation(runner.known)
    if same_run(single, control):
        return []
    rest = runner.until - runner.at
    why = (
        f"train(state, {runner.until}) is another run than train(state, {runner.at}) and then train(state, "
        f"{rest}): what lies in its own variables, like a loader's iterator, ends with each call, and "
        f"whether a checkpoint carries it cannot be told. Keep it in the state"
    )
    return [Verdict("train", "ABSTAIN", why)]


def _ceiling(runner: Runner, control: Continuation) -> float | None:
    """Return how far the function of another seed is from the control's; None if it cannot be compared."""
    other = runner.run_to_boundary(runner.folder / "other.pt", runner.seed + _OTHER_SEED)
    other.train(runner.until - runner.at)
    apart = distance(control, other.continuation(runner.known), "values") or {}
    return apart.get("")
