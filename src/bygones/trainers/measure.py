"""Measure a trainer: every arm of every seed is trained from the start by a trainer of its own.

Nothing is forked, so the library needs no support for it. Instead, every arm is compared with the
control at the fork, before anything is treated: each loss, and each leaf of each source.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import FunctionType
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from bygones.analysis.multiplicity import Family
from bygones.attach.sources.carried_streams import but_keys
from bygones.core.code_digest import code_digest
from bygones.core.digest import digest
from bygones.core.errors import DesignError, ForkError
from bygones.core.study_facts import OrderFacts, StudyFacts
from bygones.core.values import Digest, State
from bygones.store import AbstractStore, MemoryStore, pack
from bygones.store.outcomes import ManifestEntry
from bygones.study.certificate import twins_certificate
from bygones.study.describe import describe_study
from bygones.study.design import Arm, Study, add_reference_arms, check_design, design_findings
from bygones.study.donor import capture_sources, donor_reads
from bygones.study.gather import gather_entries, hold_store
from bygones.study.other_runs import reference_reads
from bygones.study.past import Past, past_difference, seed_with_equal_past
from bygones.study.segment import donor_seed
from bygones.study.tree import donor_steps
from bygones.trainers.boundary_hooks import AtBoundaries, Fingerprint, Probe
from bygones.training.contract import Contract
from bygones.training.generators import preserve_global_generators
from bygones.training.interventions import Displacement
from bygones.training.rewriter import OtherRuns

MakeTrainer = Callable[
    [int], Any
]  # builds a new run from a seed; what it returns, each library says
TrainRun = Callable[[MakeTrainer, int, AtBoundaries], None]  # builds and trains one run of a seed

_WAY = (
    "Each arm was trained from the start by its own trainer. A pair counts only if every source was equal "
    "to the bit at the fork."
)


@dataclass(frozen=True)
class TrainerRecipe:
    """The recipe of a trainer's study: the function that builds the trainer."""

    function: Any

    def code(self) -> Digest:
        return code_of(self.function)

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


@dataclass(frozen=True)
class TrainerProbe:
    """The probe of a trainer's study, identified by the code of the function that reads the model."""

    kind: Literal["logits", "values"]
    reads: Digest
    headline: str = ""


@dataclass(frozen=True)
class ArmRun:
    """One run that was trained to the last horizon."""

    observed: np.ndarray  # [H, N, C]
    losses: np.ndarray  # [end]
    diverged_at: int | None
    fork: Fingerprint
    end: Fingerprint
    displacements: Sequence[Displacement]


def code_of(function: Any) -> Digest:
    """Digest of a function's code; of a callable object, of its class's."""
    return code_digest(function if isinstance(function, FunctionType | type) else type(function))


def measure_with(train: TrainRun, made: str):
    """Return the public `measure` of one library, which builds and trains each run by `train`.

    `made`: what `make_trainer` returns in this library, and what seeds it; it ends the docstring.
    """

    def measure(
        make_trainer: MakeTrainer,
        arms: Iterable[Arm],
        fork_at: int,
        horizons: Iterable[int],
        seeds: Iterable[int],
        probe: Probe,
        labels: Any = None,
        name: str = "trainer",
        *,
        kind: Literal["logits", "values"] = "logits",
        family: Family | None = None,
        margins: Mapping[str, float] | None = None,
        store: AbstractStore | None = None,
    ) -> xr.Dataset:
        """Train control, sham, every arm and its matched null from the start, for each seed, and compare.

        `make_trainer(seed)` builds a new run. Python's, numpy's and torch's generators are seeded before it
        is called, and given back afterwards. Each run is stopped after the last horizon. `kind`: whether
        the probe returns logits of classes or plain values; `labels`: the right class of each input of the
        probe.

        Returns what `bygones.all_effects` and `bygones.write_report` read. With a `FolderStore` it is kept,
        for `bygones report` and `bygones compare`. A pair counts only if its arms share their past to the
        bit: anything else raises `ForkError` with the first leaf that differs.
        """
        study = Study(
            recipe=TrainerRecipe(make_trainer),
            arms=arms,
            fork_at=fork_at,
            horizons=horizons,
            seeds=seeds,
            name=name,
            probe=TrainerProbe(kind, code_of(probe)),
            family=family,
            margins=margins or {},
        )
        checked = _checked_labels(labels, kind)
        for arm in study.arms:
            _check_transplants(arm)
        kept = store if store is not None else MemoryStore()
        contract = replace(
            Contract.here(), deterministic=torch.are_deterministic_algorithms_enabled()
        )

        def train_seed(seed: int, work: AtBoundaries) -> None:
            train(make_trainer, seed, work)

        with hold_store(kept), preserve_global_generators(), contract.in_force():
            return _Measurement(train_seed, study, probe, checked, kept, contract).run()

    measure.__doc__ = f"{inspect.getdoc(measure)}\n\n{made}\n"
    measure.__module__ = train.__module__
    return measure


