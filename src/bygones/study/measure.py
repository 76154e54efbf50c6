"""Measure a study: plan it, train what the store does not hold, and gather the outcomes."""

from __future__ import annotations

import platform
from collections.abc import Callable

import xarray as xr

from bygones.core.errors import OutOfMemory, StoreError, WorkerError
from bygones.store import AbstractStore
from bygones.study.certificate import certificate_address, certify
from bygones.study.design import Study
from bygones.study.executors import AbstractExecutor, Serial
from bygones.study.gather import gather_segments, hold_store
from bygones.study.plan import Plan, halve_lanes, plan, remember_choice
from bygones.study.segment import SeedsJob, run_seeds
from bygones.study.tree import remaining
from bygones.training.contract import Contract
from bygones.training.lanes.lane_width import Width


def measure(
    study: Study,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    *,
    lanes: Width | None = None,
    device: str = "cpu",
    merge: bool = True,
    planned: Plan | None = None,
    on_job: Callable[[int], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Run a study and return its outcomes. What is stored is not trained again.

    `store`: a `FolderStore` or `RemoteStore` to keep it; without one it is kept in memory. `executor`:
    `Serial()` unless said otherwise. `lanes` and `device` as in `plan`. `merge`: end the training of an arm
    that equals its control to the bit (see `study.merging`); the outcomes are the same. `on_job` is called
    with the steps done, each time a seed, or the seeds of a job, are finished. Lanes that turn out not to
    fit into the device's memory are planned anew with fewer, and `on_plan` is called with that plan.
    """
    executor = executor or Serial()
    executor.get_ready()
    workers = executor.num_workers or 1
    planned = planned or plan(study, store, lanes=lanes, device=device, workers=workers)
    with hold_store(planned.store):
        while True:
            certificate = certify(planned)
            remember_choice(planned)
            try:
                _train(planned, executor, on_job, merge)
                break
            except OutOfMemory:
                if planned.contract.lanes == 1:
                    raise
            planned = halve_lanes(planned, workers)
            if on_plan is not None:
                on_plan(planned)
        _check_stored(planned)
        return gather_segments(planned, certificate)


def _train(
    planned: Plan, executor: AbstractExecutor, on_job: Callable[[int], None] | None, merge: bool
) -> None:
    train = run_seeds if isinstance(executor, Serial) else run_seeds_elsewhere
    for steps in executor.map(train, planned.jobs(merge=merge)):
        if on_job is not None:
            on_job(steps)


def run_seeds_elsewhere(job: SeedsJob) -> int:
    """Train seeds in a worker process, after checking that its contract, code and store are the planned ones.

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
    if not job.store.has_record(certificate_address(job.addresses), "certificate"):
        raise StoreError(
            f"the worker on {platform.node()} does not see the study's store, so what it trained would be "
            f"lost. A store's folder has to be on a disk that all machines share, at the same path; or "
            f"use a store at a URL."
        )
    return run_seeds(job)


def _check_stored(planned: Plan) -> None:
    """Raise `StoreError` where a worker's results are not in the store: a shared disk may show them late."""
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
