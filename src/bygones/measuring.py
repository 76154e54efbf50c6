"""A study from beginning to end: check, plan, train what is missing, gather."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from bygones.contract import Contract
from bygones.design import design
from bygones.digest import digest
from bygones.errors import OutOfMemory, StoreError, WorkerError
from bygones.executors import AbstractExecutor, Serial
from bygones.forking import check_fork
from bygones.inventory import describe, state_bytes
from bygones.lanes.choosing import Choice, Width, choose, narrower, too_large
from bygones.outcomes import Entry, Manifest, read_outcomes, write_manifest
from bygones.probes import AbstractProbe
from bygones.rng import addressed
from bygones.run import Run
from bygones.segment import SeedsJob, run_seeds
from bygones.store import AbstractStore, FolderStore, MemoryStore, Record, pack, unpack_meta
from bygones.study import Arm, Study, check_design, findings, full_arms
from bygones.tree import (
    Addresses,
    Segment,
    Tree,
    donor_boundaries,
    donor_steps,
    plan_tree,
    remaining,
)
from bygones.values import Digest


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
    attributes: dict[str, Any]
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
        arms = full_arms(study, run)
        tree = plan_tree(arms, study.steps)
        addresses = Addresses.of(study, contract)
        order = {
            "policy": type(run.parts.order).__name__,
            "policy_hash": run.parts.order.policy_hash(),
        }
        left = {seed: remaining(tree, seed, addresses, store) for seed in study.seeds}
        attributes = {
            **describe(study, arms, run, order),
            "findings": findings(study, run),
            "contract": contract.to_dict(),
            "design": design(study),
            "rng": addressed(run),
            "lanes": choice.to_dict(),
        }
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
        attributes={**attributes, "num_steps": {"naive": steps_naive, "shared": steps_shared}},
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
        return choose(
            study.recipe,
            study.seeds,
            study.probe,
            workers=workers,
            asked=lanes or 1,
            device=device,
        )


def _remember(planned: Plan) -> None:
    """Notes how this store was filled, so that what is added later is trained alike."""
    alone = replace(planned.contract, lanes=1)
    address, said = _choice_address(planned.study, alone), planned.choice.to_dict()
    if planned.store.records(address).get("choice") != said:
        planned.store.write_record(address, "choice", said)


def _choice_address(study: Study, alone: Contract) -> Digest:
    return digest(["bygones.lanes", study.recipe.code(), alone.digest()])


def certify(planned: Plan) -> dict[str, Any]:
    """The fork check of the study's recipe: from the store if it was passed before, else run now.

    Forks at steps 1 and 7, on both sides of the first epoch's edge, and a little later; a recipe that
    fails is refused.
    """
    study = planned.study
    address = _certificate_address(planned.addresses)
    known = planned.store.records(address).get("certificate")
    if known is not None:
        return known
    with planned.contract.in_force():
        device = planned.contract.device
        run = Run(study.recipe, study.seeds[0], device)
        edge = min(run.parts.order.steps_per_epoch, 200)
        at = sorted({1, 7, max(edge - 1, 1), edge, edge + 1})
        certificate = check_fork(
            study.recipe, at=at, until=max(at) + 8, seed=study.seeds[0], device=device
        )
    record = certificate.to_dict()
    planned.store.write_record(address, "certificate", record)
    return record


def _certificate_address(addresses: Addresses) -> Digest:
    return digest(["bygones.certificate", 2, addresses.recipe, addresses.contract])


def measure(
    study: Study,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    *,
    lanes: Width | None = None,
    device: str = "cpu",
    planned: Plan | None = None,
    on_job: Callable[[int], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Runs a study and returns its outcomes: what is stored is not trained again.

    `store`: a `FolderStore` or `RemoteStore` to keep it; without one it is kept in memory. `executor`:
    `Serial()` unless said otherwise. `lanes` and `device` as in `plan`. `on_job` is called with the steps
    trained, each time a seed, or the seeds of a job, are finished. Lanes that turn out not to fit into the
    device's memory are planned anew with fewer, and `on_plan` is called with that plan.
    """
    executor = executor or Serial()
    executor.get_ready()
    workers = executor.num_workers or 1
    planned = planned or plan(study, store, lanes=lanes, device=device, workers=workers)
    holding = planned.store.training() if isinstance(planned.store, FolderStore) else nullcontext()
    with holding:
        while True:
            certificate = certify(planned)
            _remember(planned)
            try:
                _train(planned, executor, on_job)
                break
            except OutOfMemory:
                if planned.contract.lanes == 1:
                    raise
            planned = _narrower(planned, workers)
            if on_plan is not None:
                on_plan(planned)
        _check_stored(planned)
        manifest = manifest_of(planned, certificate)
        write_manifest(planned.store, manifest)
    return read_outcomes(planned.store, manifest)


def _train(planned: Plan, executor: AbstractExecutor, on_job: Callable[[int], None] | None) -> None:
    train = run_seeds if isinstance(executor, Serial) else _run_seeds_elsewhere
    for steps in executor.map(train, planned.jobs()):
        if on_job is not None:
            on_job(steps)


