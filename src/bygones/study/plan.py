"""Plan a study: what it will train, and what that costs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from bygones.core.digest import digest
from bygones.core.study_facts import OrderFacts, StudyFacts
from bygones.core.values import Digest
from bygones.store import AbstractStore, MemoryStore
from bygones.study.describe import describe_study, state_bytes
from bygones.study.design import Arm, Study, add_reference_arms, check_design, design_findings
from bygones.study.design_json import design_to_json
from bygones.study.segment import SeedsJob
from bygones.study.tree import Addresses, Tree, donor_boundaries, donor_steps, plan_tree, remaining
from bygones.training.contract import Contract
from bygones.training.lanes.lane_width import Choice, Width, choose_lanes, narrower, too_large
from bygones.training.probes import AbstractProbe
from bygones.training.rng_contract import addressed_contract
from bygones.training.run import Run


@dataclass(frozen=True)
class Plan:
    """A study that has been checked, with what it will cost.

    `steps_naive`: every arm of every seed from the beginning. `steps_shared`: each shared stretch once.
    `steps_left`: what the store does not hold yet. `bytes_total`: what the store will hold, about.
    """

    study: Study
    arms: tuple[Arm, ...]
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

    def seconds_left(self, workers: int) -> float:
        """About how long the rest takes, beside what it takes workers to start.

        rounds · (seeds of a job) · (a seed's steps and looks), where a job with empty lanes is no cheaper
        """
        num_seeds, width = len(self.seeds_left), self.contract.lanes
        if not num_seeds:
            return 0.0
        steps, looks = self.steps_left / num_seeds, self.looks_left / num_seeds
        rounds = ceil(ceil(num_seeds / width) / workers)
        looking = min(width, num_seeds) * looks * self.seconds_a_look
        return rounds * (width * steps * self.seconds_a_step + looking)

    def steps_done(self) -> int:
        """Steps of what was left that have been trained since: cheap, whoever trains them."""
        return sum(
            steps for address, name, steps in self.pending if self.store.has_record(address, name)
        )

    def jobs(self) -> list[SeedsJob]:
        """The seeds that have something left to do, as many to a job as there are lanes."""
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
    """Checks a study and says what it costs, training no more than a few steps.

    `lanes`: seeds that take their steps together; "auto" for what is fastest on so many `workers`. A store
    goes on as it was filled unless a number says otherwise; without one, seeds are trained one by one.
    `device`: where they are trained, by torch's name for it.
    Raises `DesignError` where an arm means nothing in this run. A few steps are trained to see how long one
    takes and which state the optimizer creates on its first.
    """
    store = store if store is not None else MemoryStore()
    choice = _choice(study, store, lanes, workers, device)
    contract = Contract.here(choice.lanes, device)
    with contract.in_force():
        run = Run(study.recipe, study.seeds[0], device)
        run.advance(2)
        check_design(study, run)
        seconds = choice.seconds_a_step or _seconds_a_step(run)
        arms = add_reference_arms(study, run)
        tree = plan_tree(arms, study.steps)
        addresses = Addresses.of(study, contract)
        order = OrderFacts(type(run.parts.order).__name__, run.parts.order.policy_hash())
        left = {seed: remaining(tree, seed, addresses, store) for seed in study.seeds}
        facts = replace(
            describe_study(study, arms, run, order),
            findings=tuple(design_findings(study, run)),
            contract=contract.to_dict(),
            design=design_to_json(study),
            rng=addressed_contract(run),
            lanes=choice.to_dict(),
        )
        observed = run.observe(study.probe)
        look = _seconds_a_look(run, study.probe)
        images = run.parts.probe_images
        snapshot = sum(state_bytes(state) for state in run.snapshot().states.values())
    num_seeds = len(study.seeds)
    donors = donor_steps(arms)
    steps_naive = num_seeds * (len(arms) * study.end + donors)
    steps_shared = num_seeds * (tree.num_steps + donors)
    per_seed = len(arms) * len(study.steps) * observed.nbytes + len(tree.segments) * snapshot
    return Plan(
        study=study,
        arms=arms,
        tree=tree,
        addresses=addresses,
        contract=contract,
        choice=choice,
        store=store,
        facts=replace(facts, num_steps={"naive": steps_naive, "shared": steps_shared}),
        images=None if images is None else images.float().cpu().numpy(),
        steps_naive=steps_naive,
        steps_shared=steps_shared,
        steps_left=sum(
            sum(work.num_steps for work in works) + max(donor_boundaries(tree, works), default=0)
            for works in left.values()
        ),
        bytes_total=num_seeds * per_seed,
        seconds_a_step=seconds,
        seconds_a_look=look,
        looks_left=sum(len(work.steps) for works in left.values() for work in works),
        seeds_left=frozenset(seed for seed, works in left.items() if works),
        pending=tuple(
            (
                addresses.history(seed, tree.segments[work.index].history),
                work.record_name(addresses.probe),
                work.num_steps,
            )
            for seed, works in left.items()
            for work in works
        ),
    )


def _choice(
    study: Study, store: AbstractStore, lanes: Width | None, workers: int, device: str
) -> Choice:
    """How wide the lanes are: as asked, else as this store was filled before."""
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
    """Notes how this store was filled, so that what is added later is trained alike."""
    alone = replace(planned.contract, lanes=1)
    address, said = _choice_address(planned.study, alone), planned.choice.to_dict()
    if planned.store.records(address).get("choice") != said:
        planned.store.write_record(address, "choice", said)


def _choice_address(study: Study, alone: Contract) -> Digest:
    return digest(["bygones.lanes", study.recipe.code(), alone.digest()])


def halve_lanes(planned: Plan, workers: int) -> Plan:
    """The same study with fewer seeds in a step. It is another contract, so it starts from nothing."""
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


def _seconds_a_look(run: Run, probe: AbstractProbe) -> float:
    began = time.perf_counter()
    run.observe(probe, check=False)
    run.ledger_entry()
    return time.perf_counter() - began


def _seconds_a_step(run: Run, num_steps: int = 8) -> float:
    """The time of a step of this run, here and now; the run is left where it was."""
    kept = run.snapshot()
    began = time.perf_counter()
    run.advance(run.step + num_steps)
    seconds = (time.perf_counter() - began) / num_steps
    run.restore(kept)
    return seconds
