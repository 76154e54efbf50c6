"""A script's study from beginning to end: scout, plan, fork what is missing, gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from bygones.contract import Contract
from bygones.design import design
from bygones.digest import digest
from bygones.errors import DesignError, ScriptError
from bygones.inventory import describe
from bygones.lanes.choosing import Choice
from bygones.measuring import Plan, manifest_of
from bygones.outcomes import read_outcomes, write_manifest
from bygones.recipe import load_object
from bygones.script.arms import default_arms, parse_arm
from bygones.script.children import Child, Parent, as_they_end, fork, start
from bygones.script.clock import Clock
from bygones.script.files import Overlay, guarding_native_writes
from bygones.script.launch import Script, check_script, run_script, warm
from bygones.script.live import FirstLook, Live
from bygones.script.loaders import emulating
from bygones.script.scouting import Scouted, scout, warm_for
from bygones.script.sufficing import check_sufficiency
from bygones.script.twin import (
    CannotFork,
    Failure,
    Job,
    Report,
    Twin,
    allowed_folders,
    folder_of,
    record_name,
    redirect_output,
)
from bygones.segment import donor_seed
from bygones.store import FolderStore
from bygones.study import Study, check_design, findings, full_arms
from bygones.tree import Addresses, donor_steps, plan_tree
from bygones.values import State

ASKED_FOR = "it was asked for"
_MOVED_ON = 20  # steps that a run goes on with another's memory


@dataclass(frozen=True)
class Asked:
    """What a person asks of a script, as it was typed."""

    script: Script
    fork_at: int
    horizons: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: tuple[str, ...] = ()
    probe: str | None = None
    name: str = ""
    margins: tuple[tuple[str, float], ...] = ()
    replay: bool = False  # even where forking would do
    sufficiency: bool = (
        False  # whether the inventory is complete is asked too, of the first two seeds
    )


@dataclass(frozen=True)
class ScriptPlan:
    """A script's study that has been checked: what it will cost, and how it will be done.

    `replays`: why arms are run from the start instead of forked, in words; empty if they are forked.
    """

    plan: Plan
    job: Job
    scouted: Scouted
    replays: str
    todo: Mapping[int, frozenset[int]]
    sufficiency: bool = False


def plan_script(asked: Asked, home: Path, store: FolderStore) -> ScriptPlan:
    """Runs the script up to the fork, once, and says what its study is and what it costs."""
    check_script(asked.script)
    probe = load_object(str(asked.probe)) if asked.probe else None
    if not asked.seeds:
        raise DesignError("a study needs seeds; got none. Try --seeds 0-7.")
    warm()
    found = scout(asked.script, home, asked.seeds[0], asked.fork_at, _ask(asked), probe)
    warm_for(found.libraries)
    found, replays = _how(asked, home, found, probe)
    if found.inputs is None:
        assert found.why_no_inputs is not None
        raise found.why_no_inputs
    asked = replace(asked, script=found.script)
    if asked.sufficiency and (replays or len(asked.seeds) < 2):
        why = replays or "only one seed was given"
        raise DesignError(
            f"--sufficiency moves all memory of one seed's run into another's forked run, which is not "
            f"possible here: {why.rstrip('.')}."
        )
    study, arms, notes, described = found.answer
    study = _with_probe(study, found, asked)
    contract = replace(Contract.here(), deterministic=False, threads=found.threads)
    addresses = Addresses.of(study, contract)
    tree = plan_tree(arms, study.steps)
    job = Job(
        script=found.script,
        home=home,
        study=study,
        tree=tree,
        addresses=addresses,
        store=store,
        inputs=found.inputs,
        shape=found.shape,
        output=Path(store.folder).resolve() / "output",
        forks=not replays,
        emulates=found.emulates,
    )
    todo = {seed: _missing(job, seed) for seed in study.seeds}
    leaves = [segment for segment in tree.segments if segment.leaf]
    num_seeds, donors = len(study.seeds), donor_steps(arms)
    whole = len(leaves) * study.end + donors
    shared = (whole if replays else tree.num_steps) + donors * (not replays)
    left = sum(
        _steps_left(job, seed, missing) + donors * bool(missing) for seed, missing in todo.items()
    )
    plan = Plan(
        study=study,
        arms=arms,
        tree=tree,
        addresses=addresses,
        contract=contract,
        choice=Choice(1, "Each seed is a process of its own."),
        store=store,
        attributes={
            **described,
            "recipe": str(found.script),
            "orders": {**found.order, "realised": {}},
            "digests": {"study": study.digest(), "recipe": found.script.code()},
            "headline": study.headline,
            "family": asdict(study.declared),
            "findings": notes,
            "contract": contract.to_dict(),
            "design": design(study),
            "rng": found.rng,
            "way": _way(replays, found, job),
            "num_steps": {"naive": num_seeds * whole, "shared": num_seeds * shared},
        },
        images=None,
        steps_naive=num_seeds * whole,
        steps_shared=num_seeds * shared,
        steps_left=left,
        bytes_total=num_seeds * len(arms) * len(study.steps) * _size(found.shape),
        seconds_a_step=found.seconds_a_step,
        seconds_a_look=0.0,
        looks_left=0,
        seeds_left=frozenset(seed for seed, missing in todo.items() if missing),
        pending=tuple(
            (
                addresses.history(seed, tree.segments[index].history),
                record_name(job, index),
                tree.segments[index].stop - tree.segments[index].start,
            )
            for seed, missing in todo.items()
            for index in missing
        ),
    )
    return ScriptPlan(plan, job, found, replays, todo, asked.sufficiency)


def measure_script(
    planned: ScriptPlan, workers: int, on_seed: Callable[[int], None] = lambda seed: None
) -> xr.Dataset:
    """Runs what is missing, `workers` seeds at a time, and returns the outcomes of all."""
    store = planned.job.store
    assert isinstance(store, FolderStore)
    failures: list[tuple[int, Failure]] = []
    with store.training():
        inventory = _sufficiency(planned) if planned.sufficiency else {}
        for seed, report in _reports(planned, workers):
            failures += [(seed, failure) for failure in report.failures]
            on_seed(seed)
        failed = _in_sentences(failures)
        certificate = {**_certificate(planned), **inventory}
        attributes = {**planned.plan.attributes}
        attributes["findings"] = [
            *attributes["findings"],
            *failed,
            *_failed_before(planned, failures),
        ]
        manifest = manifest_of(replace(planned.plan, attributes=attributes), certificate)
        write_manifest(store, manifest)
    return read_outcomes(store, manifest)


# ------------------------------------------------------------------ asking, in the first run


def _ask(asked: Asked) -> Callable[[Live], Any]:
    """What has to be found out at the fork: the arms, their nulls, and whether they mean anything."""

    def ask(live: Live) -> Any:
        study = Study(
            asked.script,
            [parse_arm(text, asked.fork_at) for text in asked.arms]
            or default_arms(live.sources, asked.fork_at, max(asked.horizons, default=0)),
            fork_at=asked.fork_at,
            horizons=asked.horizons,
            seeds=asked.seeds,
            name=asked.name or Path(asked.script.path).stem,
            margins=asked.margins,
        )
        check_design(study, live)
        _check_transplants(study)
        arms = full_arms(study, live)
        return study, arms, findings(study, live), describe(study, arms, live, {})

    return ask


def _check_transplants(study: Study) -> None:
    for arm in study.arms:
        for treatment in arm.treatments:
            if treatment.needs_donor and treatment.source in ("order", "streams"):
                raise DesignError(
                    f"arm '{arm.name}': '{treatment.source}' cannot be transplanted between runs of a "
                    f"script. Use reseed, which draws it again."
                )


def _with_probe(study: Study, found: Scouted, asked: Asked) -> Study:
    assert found.inputs is not None
    return Study(
        asked.script,
        study.arms,
        study.fork_at,
        study.horizons,
        study.seeds,
        study.name,
        found.inputs.probe(),
        study.family,
        study.margins,
    )


def _how(asked: Asked, home: Path, found: Scouted, probe: Any) -> tuple[Scouted, str]:
    """Whether arms can be forked: why not, in words, and what was found the way that it will be done."""
    if found.num_workers and found.emulates:
        script, seed = found.script, asked.seeds[0]
        real = scout(script, home, seed, asked.fork_at, _ask(asked), probe, emulates=False)
        if real.chain != found.chain:
            return replace(real, script=script), (
                "its loader's worker processes deliver other batches than the same work done in one "
                "process (they keep state of their own, or share some)"
            )
    if asked.replay:
        return found, ASKED_FOR
    return found, found.why_not_fork or ""


def _way(replays: str, found: Scouted, job: Job) -> str:
    """How arms were made from one run, in a sentence for the report."""
    if replays == ASKED_FOR:
        return (
            "Each arm was run from the start, as was asked for. A pair counts only if data, losses and "
            "state were equal up to the fork."
        )
    if replays:
        return (
            f"Each arm was run from the start, because forking was not possible: {replays.rstrip('.')}. "
            f"A pair counts only if data, losses and state were equal up to the fork."
        )
    workers = (
        f" The loaders' {found.num_workers} worker processes were emulated in one process; what they "
        f"delivered up to the fork was compared and is equal to the bit."
        if found.num_workers
        else ""
    )
    return f"The running process was forked at the boundary of step {job.study.fork_at}.{workers}"


# ------------------------------------------------------------------ doing it


def _missing(job: Job, seed: int) -> frozenset[int]:
    """Segments of a seed that the store does not hold."""
    missing = set()
    for index, segment in enumerate(job.tree.segments):
        records = job.store.records(job.addresses.history(seed, segment.history))
        record = records.get(record_name(job, index))
        if record is None or not job.store.has(record["observed"]):
            missing.add(index)
    return frozenset(missing)


def _steps_left(job: Job, seed: int, missing: frozenset[int]) -> int:
    """Steps to run for what is missing: its own, and those that lead there."""
    segments = job.tree.segments
    if not missing:
        return 0
    if not job.forks:
        return (
            sum(segments[i].stop for i in missing if segments[i].leaf)
            or segments[max(missing)].stop
        )
    needed: set[int] = set()
    for index in missing:
        at: int | None = index
        while at is not None:
            needed.add(at)
            at = segments[at].parent
    return sum(segments[i].stop - segments[i].start for i in needed)


def _reports(planned: ScriptPlan, workers: int) -> Iterator[tuple[int, Report]]:
    """Each seed's report as it is finished. The first refusal stops the rest and is raised."""
    waiting = [seed for seed in planned.job.study.seeds if planned.todo[seed]]
    running: dict[int, tuple[int, Child]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                seed = waiting.pop(0)
                child = start(lambda seed=seed: _run_seed(planned, seed))
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
    donor = _donor(job, seed)
    if job.forks:
        return _process(lambda parent: Twin(job, seed, todo, parent, donor=donor), job)
    total = Report()
    leaves = [i for i, segment in enumerate(job.tree.segments) if segment.leaf]
    control_first = sorted(leaves, key=lambda i: "control" not in job.tree.segments[i].arms)
    for leaf in control_first:
        path = _path_to(job, leaf)
        is_control = "control" in job.tree.segments[leaf].arms
        if is_control or todo & set(path):
            total.add(
                _process(
                    lambda parent, path=path: Twin(
                        job, seed, todo, parent, path=path, donor=donor, shown=total.shown
                    ),
                    job,
                )
            )
        if total.refused is not None:
            break
    return total


def _process(make: Callable[[Parent], Twin], job: Job) -> Report:
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


def _donor(job: Job, seed: int) -> dict[int, Mapping[str, State]]:
    """The states that are transplanted into this seed, by step: of a run with a seed of its own."""
    wanted = sorted(
        {
            (t.window.start, t.source)
            for arm in job.study.arms
            for t in arm.treatments
            if t.needs_donor
        }
    )
    if not wanted:
        return {}
    return _process_donor(job, donor_seed(seed), wanted)


def _process_donor(
    job: Job, seed: int, wanted: Sequence[tuple[int, str]]
) -> dict[int, Mapping[str, State]]:
    side = fork()
    if isinstance(side, Child):
        said = side.wait()
        if not isinstance(said, dict):
            raise said or ScriptError(f"{job.script} was killed while it trained a donor.")
        return said
    clock = Clock(job.script.clock)
    script = job.home / job.script.path
    looks: list[FirstLook] = []
    taken: dict[int, dict[str, State]] = {}

    def at_boundary(step: int) -> None:
        live = Live(script, clock, seed, looks[0], {})
        taken[step] = {name: live.sources[name].capture() for at, name in wanted if at == step}
        if step == wanted[-1][0]:
            side.say(taken)

    clock.stops = frozenset(step for step, _ in wanted)
    clock.before_first = lambda: looks.append(FirstLook(script, clock, seed))
    clock.at_boundary = at_boundary
    folder = folder_of(job, seed, "donor")
    redirect_output(folder)
    Overlay(job.home, folder / "files", allowed=allowed_folders(job)).enter()
    try:
        with clock.listening(), guarding_native_writes(), emulating():
            run_script(job.script, seed, job.home)
    except BaseException as error:
        side.say(
            ScriptError(
                f"{job.script} raised {type(error).__name__} for the donor's seed: {error}."
            )
        )
    side.say(
        ScriptError(
            f"{job.script} came to its end before step {wanted[-1][0]} for the donor's seed."
        )
    )


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


def _sufficiency(planned: ScriptPlan) -> dict[str, Any]:
    """Whether all memory was found, asked of the study's first two seeds at its fork; kept in the store.

    Not asked of every study: a fork copies the whole process, so arms are sound without it. It says
    whether what was not treated, and not found, could be something.
    """
    job, study = planned.job, planned.job.study
    one, other = study.seeds[:2]
    until = min(study.end, study.fork_at + _MOVED_ON)
    address = digest(
        ["bygones.sufficiency", job.addresses.recipe, job.addresses.contract, one, other, until]
    )
    known = job.store.records(address).get("sufficiency")
    if known is None:
        found = check_sufficiency(job.script, job.home, (one, other), study.fork_at, until)
        known = {**found.to_dict(), "said": str(found)}
        job.store.write_record(address, "sufficiency", known)
    return {"sufficiency": known}


def _state_at_end(job: Job, seed: int, arm: str) -> str:
    for index, segment in enumerate(job.tree.segments):
        if segment.leaf and arm in segment.arms:
            records = job.store.records(job.addresses.history(seed, segment.history))
            return records[record_name(job, index)]["state"]
    return ""


def _size(shape: tuple[int, ...]) -> int:
    size = 4
    for length in shape:
        size *= length
    return size
