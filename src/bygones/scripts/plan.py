"""Plan a script's study: run the script up to the fork, and say what its study costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bygones.analysis.metrics import DISTANCES
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
from bygones.attach.live_run import Live
from bygones.core.catalogue import unknown_name
from bygones.core.errors import BygonesError, DesignError, ScriptError
from bygones.core.importing import load_object
from bygones.core.study_facts import OrderFacts, StudyFacts
from bygones.core.values import Digest
from bygones.scripts.arm_process import Job, record_name
from bygones.scripts.arm_syntax import default_arms, parse_arm
from bygones.scripts.pilot import PilotResult, run_pilot
from bygones.store import FolderStore
from bygones.study.describe import describe_study
from bygones.study.design import Arm, Study, add_reference_arms, check_design, design_findings
from bygones.study.design_json import design_to_json
from bygones.study.plan import Plan, note_other_version
from bygones.study.repeats import name_branches
from bygones.study.tree import Addresses, donor_steps, plan_tree
from bygones.training.contract import Contract
from bygones.training.lanes.lane_width import Choice

ASKED_FOR = "it was asked for"


@dataclass(frozen=True)
class ScriptRequest:
    """A script's study as it was typed: the script, the arms as text, and where to fork."""

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
    observe: str = ""  # the model that leads; "" for the trained one
    metric: str = ""  # the distance that leads; "" for that of the probe


@dataclass(frozen=True)
class ScriptPlan:
    """A script's study that has been checked: what it costs, and how its arms are made.

    `replays`: why arms are run from the start instead of forked, in words; empty if they are forked.
    """

    plan: Plan
    job: Job
    scouted: PilotResult
    replays: str
    todo: Mapping[int, frozenset[int]]
    sufficiency: bool = False


def plan_script(asked: ScriptRequest, home: Path, store: FolderStore) -> ScriptPlan:
    """Run the script up to the fork, and return what its study is, how arms are made, and what it costs.

    Raises `DesignError` where an arm means nothing in this run, and `ScriptError` where the script cannot
    be studied.
    """
    found, replays = _run_pilots(asked, home)
    if found.inputs is None:
        assert found.why_no_inputs is not None
        raise ScriptError(
            f"{found.why_no_inputs} Or give --probe FILE:FUNCTION, a function of the model that returns an "
            f"array [inputs, outputs]."
        )
    _check_sufficiency(asked, replays)
    study, arms, notes, described = found.answer
    study = replace(study, recipe=found.script, probe=found.inputs.probe())
    if asked.metric:
        _check_metric(asked.metric, study.probe.kind)
        study = replace(study, family=replace(study.declared, metrics=(asked.metric,)))
    contract = replace(Contract.here(), deterministic=False, threads=found.threads)
    job = Job(
        script=found.script,
        home=home,
        study=study,
        tree=plan_tree(arms, study.steps),
        addresses=Addresses.of(study, contract),
        store=FolderStore(store.folder.absolute()),  # the script may go to another folder
        inputs=found.inputs,
        shape=(1 + len(found.models), *found.shape),
        models=found.models,
        output=Path(store.folder).resolve() / "output",
        forks=not replays,
        emulates=found.emulates,
    )
    todo = {seed: _missing(job, seed) for seed in study.seeds}
    facts = replace(
        described,
        recipe=str(found.script),
        orders=found.order,
        digests={"study": study.digest(), "recipe": found.script.code()},
        headline=asked.metric or study.headline,
        family=asdict(study.declared),
        findings=tuple(notes),
        contract=contract.to_dict(),
        design=design_to_json(study),
        rng=found.rng,
        way=_describe_way(replays, found, job),
        models=_models(asked.observe, found),
    )
    plan = _plan(job, arms, contract, todo, facts, found.seconds_a_step)
    return ScriptPlan(plan, job, found, replays, todo, asked.sufficiency)


def _check_metric(name: str, kind: str) -> None:
    """Raise for a name that is no distance between what is observed."""
    needs = DISTANCES[name].input_kind
    if (needs == "values") != (kind == "values"):
        raise DesignError(
            f"--metric {name} is a distance of {needs.replace('_', ' ')}, and this script's outputs are "
            f"{'plain values' if kind == 'values' else 'logits of classes'}. `bygones list metrics` lists "
            f"the others."
        )


def _models(asked: str, found: PilotResult) -> tuple[str, ...]:
    """The models that are observed, the one that is asked for first; () for the trained one alone."""
    assert found.inputs is not None
    trained = found.inputs.module.partition("/")[0]
    models = (trained, *found.models)
    if asked and asked not in models:
        raise unknown_name("model that is alive", asked, models)
    lead = asked or trained
    return (lead, *(name for name in models if name != lead)) if found.models else ()


def _run_pilots(asked: ScriptRequest, home: Path) -> tuple[PilotResult, str]:
    """Run the script up to the fork, and say why arms cannot be forked; "" if they can."""
    check_script(asked.script)
    probe = load_object(str(asked.probe)) if asked.probe else None
    if not asked.seeds:
        raise DesignError("a study needs seeds; got none. Try --seeds 0-7.")
    warm()
    found = run_pilot(asked.script, home, asked.seeds[0], asked.fork_at, _query(asked), probe)
    warm_for(found.libraries)
    return _compare_emulation(asked, home, found, probe)


