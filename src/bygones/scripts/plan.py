"""Plan a study: what it will train, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
from bygones.attach.live_run import Live
from bygones.core.errors import DesignError
from bygones.core.importing import load_object
from bygones.core.study_facts import OrderFacts
from bygones.scripts.arm_process import Job, record_name
from bygones.scripts.arm_syntax import default_arms, parse_arm
from bygones.scripts.pilot import PilotResult, run_pilot
from bygones.store import FolderStore
from bygones.study.describe import describe_study
from bygones.study.design import Study, add_reference_arms, check_design, design_findings
from bygones.study.design_json import design_to_json
from bygones.study.plan import Plan
from bygones.study.tree import Addresses, donor_steps, plan_tree
from bygones.training.contract import Contract
from bygones.training.lanes.lane_width import Choice

ASKED_FOR = "it was asked for"


@dataclass(frozen=True)
class ScriptRequest:
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
    scouted: PilotResult
    replays: str
    todo: Mapping[int, frozenset[int]]
    sufficiency: bool = False


def plan_script(asked: ScriptRequest, home: Path, store: FolderStore) -> ScriptPlan:
    """Runs the script up to the fork, once, and says what its study is and what it costs."""
    check_script(asked.script)
    probe = load_object(str(asked.probe)) if asked.probe else None
    if not asked.seeds:
        raise DesignError("a study needs seeds; got none. Try --seeds 0-7.")
    warm()
    found = run_pilot(asked.script, home, asked.seeds[0], asked.fork_at, _ask(asked), probe)
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
        facts=replace(
            described,
            recipe=str(found.script),
            orders=found.order,
            digests={"study": study.digest(), "recipe": found.script.code()},
            headline=study.headline,
            family=asdict(study.declared),
            findings=tuple(notes),
            contract=contract.to_dict(),
            design=design_to_json(study),
            rng=found.rng,
            way=_way(replays, found, job),
            num_steps={"naive": num_seeds * whole, "shared": num_seeds * shared},
        ),
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


def _ask(asked: ScriptRequest) -> Callable[[Live], Any]:
    """What has to be found out at the fork: the arms, their nulls, and whether they mean anything."""

    def ask(live: Live) -> Any:
        study = Study(
            recipe=asked.script,
            arms=[parse_arm(text, asked.fork_at) for text in asked.arms]
            or default_arms(live.sources, asked.fork_at, max(asked.horizons, default=0)),
            fork_at=asked.fork_at,
            horizons=asked.horizons,
            seeds=asked.seeds,
            name=asked.name or Path(asked.script.path).stem,
            margins=asked.margins,
        )
        check_design(study, live)
        _check_transplants(study)
        arms = add_reference_arms(study, live)
        return (
            study,
            arms,
            design_findings(study, live),
            describe_study(study, arms, live, OrderFacts()),
        )

    return ask


def _check_transplants(study: Study) -> None:
    for arm in study.arms:
        for treatment in arm.treatments:
            if treatment.needs_donor and treatment.source in ("order", "streams"):
                raise DesignError(
                    f"arm '{arm.name}': '{treatment.source}' cannot be transplanted between runs of a "
                    f"script. Use reseed, which draws it again."
                )


def _with_probe(study: Study, found: PilotResult, asked: ScriptRequest) -> Study:
    assert found.inputs is not None
    return replace(study, recipe=asked.script, probe=found.inputs.probe())


def _how(
    asked: ScriptRequest, home: Path, found: PilotResult, probe: Any
) -> tuple[PilotResult, str]:
    """Whether arms can be forked: why not, in words, and what was found the way that it will be done."""
    if found.num_workers and found.emulates:
        script, seed = found.script, asked.seeds[0]
        real = run_pilot(script, home, seed, asked.fork_at, _ask(asked), probe, emulates=False)
        if real.chain != found.chain:
            return replace(real, script=script), (
                "its loader's worker processes deliver other batches than the same work done in one "
                "process (they keep state of their own, or share some)"
            )
    if asked.replay:
        return found, ASKED_FOR
    return found, found.why_not_fork or ""


def _way(replays: str, found: PilotResult, job: Job) -> str:
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


def _size(shape: tuple[int, ...]) -> int:
    size = 4
    for length in shape:
        size *= length
    return size
