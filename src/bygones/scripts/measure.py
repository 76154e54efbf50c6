"""Measure a script: train what is missing of its study, one process a seed, and gather the outcomes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from bygones.attach.isolation.fork import Child, Parent, as_they_end, spawn_fork
from bygones.attach.watched_process import CannotFork, run_in_child
from bygones.core.errors import ScriptError
from bygones.core.values import Digest
from bygones.scripts.arm_process import (
    ArmProcess,
    Failure,
    Job,
    Report,
    is_compared,
    record_name,
    reference_folder,
)
from bygones.scripts.donor import find_donor
from bygones.scripts.plan import ScriptPlan
from bygones.store import Record
from bygones.study.certificate import twins_certificate
from bygones.study.gather import gather_segments, hold_store


def measure_script(
    planned: ScriptPlan,
    workers: int,
    on_seed: Callable[[int], None] = lambda seed: None,
    checks: Sequence[Callable[[ScriptPlan], Mapping[str, Any]]] = (),
) -> xr.Dataset:
    """Train what is missing, `workers` seeds at a time, and return the outcomes of all seeds.

    `checks` are made before anything is trained; what they return is added to the certificate. `on_seed`
    is called with each seed that is finished. Raises the first refusal of a seed.
    """
    failures: list[tuple[int, Failure]] = []
    with hold_store(planned.job.store):
        checked = {name: value for check in checks for name, value in check(planned).items()}
        for seed, report in _train_seeds(planned, workers):
            failures += [(seed, failure) for failure in report.failures]
            on_seed(seed)
        facts = planned.plan.facts
        findings = (
            *(facts.findings or ()),
            *_describe_failures(failures),
            *_earlier_failures(planned, failures),
        )
        certificate = {**_certify(planned.job), **checked}
        told = replace(planned.plan, facts=replace(facts, findings=findings))
        return gather_segments(told, certificate)


# ------------------------------------------------------------------ training what is missing


def _train_seeds(planned: ScriptPlan, workers: int) -> Iterator[tuple[int, Report]]:
    """Train every seed that has something left to do, and yield its report when it is finished.

    The first refusal stops the other seeds and is raised.
    """
    waiting = [seed for seed in planned.job.study.seeds if planned.todo[seed]]
    running: dict[int, tuple[int, Child]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                seed = waiting.pop(0)
                child = spawn_fork(lambda seed=seed: _train_seed(planned, seed))
                running[child.pipe] = (seed, child)
            pipe = next(as_they_end(running))
            seed, child = running.pop(pipe)
            report, error = child.wait() or (Report(), ScriptError(f"seed {seed} was killed."))
            if error is not None:
                raise error
            if report.refused is not None:
                raise _explain_refusal(report.refused, planned)
            yield seed, report
    finally:
        for _, child in running.values():
            child.stop()


def _explain_refusal(refused: Exception, planned: ScriptPlan) -> Exception:
    """The error to raise for a refusal: one that only says that forking failed gets its advice here."""
    if isinstance(refused, CannotFork):
        return ScriptError(
            f"{planned.job.script} could be forked in its first run and cannot now: {refused.why}. Try "
            f"--replay, which runs each arm from the start."
        )
    return refused


def _train_seed(planned: ScriptPlan, seed: int) -> Report:
    """Train what is missing of one seed, in a process in which the script has not run yet."""
    try:
        return _train_arms(planned, seed)
    finally:
        shutil.rmtree(reference_folder(planned.job, seed), ignore_errors=True)


def _train_arms(planned: ScriptPlan, seed: int) -> Report:
    job, todo = planned.job, planned.todo[seed]
    donor = find_donor(job, seed)
    if job.forks:
        return _run_in_child(lambda parent: ArmProcess(job, seed, todo, parent, donor=donor), job)
    total = Report()
    segments = job.tree.segments
    leaves = [index for index, segment in enumerate(segments) if segment.leaf]
    for leaf in sorted(leaves, key=lambda index: "control" not in segments[index].arms):
        path = job.tree.line(leaf)
        if "control" in segments[leaf].arms or todo & set(path) or is_compared(job, todo, leaf):
            total.add(
                _run_in_child(
                    lambda parent, path=path: ArmProcess(
                        job, seed, todo, parent, path=path, donor=donor, shown=total.shown
                    ),
                    job,
                )
            )
        if total.refused is not None:
            break
    return total


def _run_in_child(make: Callable[[Parent], ArmProcess], job: Job) -> Report:
    """Run the script in a forked process, and return what that process reports."""
    return run_in_child(make, killed=f"{job.script} was killed (out of memory?).")


# ------------------------------------------------------------------ gathering


def _describe_failures(failures: Sequence[tuple[int, Failure]]) -> list[str]:
    """Describe failed arms, one sentence each, for the study's findings."""
    return [
        f"Arm '{failure.arms[0]}' of seed {seed} {failure.sentence} after {failure.step} steps; from "
        f"there on it counts as diverged."
        for seed, failure in failures
    ]


def _earlier_failures(planned: ScriptPlan, now: Sequence[tuple[int, Failure]]) -> list[str]:
    """Describe arms that failed when the store was filled earlier."""
    job = planned.job
    known = {(seed, arm) for seed, failure in now for arm in failure.arms}
    earlier = []
    for seed in job.study.seeds:
        for index, segment in enumerate(job.tree.segments):
            record = _stored_record(job, seed, index)
            if record.get("failed") and (seed, segment.arms[0]) not in known:
                failure = Failure(segment.arms, record["failed"], record["diverged_at"])
                earlier.append((seed, failure))
    return _describe_failures(earlier)


def _certify(job: Job) -> dict[str, Any]:
    """Certify by the stored states at the end that every sham ended in its control's state."""
    control, sham = (
        [_state_at_end(job, seed, role) for seed in job.study.seeds] for role in ("control", "sham")
    )
    return twins_certificate(job.study, control, sham)


def _state_at_end(job: Job, seed: int, arm: str) -> Digest:
    """The digest of an arm's state at its end; "" where it did not get there."""
    leaf = next(i for i, s in enumerate(job.tree.segments) if s.leaf and arm in s.arms)
    return _stored_record(job, seed, leaf).get("state", "")


def _stored_record(job: Job, seed: int, index: int) -> Record:
    """The record of a segment; empty where there is none."""
    history = job.tree.segments[index].history
    return job.store.records(job.addresses.history(seed, history)).get(record_name(job, index), {})
