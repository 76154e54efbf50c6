"""Plan a study: what it will train, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from bygones.analysis.designs import Costs
from bygones.core.digest import digest
from bygones.core.errors import StoreError, UnknownName
from bygones.core.notebook_text import html_table
from bygones.core.study_facts import OrderFacts, StudyFacts
from bygones.core.text import format_bytes, format_count
from bygones.core.values import Digest
from bygones.store import AbstractStore, MemoryStore
from bygones.store.outcomes import read_manifest
from bygones.study.describe import describe_study, state_bytes
from bygones.study.design import Arm, Study, check_design, design_findings
from bygones.study.design_json import design_to_json
from bygones.study.other_runs import segment_steps, work_steps
from bygones.study.repeats import Branch, make_branches
from bygones.study.segment import SeedsJob, observe_models
from bygones.study.tree import (
    Addresses,
    Tree,
    Work,
    donor_boundaries,
    donor_steps,
    plan_tree,
    remaining,
)
from bygones.training.contract import Contract
from bygones.training.lanes.lane_width import Choice, Width, choose_lanes, narrower, too_large
from bygones.training.probes import AbstractProbe
from bygones.training.rng_contract import addressed_contract
from bygones.training.run import Run


@dataclass(frozen=True)
class Plan:
    """A study that has been checked, with its cost.

    `steps_naive`: every arm of every seed from the beginning. `steps_shared`: each shared stretch once.
    `steps_left`: what the store does not hold yet. `bytes_total`: what the store will hold, about.
    """

    study: Study
    arms: tuple[Arm, ...]
    branches: tuple[Branch, ...]  # the arms of every repeat
    tree: Tree
    addresses: Addresses
    contract: Contract
    choice: Choice  # whether seeds take their steps together, and why
    store: AbstractStore
    facts: StudyFacts
    images: np.ndarray | None
    steps_naive: int
    steps_shared: int
    steps_left: int
    bytes_total: int
    seconds_a_step: float
    seconds_a_look: float  # to observe and digest one run at one boundary
    looks_left: int
    seeds_left: frozenset[int]
    pending: tuple[tuple[Digest, str, int], ...]  # address, record and steps of what is left to do
    note: str = ""  # on what the store holds already, for the person who trains into it

    def __repr__(self) -> str:
        return f"<Plan of {self._in_words()}>"

    def _in_words(self) -> str:
        seeds = format_count(len(self.study.seeds), "seed")
        arms = format_count(len(self.arms), "arm")
        left = format_count(self.steps_left, "step", separator=",")
        return f"{self.study.name}: {seeds} × {arms} to step {self.study.end}, {left} left to train"

    def _repr_html_(self) -> str:
        """Return the memory that was found in the run as a table, for a notebook."""
        rows = [
            (one.name, one.origin, one.lifetime, format_bytes(one.bytes))
            for one in self.facts.sources or ()
        ]
        notes = [self.choice.why, *(self.facts.findings or ())]
        return html_table(self._in_words(), ("memory", "class", "lasts", "size"), rows, notes)

    def seconds_left(self, workers: int) -> float:
        """Estimate the time that is left, in seconds, without the time that workers take to start.

        rounds · (seeds of a job) · (a seed's steps and observations); a job with empty lanes is no cheaper
        """
        num_seeds, width = len(self.seeds_left), self.contract.lanes
        if not num_seeds:
            return 0.0
        steps, looks = self.steps_left / num_seeds, self.looks_left / num_seeds
        rounds = ceil(ceil(num_seeds / width) / workers)
        observing = min(width, num_seeds) * looks * self.seconds_a_look
        return rounds * (width * steps * self.seconds_a_step + observing)

    def costs(self) -> Costs:
        """The steps of one seed up to the fork, and those of all its arms after it, without repeats."""
        past = self.study.fork_at
        first = [branch.arm for branch in self.branches if branch.repeat == 0]
        tree = plan_tree(first, self.study.steps)
        return Costs(past, sum(map(segment_steps, tree.segments)) - past)

    def steps_done(self) -> int:
        """Count the pending steps that have been trained since, by this process or another."""
        return sum(
            steps for address, name, steps in self.pending if self.store.has_record(address, name)
        )

    def jobs(self, *, merge: bool = True) -> list[SeedsJob]:
        """The jobs that are left: seeds with missing segments, as many to a job as there are lanes.

        `merge`: end the training of arms that equal their control to the bit, but for the first seed's sham.
        """
        study, width = self.study, self.contract.lanes
        left = [seed for seed in study.seeds if seed in self.seeds_left]
        return [
            SeedsJob(
                tuple(left[start : start + width]),
                study.recipe,
                study.probe,
                self.tree,
                self.addresses,
                self.contract,
                self.store,
                merge,
                study.seeds[0],
            )
            for start in range(0, len(left), width)
        ]


def plan(
    study: Study,
    store: AbstractStore | None = None,
    *,
    lanes: Width | None = None,
    device: str = "cpu",
    workers: int = 1,
) -> Plan:
    """Check a study and estimate its cost, training no more than a few steps.

    `lanes`: seeds that take their steps together; "auto" for what is fastest on so many `workers`. A store
    goes on as it was filled unless a number says otherwise; without one, seeds are trained one by one.
    `device`: where they are trained, by torch's name for it.
    Raises `DesignError` where an arm means nothing in this run. A few steps are trained to see how long one
    takes and which state the optimizer creates on its first.
    """
    store = store if store is not None else MemoryStore()
    choice = _choose_lanes(study, store, lanes, workers, device)
    contract = Contract.here(choice.lanes, device)
    with contract.in_force():
        run = Run(study.recipe, study.seeds[0], device)
        run.advance(2)
        check_design(study, run)
        seconds = choice.seconds_a_step or _time_step(run)
        branches = make_branches(study, run)
        arms = tuple(one.arm for one in branches if one.repeat == 0)
        facts = _describe(study, arms, run, contract, choice)
        tree = plan_tree([b.arm for b in branches], {b.arm.name: b.steps for b in branches})
        # After the run, since a recipe may change its constants.
        addresses = Addresses.of(study, contract)
        seed_bytes = _seed_bytes(study, branches, tree, run)
        observation = _time_observation(run, study.probe)
        images = run.parts.probe_images
    left = {seed: remaining(tree, seed, addresses, store) for seed in study.seeds}
    num_seeds, donors = len(study.seeds), donor_steps([branch.arm for branch in branches])
    steps_naive = num_seeds * (sum(branch.steps[-1] for branch in branches) + donors)
    steps_shared = num_seeds * (sum(map(segment_steps, tree.segments)) + donors)
    steps_left = sum(_steps_left(tree, works) for works in left.values())
    return Plan(
        study=study,
        arms=arms,
        branches=branches,
        tree=tree,
        addresses=addresses,
        contract=contract,
        choice=choice,
        store=store,
        facts=replace(facts, num_steps={"naive": steps_naive, "shared": steps_shared}),
        images=None if images is None else images.float().cpu().numpy(),
        steps_naive=steps_naive,
        steps_shared=steps_shared,
        steps_left=steps_left,
        bytes_total=num_seeds * seed_bytes,
        seconds_a_step=seconds,
        seconds_a_look=observation,
        looks_left=sum(len(work.steps) for works in left.values() for work in works),
        seeds_left=frozenset(seed for seed, works in left.items() if works),
        pending=_pending(tree, addresses, left),
        note=note_other_version(study, store, contract) if steps_left == steps_shared else "",
    )


def note_other_version(study: Study, store: AbstractStore, contract: Contract) -> str:
    """A sentence on results of this study that another version of bygones stored; "" if there are none.

    Addresses name the version that trained, so such results are found by the study's name alone.
    """
    try:
        stored = read_manifest(store, study.name)
    except (StoreError, UnknownName):
        return ""
    version = stored.facts.contract.get("bygones")
    if version == contract.bygones:
        return ""
    return (
        f"This store holds results of '{study.name}' that another version of bygones trained ({version}; "
        f"this one is {contract.bygones}). They can be read and reported until this run is finished; "
        f"training starts anew, because addresses in the store have changed. Use another store to keep "
        f"both."
    )


def _describe(
    study: Study, arms: tuple[Arm, ...], run: Run, contract: Contract, choice: Choice
) -> StudyFacts:
    """Return what is stored of the study besides its outcomes."""
    order = OrderFacts(type(run.parts.order).__name__, run.parts.order.policy_hash())
    return replace(
        describe_study(study, arms, run, order),
        findings=tuple(design_findings(study, run)),
        contract=contract.to_dict(),
        design=design_to_json(study),
        rng=addressed_contract(run),
        lanes=choice.to_dict(),
    )


def _seed_bytes(study: Study, branches: tuple[Branch, ...], tree: Tree, run: Run) -> int:
    """About how many bytes one seed takes: an observation an arm and step, a snapshot a segment."""
    observed = observe_models(run, study.probe, check=True)
    snapshot = sum(state_bytes(state) for state in run.snapshot().states.values())
    return len(branches) * len(study.steps) * observed.nbytes + len(tree.segments) * snapshot


def _steps_left(tree: Tree, works: Sequence[Work]) -> int:
    """Steps to train for one seed: of its segments, of what its nulls read, and of its donor."""
    donor = max(donor_boundaries(tree, works), default=0)
    return sum(work_steps(tree, work) for work in works) + donor


def _pending(
    tree: Tree, addresses: Addresses, left: Mapping[int, Sequence[Work]]
) -> tuple[tuple[Digest, str, int], ...]:
    """Address, record name and steps of each piece of work that is left."""
    return tuple(
        (
            addresses.history(seed, tree.segments[work.index].history),
            work.record_name(addresses.probe),
            work_steps(tree, work),
        )
        for seed, works in left.items()
        for work in works
    )


def _choose_lanes(
    study: Study, store: AbstractStore, lanes: Width | None, workers: int, device: str
) -> Choice:
    """Choose how many seeds train in one step: as given, else as this store was filled before."""
    contract = Contract.here(device=device)
    known = store.records(_choice_address(study, contract)).get("choice")
    if known is not None and lanes in (None, "auto", known["lanes"]):
        return Choice(**known)
    with contract.in_force():
        return choose_lanes(
            study.recipe,
            study.seeds,
            study.probe,
            workers=workers,
            asked=lanes or 1,
            device=device,
        )


def remember_choice(planned: Plan) -> None:
    """Record the number of lanes in the store, so that later seeds are trained under the same contract."""
    alone = replace(planned.contract, lanes=1)
    address, said = _choice_address(planned.study, alone), planned.choice.to_dict()
    if planned.store.records(address).get("choice") != said:
        planned.store.write_record(address, "choice", said)


def _choice_address(study: Study, alone: Contract) -> Digest:
    return digest(["bygones.lanes", study.recipe.code(), alone.digest()])


def halve_lanes(planned: Plan, workers: int) -> Plan:
    """Plan the same study with fewer seeds in a step: another contract, so nothing stored can be used."""
    width, device = planned.contract.lanes, planned.contract.device
    newer = plan(
        planned.study,
        planned.store,
        lanes=narrower(width, device),
        device=device,
        workers=workers,
    )
    choice = replace(newer.choice, why=too_large(width) + newer.choice.why)
    return replace(newer, choice=choice, facts=replace(newer.facts, lanes=choice.to_dict()))


def _time_observation(run: Run, probe: AbstractProbe) -> float:
    began = time.perf_counter()
    run.observe(probe, check=False)
    run.ledger_entry()
    return time.perf_counter() - began


def _time_step(run: Run, num_steps: int = 8) -> float:
    """Time a step of this run, in seconds; the run is restored afterwards."""
    kept = run.snapshot()
    began = time.perf_counter()
    run.advance(run.step + num_steps)
    seconds = (time.perf_counter() - began) / num_steps
    run.restore(kept)
    return seconds
