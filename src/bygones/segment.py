"""Training what is missing of one seed's tree: the one function that an executor is handed."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bygones.contract import Contract
from bygones.digest import digest
from bygones.errors import RecipeError, StoreError
from bygones.probes import AbstractProbe
from bygones.recipe import Recipe, import_file, imported_files
from bygones.run import Donor, Run, Snapshot
from bygones.snapshots import decode, encode
from bygones.store import AbstractStore, Damaged, pack
from bygones.streams import mix
from bygones.tree import Addresses, Segment, Tree, Work, donor_boundaries, remaining
from bygones.values import Digest


@dataclass(frozen=True)
class SeedJob:
    """Everything that a worker needs to train one seed; it travels to another process."""

    seed: int
    recipe: Recipe
    probe: AbstractProbe
    tree: Tree
    addresses: Addresses
    contract: Contract
    store: AbstractStore

    def __reduce__(self) -> tuple[Any, ...]:
        """Files that were imported by their path go first: the worker may need classes out of them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _arrive, (imported_files(), pickle.dumps(values))


def _arrive(files: list[Path], values: bytes) -> SeedJob:
    for file in files:
        import_file(file)
    return SeedJob(**pickle.loads(values))


def run_seed(job: SeedJob) -> int:
    """Trains what the store does not hold yet of one seed. Returns the number of steps trained.

    Returns at once if nothing is missing. An object found damaged on the way is made again.
    """
    trained = 0
    for _ in range(3 + 3 * len(job.tree.segments)):  # each of the snapshots may turn out damaged
        work = remaining(job.tree, job.seed, job.addresses, job.store)
        if not work:
            return trained
        try:
            with job.contract.in_force():
                for num_steps in _train(job, work):
                    trained += num_steps
        except Damaged:
            continue
    raise StoreError(
        f"seed {job.seed}: objects in the store are damaged as fast as they are written. Check the "
        f"disk, or use another --store."
    )


def donor_seed(seed: int) -> int:
    """The seed of the run that a transplant into `seed` comes from: outside any range of seeds."""
    return (1 << 30) + mix(seed, "donor") % (1 << 30)


def _train(job: SeedJob, work: list[Work]) -> Iterator[int]:
    """Trains what is left to do; gives the number of steps after each piece of it."""
    run = Run(job.recipe, job.seed)
    _check_built(job, run)
    beginning = run.snapshot()
    ends: dict[int, Snapshot] = {}
    todo = {item.index for item in work}
    donor = _donor(job, donor_boundaries(job.tree, work))
    for item in work:
        segment = job.tree.segments[item.index]
        run.learn(segment.history)
        if item.snapshot is not None and not (
            segment.parent in ends and item.start == segment.start
        ):
            start = decode(job.store.get(item.snapshot))
        else:
            start = beginning if segment.parent is None else ends[segment.parent]
        run.restore(start)
        end = _train_segment(job, run, segment, item, donor)
        if item.stop == segment.stop and any(c in todo for c in job.tree.children(item.index)):
            ends[item.index] = end
        if segment.parent in ends and not any(
            child > item.index and child in todo for child in job.tree.children(segment.parent)
        ):
            del ends[segment.parent]  # the last child has started from it
        yield item.num_steps


def _train_segment(job: SeedJob, run: Run, segment: Segment, item: Work, donor: Donor) -> Snapshot:
    """Trains one segment, observes on the way, and stores what it made. Returns the state at its end."""
    observed: list[np.ndarray] = []
    entries: list[dict[str, Any]] = []

    def look(run: Run) -> None:
        if run.step in item.steps:
            seen = run.observe(job.probe, check=not observed)
            observed.append(seen if run.diverged_at is None else np.full_like(seen, math.nan))
            entries.append(run.entry())

    run.advance(item.stop, segment.history, donor=donor, at_boundary=look)
    with np.errstate(over="ignore"):  # a run that is about to diverge may lose more than fits
        losses = np.asarray(run.losses, dtype=np.float32)
    end = run.snapshot()  # before the treatments of the last boundary, so that training can go on
    if item.stop in item.steps:
        run.intervene(segment.history, donor)
        look(run)
    _store(job, run, segment, item, observed, entries, losses, end)
    return end


def _store(
    job: SeedJob,
    run: Run,
    segment: Segment,
    item: Work,
    observed: list[np.ndarray],
    entries: list[dict[str, Any]],
    losses: np.ndarray,
    end: Snapshot,
) -> None:
    arrays = {"losses": losses}
    if observed:
        arrays["observed"] = np.stack(observed)
    if job.probe.kind == "logits" and run.parts.probe_set is not None:
        arrays["labels"] = run.parts.probe_set[1].cpu().numpy().astype(np.int64)
    record = {
        "start": item.start,
        "stop": item.stop,
        "steps": list(item.steps),
        "probe": job.addresses.probe,
        "kind": job.probe.kind,
        "observed": job.store.put(pack(arrays, {"steps": list(item.steps), "ledger": entries})),
        "snapshot": job.store.put(encode(end)),
        "diverged_at": end.diverged_at,
    }
    address = job.addresses.history(job.seed, segment.history)
    job.store.write_record(address, item.record_name(job.addresses.probe), record)


def _donor(job: SeedJob, boundaries: list[int]) -> Donor:
    """The donor's snapshots at these boundaries; its run is trained once, when the first is asked for."""
    taken: dict[int, Snapshot] = {}

    def at(step: int) -> Snapshot:
        if not taken:
            run = Run(job.recipe, donor_seed(job.seed))
            for boundary in boundaries:
                run.advance(boundary)
                taken[boundary] = run.snapshot()
        return taken[step]

    return at


def _check_built(job: SeedJob, run: Run) -> None:
    """A recipe must build the same run from the same seed, today and when the store was filled."""
    address = job.addresses.history(job.seed, ())
    built = built_digest(run)
    known = job.store.records(address).get("built")
    if known is None:
        if built_digest(Run(job.recipe, job.seed)) != built:
            raise RecipeError(
                f"the recipe {job.recipe} builds two different runs from seed {job.seed}. Everything random "
                f"in it must come from its seed or from the global generators, which are seeded for it."
            )
        job.store.write_record(address, "built", _built_record(built))
    elif known["built"] != built:
        raise RecipeError(
            f"the recipe {job.recipe} builds another run from seed {job.seed} than when this store was "
            f"filled: its data or something else outside its code has changed. Use another --store, or "
            f"put the data back."
        )


def _built_record(built: Digest) -> dict[str, object]:
    return {
        "built": built,
        "start": 0,
        "stop": 0,
        "steps": [],
        "probe": "",
        "observed": None,
        "snapshot": None,
    }


def built_digest(run: Run) -> Digest:
    """Digest of a run as built: its starting state, its probe set, and its data where it is tensors."""
    data = run.parts.data if isinstance(run.parts.data, tuple) else None
    return digest([run.snapshot().digest(), run.parts.probe_set, data])