def _narrower(planned: Plan, workers: int) -> Plan:
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
    return replace(newer, choice=choice, attributes={**newer.attributes, "lanes": choice.to_dict()})


def _run_seeds_elsewhere(job: SeedsJob) -> int:
    """Trains seeds in another process, perhaps on another machine, if that is all as it is here.

    Addresses say under which contract and from which code something was trained, so what a worker with
    other versions or an older copy of the recipe trained would lie under a wrong name.
    """
    here = Contract.here(job.contract.lanes, job.contract.device).to_dict()
    there = job.contract.to_dict()
    differing = [
        f"{name} {there[name]} there, {here[name]} here"
        for name in there
        if there[name] != here[name]
    ]
    if differing:
        raise WorkerError(
            f"the worker on {platform.node()} cannot train what was planned on another machine, since its "
            f"bits would differ: {'; '.join(differing)}. Use machines of one kind with the same packages."
        )
    if job.recipe.code() != job.addresses.recipe:
        raise WorkerError(
            f"the worker on {platform.node()} has other code of the recipe {job.recipe} than there was when "
            f"the study was planned. Give all machines the same files; if they have, a constant of the "
            f"recipe changes while it runs."
        )
    if not job.store.has_record(_certificate_address(job.addresses), "certificate"):
        raise StoreError(
            f"the worker on {platform.node()} does not see the study's store, so what it trained would be "
            f"lost. A store's folder has to be on a disk that all machines share, at the same path; or "
            f"use a store at a URL."
        )
    return run_seeds(job)


def _check_stored(planned: Plan) -> None:
    """What workers say they have trained has to be here: a shared disk may show it late, or never."""
    study = planned.study
    unseen = [
        seed
        for seed in study.seeds
        if seed in planned.seeds_left
        and remaining(planned.tree, seed, planned.addresses, planned.store)
    ]
    if unseen:
        raise StoreError(
            f"{study.name}: workers have trained {len(unseen)} seeds, like {unseen[0]}, that cannot be "
            f"seen in the store. A shared disk may be late: run again in a minute, and only what is missing "
            f"is trained."
        )


def manifest_of(planned: Plan, certificate: dict[str, Any]) -> Manifest:
    """Finds, for each seed and segment, the stored objects that hold what was observed there."""
    study, tree = planned.study, planned.tree
    names = [arm.name for arm in planned.arms]
    entries: list[Entry] = []
    orders: dict[str, Digest] = {}
    for seed in study.seeds:
        for segment in tree.segments:
            rows = [names.index(name) for name in segment.arms]
            for record in _records_of(planned, seed, segment):
                low, high = max(record["start"], segment.start), min(record["stop"], segment.stop)
                diverged = record["diverged_at"]
                mine = record["probe"] == planned.addresses.probe
                entries.append(
                    Entry(
                        seed=seed,
                        arms=rows,
                        object=record["observed"],
                        start=record["start"],
                        low=low,
                        high=high,
                        steps=[s if mine and s in segment.steps else -1 for s in record["steps"]],
                        diverged_at=diverged if diverged is not None and diverged < high else None,
                    )
                )
                if "control" in segment.arms and study.end in record["steps"]:
                    lines = unpack_meta(planned.store.get(record["observed"]))["ledger"]
                    orders[str(seed)] = lines[record["steps"].index(study.end)]["ids"]
    attributes = {**planned.attributes, "certificate": certificate}
    attributes["orders"] = {**attributes["orders"], "realised": orders}
    images = planned.images
    return Manifest(
        kind=study.probe.kind,
        seeds=list(study.seeds),
        steps=list(study.steps),
        end=study.end,
        entries=entries,
        attributes=attributes,
        images=None if images is None else planned.store.put(pack({"images": images}, {})),
    )


def _records_of(planned: Plan, seed: int, segment: Segment) -> list[Record]:
    """Sound records that cover or touch some of a segment, by their start (either may have no length).

    Those of another probe too: the losses are the same.
    """
    address = planned.addresses.history(seed, segment.history)
    records = [
        record
        for record in planned.store.records(address).values()
        if record["observed"] and planned.store.has(record["observed"])
    ]
    covering = [r for r in records if r["start"] <= segment.stop and r["stop"] >= segment.start]
    return sorted(covering, key=lambda record: (record["start"], record["stop"]))


def _seconds_a_look(run: Run, probe: AbstractProbe) -> float:
    began = time.perf_counter()
    run.observe(probe, check=False)
    run.entry()
    return time.perf_counter() - began


def _seconds_a_step(run: Run, num_steps: int = 8) -> float:
    """The time of a step of this run, here and now; the run is left where it was."""
    kept = run.snapshot()
    began = time.perf_counter()
    run.advance(run.step + num_steps)
    seconds = (time.perf_counter() - began) / num_steps
    run.restore(kept)
    return seconds