def _check_sufficiency(asked: ScriptRequest, replays: str) -> None:
    if asked.sufficiency and (replays or len(asked.seeds) < 2):
        why = replays or "only one seed was given"
        raise DesignError(
            f"--sufficiency moves all memory of one seed's run into another's forked run, which is not "
            f"possible here: {why.rstrip('.')}."
        )


def _plan(
    job: Job,
    arms: tuple[Arm, ...],
    contract: Contract,
    todo: Mapping[int, frozenset[int]],
    facts: StudyFacts,
    seconds_a_step: float,
) -> Plan:
    """The cost of what is left to do. `todo`: the missing segments of each seed."""
    study, tree = job.study, job.tree
    num_seeds, donors = len(study.seeds), donor_steps(arms)
    whole = sum(segment.leaf for segment in tree.segments) * study.end + donors
    shared = tree.num_steps + donors if job.forks else whole
    left = {seed: _steps_left(job, missing) for seed, missing in todo.items()}
    unfinished = frozenset(seed for seed, missing in todo.items() if missing)
    steps_left = sum(left.values()) + donors * len(unfinished)
    steps_naive, steps_shared = num_seeds * whole, num_seeds * shared
    return Plan(
        study=study,
        arms=arms,
        branches=name_branches(arms, study.steps),
        tree=tree,
        addresses=job.addresses,
        contract=contract,
        choice=Choice(1, "Each seed is a process of its own."),
        store=job.store,
        facts=replace(facts, num_steps={"naive": steps_naive, "shared": steps_shared}),
        images=None,
        steps_naive=steps_naive,
        steps_shared=steps_shared,
        steps_left=steps_left,
        bytes_total=num_seeds * len(arms) * len(study.steps) * 4 * math.prod(job.shape),
        seconds_a_step=seconds_a_step,
        seconds_a_look=0.0,
        looks_left=0,
        seeds_left=unfinished,
        pending=_pending(job, todo),
        note=note_other_version(study, job.store, contract) if steps_left == steps_shared else "",
    )


def _pending(job: Job, todo: Mapping[int, frozenset[int]]) -> tuple[tuple[Digest, str, int], ...]:
    """Address, record name and steps of each missing segment."""
    segments = job.tree.segments
    return tuple(
        (
            job.addresses.history(seed, segments[index].history),
            record_name(job, index),
            segments[index].stop - segments[index].start,
        )
        for seed, missing in todo.items()
        for index in missing
    )


def _query(asked: ScriptRequest) -> Callable[[Live], Any]:
    """The question to the pilot at the fork: check the design there, and find its reference arms."""

    def query(live: Live) -> Any:
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
        arms = add_reference_arms(study.arms, live)
        return (
            study,
            arms,
            design_findings(study, live),
            describe_study(study, arms, live, OrderFacts()),
        )

    return query


def _query_or_error(asked: ScriptRequest) -> Callable[[Live], Any]:
    """The same question, answered by its error where the design is impossible there.

    With real worker processes there is no `order` to treat, which only matters if they are needed.
    """
    query = _query(asked)

    def ask(live: Live) -> Any:
        try:
            return query(live)
        except BygonesError as error:
            return error

    return ask


def _check_transplants(study: Study) -> None:
    for arm in study.arms:
        for treatment in arm.treatments:
            if treatment.needs_donor and treatment.source in ("order", "streams"):
                raise DesignError(
                    f"arm '{arm.name}': '{treatment.source}' cannot be transplanted between runs of a "
                    f"script. Use reseed, which draws it again."
                )


def _compare_emulation(
    asked: ScriptRequest, home: Path, found: PilotResult, probe: Any
) -> tuple[PilotResult, str]:
    """Run the pilot with real worker processes too, and say why arms cannot be forked; "" if they can.

    Returns the result of the pilot that ran as the arms will.
    """
    if found.num_workers and found.emulates:
        script, seed = found.script, asked.seeds[0]
        query = _query_or_error(asked)
        real = run_pilot(script, home, seed, asked.fork_at, query, probe, emulates=False)
        if real.chain != found.chain:
            if isinstance(real.answer, BygonesError):
                raise real.answer
            return replace(real, script=script), (
                "its loader's worker processes deliver other batches than the same work done in one "
                "process (they keep state of their own, or share some)"
            )
    if asked.replay:
        return found, ASKED_FOR
    return found, found.why_not_fork or ""


def _describe_way(replays: str, found: PilotResult, job: Job) -> str:
    """Describe for the report how arms were made from one run."""
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
    """The segments of a seed that the store does not hold."""
    missing = set()
    for index, segment in enumerate(job.tree.segments):
        records = job.store.records(job.addresses.history(seed, segment.history))
        record = records.get(record_name(job, index))
        if record is None or not job.store.has(record["observed"]):
            missing.add(index)
    return frozenset(missing)


def _steps_left(job: Job, missing: frozenset[int]) -> int:
    """Steps to run for the missing segments: their own, and those that lead there."""
    segments = job.tree.segments
    if not missing:
        return 0
    if not job.forks:
        return (
            sum(segments[i].stop for i in missing if segments[i].leaf)
            or segments[max(missing)].stop
        )
    needed = {index for leaf in missing for index in job.tree.line(leaf)}
    return sum(segments[i].stop - segments[i].start for i in needed)