class _Measurement:
    """A trainer's study while it is trained: what is known and stored so far."""

    def __init__(
        self,
        train: Callable[[int, AtBoundaries], None],  # builds and trains one run of a seed
        study: Study,
        probe: Probe,
        labels: np.ndarray | None,
        store: AbstractStore,
        contract: Contract,
    ) -> None:
        self.train, self.study, self.probe, self.labels = train, study, probe, labels
        self.store, self.contract = store, contract
        self.arms: tuple[Arm, ...] = ()
        self.facts: StudyFacts | None = None
        self.entries: list[ManifestEntry] = []
        self.pasts: dict[int, Past] = {}  # of each seed's control
        # States of this seed's control and treated arms that nulls read, by the arm and the step.
        self.captured: dict[str, dict[int, Mapping[str, State]]] = {}
        self.ends: dict[str, list[Digest]] = {"control": [], "sham": []}

    def run(self) -> xr.Dataset:
        """Train every arm of every seed, and return the outcomes."""
        for seed in self.study.seeds:
            self._train_seed(seed)
        certificate = twins_certificate(self.study, self.ends["control"], self.ends["sham"])
        assert self.facts is not None
        return gather_entries(self.study, self.store, self.facts, self.entries, certificate)

    def _train_seed(self, seed: int) -> None:
        self.captured = {}
        control = self._train_arm(seed, Arm("control"), inspect=self._describe)
        self._check_labels(control)
        self._check_seed(seed, control)
        self._store(seed, 0, control)
        self.ends["control"].append(digest(control.end))
        donor = self._train_donor(seed)
        for row, arm in enumerate(self.arms[1:], start=1):
            trained = self._train_arm(seed, arm, others=self._others(arm, donor))
            self._check_past(seed, arm, trained)
            if arm.role == "sham":
                self.ends["sham"].append(digest(trained.end))
            self._store(seed, row, trained)

    # ------------------------------------------------------------------ one run

    def _train_arm(
        self,
        seed: int,
        arm: Arm,
        *,
        inspect: Callable[[AtBoundaries], None] = lambda work: None,
        others: OtherRuns | None = None,
    ) -> ArmRun:
        """Train one arm from the start. `inspect` is called at the fork, before anything is treated."""
        study = self.study
        fingerprints: dict[str, Fingerprint] = {}

        def at_fork(work: AtBoundaries) -> None:
            inspect(work)
            fingerprints["fork"] = work.fingerprint()

        captures = self._captures(arm)

        def at_end(work: AtBoundaries) -> None:
            captures.get(study.end, _nothing)(work)
            fingerprints["end"] = work.fingerprint()

        work = AtBoundaries(
            arm.treatments,
            study.steps,
            self.probe,
            seed,
            before={study.fork_at: at_fork},
            after={**captures, study.end: at_end},
            others=others,
            stops=True,
        )
        self.train(seed, work)
        diverged = work.diverged_at()
        observed = [
            np.full_like(work.observed[s], math.nan)
            if diverged is not None and s > diverged
            else work.observed[s]
            for s in study.steps
        ]
        return ArmRun(
            np.stack(observed),
            _losses(work, study.end),
            diverged,
            fingerprints["fork"],
            fingerprints["end"],
            work.displacements,
        )

    def _captures(self, arm: Arm) -> dict[int, Callable[[AtBoundaries], None]]:
        """What is read of a run for nulls, by step: of the control for every arm, of an arm for its own."""
        reads: dict[int, set[str]] = {}
        for treated in self.study.arms:
            if arm.name in ("control", treated.name):
                for step, names in reference_reads(treated, self.study.end).items():
                    reads.setdefault(step, set()).update(names)

        def capture(step: int) -> Callable[[AtBoundaries], None]:
            def at_boundary(work: AtBoundaries) -> None:
                assert work.live is not None
                captured = capture_sources(work.live.sources, sorted(reads[step]))
                self.captured.setdefault(arm.name, {})[step] = captured

            return at_boundary

        return {step: capture(step) for step in reads}

    def _others(self, arm: Arm, donor: Mapping[int, Mapping[str, State]]) -> OtherRuns:
        """The runs that an arm's treatments read."""
        return OtherRuns(
            donor=donor.__getitem__ if donor else None,
            control=self.captured.get("control", {}).__getitem__,
            treated=self.captured.get(arm.null_of or "", {}).__getitem__,
        )

    def _train_donor(self, seed: int) -> dict[int, Mapping[str, State]]:
        """Train a donor for this seed, and return the states that arms transplant from it, by step."""
        reads = donor_reads(self.arms)
        states: dict[int, Mapping[str, State]] = {}

        def capture(step: int) -> Callable[[AtBoundaries], None]:
            def at_boundary(work: AtBoundaries) -> None:
                assert work.live is not None
                states[step] = capture_sources(work.live.sources, reads[step])

            return at_boundary

        if reads:
            before = {step: capture(step) for step in reads}
            self.train(donor_seed(seed), AtBoundaries(before=before, stops=True))
        return states

    def _store(self, seed: int, row: int, trained: ArmRun) -> None:
        """Store one arm's observations and losses, as one object."""
        arrays = {"observed": trained.observed, "losses": trained.losses}
        if self.labels is not None:
            arrays["labels"] = self.labels
        steps = list(self.study.steps)
        meta = {"steps": steps, "displacements": [asdict(one) for one in trained.displacements]}
        self.entries.append(
            ManifestEntry(
                seed=seed,
                arms=[row],
                object=self.store.put(pack(arrays, meta)),
                start=0,
                low=0,
                high=self.study.end,
                steps=steps,
                diverged_at=trained.diverged_at,
            )
        )

    # ------------------------------------------------------------------ descriptions and checks

    def _describe(self, work: AtBoundaries) -> None:
        """Check the design in the first control's run, at its fork, and describe the study."""
        if self.arms:
            return
        study, live = self.study, work.live
        assert live is not None
        check_design(study, live)
        self.arms = add_reference_arms(study.arms, live)
        steps = len(study.seeds) * (len(self.arms) * study.end + donor_steps(self.arms))
        self.facts = replace(
            describe_study(study, self.arms, live, OrderFacts("the trainer's own loader")),
            findings=tuple(design_findings(study, live)),
            contract=replace(self.contract, device=work.device).to_dict(),
            way=_WAY,
            num_steps={"naive": steps, "shared": steps},
        )

    def _check_labels(self, control: ArmRun) -> None:
        num_inputs = control.observed.shape[1]
        if self.labels is not None and len(self.labels) != num_inputs:
            raise DesignError(
                f"the probe returned {num_inputs} rows, and there are {len(self.labels)} labels. Give one "
                f"label for each row, in the same order."
            )

    def _check_seed(self, seed: int, control: ArmRun) -> None:
        """Refuse a seed whose control is the same run as another seed's."""
        past = _past(control, self.study.fork_at)
        other = seed_with_equal_past(past, self.pasts)
        if other is not None:
            raise ForkError(
                f"seeds {other} and {seed} train the same run: the state at step {self.study.fork_at} is "
                f"equal to the bit. Hand the seed that make_trainer is given to everything that draws "
                f"random numbers: the model's first weights, the order of the data, dropout."
            )
        self.pasts[seed] = past

    def _check_past(self, seed: int, arm: Arm, trained: ArmRun) -> None:
        """Refuse an arm that is not equal to the control up to the fork."""
        step = self.study.fork_at
        difference = past_difference(self.pasts[seed], _past(trained, step))
        if difference is not None:
            raise ForkError(
                f"arm '{arm.name}' of seed {seed} does not share the control's past: {difference}. Nothing "
                f"was treated before the fork at step {step}, so make_trainer({seed}) must build the same "
                f"run each time it is called: a new model, a new loader, nothing kept from before."
            )


