"""A script's study from beginning to end: scout, plan, fork what is missing, gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from bygones.attach.isolation.fork import Child, Parent, as_they_end, fork, spawn_fork
from bygones.attach.watched_process import CannotFork
from bygones.core.errors import ScriptError
from bygones.scripts.arm_process import (
    ArmProcess,
    Failure,
    Job,
    Report,
    record_name,
)
from bygones.scripts.donor import find_donor
from bygones.scripts.plan import ScriptPlan
from bygones.store import FolderStore
from bygones.store.outcomes import read_outcomes, write_manifest
from bygones.study.gather import manifest_of


def measure_script(
    planned: ScriptPlan,
    workers: int,
    on_seed: Callable[[int], None] = lambda seed: None,
    checks: Sequence[Callable[[ScriptPlan], Mapping[str, Any]]] = (),
) -> xr.Dataset:
    """Run what is missing, `workers` seeds at a time, and return the outcomes of all.

    `checks` are made before anything is trained; what they return is added to the certificate.
    """
    store = planned.job.store
    assert isinstance(store, FolderStore)
    failures: list[tuple[int, Failure]] = []
    with store.training():
        checked = {name: value for check in checks for name, value in check(planned).items()}
        for seed, report in _reports(planned, workers):
            failures += [(seed, failure) for failure in report.failures]
            on_seed(seed)
        failed = _in_sentences(failures)
        certificate = {**_certificate(planned), **checked}
        facts = planned.plan.facts
        notes = (*(facts.findings or ()), *failed, *_failed_before(planned, failures))
        told = replace(planned.plan, facts=replace(facts, findings=notes))
        manifest = manifest_of(told, certificate)
        write_manifest(store, manifest)
    return read_outcomes(store, manifest)


# ------------------------------------------------------------------ asking, in the first run


# ------------------------------------------------------------------ doing it


def _reports(planned: ScriptPlan, workers: int) -> Iterator[tuple[int, Report]]:
    """Each seed's report as it is finished. The first refusal stops the rest and is raised."""
    waiting = [seed for seed in planned.job.study.seeds if planned.todo[seed]]
    running: dict[int, tuple[int, Child]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                seed = waiting.pop(0)
                child = spawn_fork(lambda seed=seed: _run_seed(planned, seed))
                running[child.pipe] = (seed, child)
            pipe = next(as_they_end(running))
            seed, child = running.pop(pipe)
            report, error = child.wait() or (Report(), ScriptError(f"seed {seed} was killed."))
            if error is not None:
                raise error
            if report.refused is not None:
                raise _in_words(report.refused, planned)
            yield seed, report
    finally:
        for _, child in running.values():
            child.stop()


def _in_words(refused: Exception, planned: ScriptPlan) -> Exception:
    if isinstance(refused, CannotFork):
        return ScriptError(
            f"{planned.job.script} could be forked in its first run and cannot now: {refused.why}. Try "
            f"--replay, which runs each arm from the start."
        )
    return refused


def _run_seed(planned: ScriptPlan, seed: int) -> Report:
    """Everything of one seed, from a process that has run nothing yet."""
    job, todo = planned.job, planned.todo[seed]
    donor = find_donor(job, seed)
    if job.forks:
        return _process(lambda parent: ArmProcess(job, seed, todo, parent, donor=donor), job)
    total = Report()
    leaves = [i for i, segment in enumerate(job.tree.segments) if segment.leaf]
    control_first = sorted(leaves, key=lambda i: "control" not in job.tree.segments[i].arms)
    for leaf in control_first:
        path = _path_to(job, leaf)
        is_control = "control" in job.tree.segments[leaf].arms
        if is_control or todo & set(path):
            total.add(
                _process(
                    lambda parent, path=path: ArmProcess(
                        job, seed, todo, parent, path=path, donor=donor, shown=total.shown
                    ),
                    job,
                )
            )
        if total.refused is not None:
            break
    return total


def _process(make: Callable[[Parent], ArmProcess], job: Job) -> Report:
    side = fork()
    if isinstance(side, Parent):
        make(side).run()
    said = side.wait()
    if said is None:
        return Report(refused=ScriptError(f"{job.script} was killed (out of memory?)."))
    return said


def _path_to(job: Job, leaf: int) -> list[int]:
    path: list[int] = []
    at: int | None = leaf
    while at is not None:
        path.insert(0, at)
        at = job.tree.segments[at].parent
    return path


# ------------------------------------------------------------------ gathering


def _in_sentences(failures: Sequence[tuple[int, Failure]]) -> list[str]:
    """What a reader has to know of arms that failed."""
    return [
        f"Arm '{failure.arms[0]}' of seed {seed} {failure.sentence} after {failure.step} steps; from "
        f"there on it counts as diverged."
        for seed, failure in failures
    ]


def _failed_before(planned: ScriptPlan, now: Sequence[tuple[int, Failure]]) -> list[str]:
    """The same of arms that failed when the store was filled earlier."""
    job = planned.job
    known = {(seed, arm) for seed, failure in now for arm in failure.arms}
    earlier = []
    for seed in job.study.seeds:
        for index, segment in enumerate(job.tree.segments):
            records = job.store.records(job.addresses.history(seed, segment.history))
            record = records.get(record_name(job, index), {})
            if record.get("failed") and (seed, segment.arms[0]) not in known:
                failure = Failure(segment.arms, record["failed"], record["diverged_at"])
                earlier += _in_sentences([(seed, failure)])
    return earlier


def _certificate(planned: ScriptPlan) -> dict[str, Any]:
    """Whether, in every seed, the twin that nothing was done to ended in the control's state, to the bit."""
    job = planned.job
    ends = {
        role: [_state_at_end(job, seed, role) for seed in job.study.seeds]
        for role in ("control", "sham")
    }
    alike = ends["control"] == ends["sham"] and all(ends["control"])
    return {
        "passed": alike,
        "kind": "twins",
        "boundaries": [job.study.fork_at],
        "until": job.study.end,
        "needed": [],
        "inert": [],
    }


def _state_at_end(job: Job, seed: int, arm: str) -> str:
    for index, segment in enumerate(job.tree.segments):
        if segment.leaf and arm in segment.arms:
            records = job.store.records(job.addresses.history(seed, segment.history))
            return records[record_name(job, index)]["state"]
    return ""