def _nothing(_: AtBoundaries) -> None:
    pass


def _losses(work: AtBoundaries, end: int) -> np.ndarray:
    """The loss of each step as float32 [end]; NaN where none was reported."""
    losses = np.full(end, math.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        for step, loss in work.losses.items():
            if step < end:  # a trainer may finish its epoch after the last horizon
                losses[step] = loss
    return losses


def _past(trained: ArmRun, fork_at: int) -> Past:
    """The run up to the fork. A library does not show its batches, so the losses stand for them."""
    return Past(
        batches=(),
        losses=[float(loss).hex() for loss in trained.losses[:fork_at]],
        state={
            f"{source}/{leaf}": leaves[leaf]
            for source, leaves in trained.fork.items()
            for leaf in sorted(leaves)
        },
        drawn=digest({name: but_keys(leaves) for name, leaves in trained.fork.items()}),
    )


def _checked_labels(labels: Any, kind: str) -> np.ndarray | None:
    """The labels as integers [inputs], or None; refused where the probe returns plain values."""
    if labels is None:
        return None
    if kind != "logits":
        raise DesignError(
            "labels belong to logits; a probe of plain values (kind='values') has none."
        )
    return np.asarray(labels, dtype=np.int64).reshape(-1)


def _check_transplants(arm: Arm) -> None:
    for treatment in arm.treatments:
        if treatment.needs_donor and treatment.source == "streams":
            raise DesignError(
                f"arm '{arm.name}': 'streams' cannot be transplanted between runs of a trainer. Use "
                f"Reseed(), which draws it again."
            )
