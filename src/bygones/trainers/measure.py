"""A study of a trainer: the same run again and again from the start, each time with another arm.

Nothing is forked here, so that a library may do as it likes. In return every arm has to prove that it
shares the control's past: at the fork, before anything is treated, each leaf of each source is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
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
from bygones.core.first_difference import first_differing_leaf
from bygones.core.study_facts import CertificateFacts, OrderFacts, StudyFacts
from bygones.core.values import Digest, State
from bygones.store import AbstractStore, FolderStore, MemoryStore, pack
from bygones.store.outcomes import Manifest, ManifestEntry, read_outcomes, write_manifest
from bygones.study.describe import describe_study
from bygones.study.design import Arm, Study, add_reference_arms, check_design, design_findings
from bygones.study.segment import donor_seed
from bygones.trainers.boundary_hooks import AtBoundaries, Fingerprint, Probe
from bygones.training.contract import Contract
from bygones.training.generators import preserve_global_generators
from bygones.training.treatment import Treatment

Train = Callable[
    [int, AtBoundaries], None
]  # trains a new run of a seed, its boundaries attended to

_WAY = (
    "Each arm was trained from the start by its own trainer. A pair counts only if every source was equal "
    "to the bit at the fork."
)


@dataclass(frozen=True)
class TrainerRecipe:
    """The recipe of a trainer's study: the function that makes the trainer."""

    function: Any

    def code(self) -> Digest:
        return code_of(self.function)

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


@dataclass(frozen=True)
class TrainerProbe:
    """What is observed of a trainer's model, by the code of the function that looks."""

    kind: Literal["logits", "values"]
    reads: Digest
    headline: str = ""


@dataclass(frozen=True)
class TrainerRequest:
    """What somebody asks of a trainer."""

    make_trainer: Callable[[int], Any]
    arms: tuple[Arm, ...]
    fork_at: int
    horizons: tuple[int, ...]
    seeds: tuple[int, ...]
    probe: Probe
    labels: Any
    name: str
    kind: Literal["logits", "values"]


@dataclass(frozen=True)
class ArmRun:
    """One run that was trained to the last horizon."""

    observed: np.ndarray  # [H, N, C]
    losses: np.ndarray  # [end]
    diverged_at: int | None
    fork: Fingerprint
    end: Fingerprint


def code_of(function: Any) -> Digest:
    """Digest of a function's code; of a callable object, of its class's."""
    return code_digest(function if isinstance(function, FunctionType | type) else type(function))


def measure_trainer(
    train: Train,
    asked: TrainerRequest,
    *,
    family: Family | None,
    margins: Mapping[str, float],
    store: AbstractStore | None,
) -> xr.Dataset:
    """Trains every arm of every seed, and returns the outcomes as a study's."""
    study = Study(
        TrainerRecipe(asked.make_trainer),
        asked.arms,
        asked.fork_at,
        asked.horizons,
        asked.seeds,
        asked.name,
        TrainerProbe(asked.kind, code_of(asked.probe)),
        family,
        margins,
    )
    labels = _checked_labels(asked)
    for arm in study.arms:
        _check_transplants(arm)
    store = store if store is not None else MemoryStore()
    contract = replace(Contract.here(), deterministic=torch.are_deterministic_algorithms_enabled())
    holding = store.training() if isinstance(store, FolderStore) else nullcontext()
    with holding, preserve_global_generators(), contract.in_force():
        return _Studying(train, study, asked.probe, labels, store, contract).run()


class _Studying:
    """A study while it is trained: what is known so far."""

    def __init__(
        self,
        train: Train,
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
        self.pasts: dict[
            Digest, int
        ] = {}  # of each seed's control, to see that the seed reaches it
        self.twins_agree = True

    def run(self) -> xr.Dataset:
        study = self.study
        for seed in study.seeds:
            control = self._play(seed, Arm("control"), look=self._get_to_know)
            self._check_labels(control)
            self._check_seed(seed, control)
            self._keep(seed, 0, control)
            donor = self._donor(seed)
            for row, arm in enumerate(self.arms[1:], start=1):
                played = self._play(seed, arm, donor=donor)
                self._check_past(seed, arm, control, played)
                if arm.role == "sham":
                    self.twins_agree &= first_differing_leaf(control.end, played.end) is None
                self._keep(seed, row, played)
        assert self.facts is not None
        manifest = Manifest(
            kind=study.probe.kind,
            seeds=list(study.seeds),
            steps=list(study.steps),
            end=study.end,
            entries=self.entries,
            facts=replace(self.facts, certificate=self._certificate()),
        )
        write_manifest(self.store, manifest)
        return read_outcomes(self.store, manifest)

    # ------------------------------------------------------------------ one run

    def _play(
        self,
        seed: int,
        arm: Arm,
        *,
        look: Callable[[AtBoundaries], None] = lambda work: None,
        donor: Mapping[int, Mapping[str, State]] | None = None,
    ) -> ArmRun:
        study = self.study
        seen: dict[str, Fingerprint] = {}

        def at_fork(work: AtBoundaries) -> None:
            look(work)
            seen["fork"] = work.fingerprint()

        def at_end(work: AtBoundaries) -> None:
            seen["end"] = work.fingerprint()

        work = AtBoundaries(
            arm.treatments,
            study.steps,
            self.probe,
            seed,
            before={study.fork_at: at_fork},
            after={study.end: at_end},
            donor=None if donor is None else donor.__getitem__,
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
        losses = np.full(study.end, math.nan, dtype=np.float32)
        with np.errstate(over="ignore"):
            for step, loss in work.losses.items():
                if step < study.end:  # a trainer may insist on finishing its epoch
                    losses[step] = loss
        return ArmRun(np.stack(observed), losses, diverged, seen["fork"], seen["end"])

    def _donor(self, seed: int) -> dict[int, Mapping[str, State]]:
        """The states that are transplanted into this seed, by step: of a run with a seed of its own."""
        wanted = sorted(
            {(t.window.start, t.source) for a in self.arms for t in a.treatments if t.needs_donor}
        )
        taken: dict[int, dict[str, State]] = {}

        def take(step: int) -> Callable[[AtBoundaries], None]:
            def taking(work: AtBoundaries) -> None:
                assert work.live is not None
                taken[step] = {n: work.live.sources[n].capture() for at, n in wanted if at == step}

            return taking

        if wanted:
            looks = {step: take(step) for step, _ in wanted}
            self.train(donor_seed(seed), AtBoundaries(before=looks, stops=True))
        return dict(taken)

    def _keep(self, seed: int, row: int, played: ArmRun) -> None:
        arrays = {"observed": played.observed, "losses": played.losses}
        if self.labels is not None:
            arrays["labels"] = self.labels
        steps = list(self.study.steps)
        self.entries.append(
            ManifestEntry(
                seed=seed,
                arms=[row],
                object=self.store.put(pack(arrays, {"steps": steps})),
                start=0,
                low=0,
                high=self.study.end,
                steps=steps,
                diverged_at=played.diverged_at,
            )
        )

    # ------------------------------------------------------------------ what is found out, and refused

    def _get_to_know(self, work: AtBoundaries) -> None:
        """At the first control's fork: does the design mean anything here, and what is there to describe?"""
        if self.arms:
            return
        study, live = self.study, work.live
        assert live is not None
        check_design(study, live)
        self.arms = add_reference_arms(study, live)
        steps = len(study.seeds) * (len(self.arms) * study.end + _donor_steps(self.arms))
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
        past = digest({name: but_keys(leaves) for name, leaves in control.fork.items()})
        if past in self.pasts:
            raise ForkError(
                f"seeds {self.pasts[past]} and {seed} train the same run: the state at step "
                f"{self.study.fork_at} is equal to the bit. Hand the seed that make_trainer is given to all "
                f"that draws: the model's first weights, the order of the data, dropout."
            )
        self.pasts[past] = seed

    def _check_past(self, seed: int, arm: Arm, control: ArmRun, played: ArmRun) -> None:
        where = first_differing_leaf(control.fork, played.fork)
        if where is None and not np.array_equal(
            control.losses[: self.study.fork_at],
            played.losses[: self.study.fork_at],
            equal_nan=True,
        ):
            where = "the losses"
        if where is not None:
            raise ForkError(
                f"arm '{arm.name}' of seed {seed} does not share the control's past: {where} differs at "
                f"step {self.study.fork_at}, before anything was treated. make_trainer({seed}) must build "
                f"the same run each time it is called: a new model, a new loader, nothing kept from before."
            )

    def _certificate(self) -> CertificateFacts:
        """Whether, in every seed, the sham ended in the control's state, to the bit."""
        boundaries = (self.study.fork_at,)
        return CertificateFacts(self.twins_agree, boundaries, self.study.end, kind="twins")


def _checked_labels(asked: TrainerRequest) -> np.ndarray | None:
    if asked.labels is None:
        return None
    if asked.kind != "logits":
        raise DesignError(
            "labels belong to logits; a probe of plain values (kind='values') has none."
        )
    return np.asarray(asked.labels, dtype=np.int64).reshape(-1)


def _check_transplants(arm: Arm) -> None:
    for treatment in arm.treatments:
        if treatment.needs_donor and treatment.source == "streams":
            raise DesignError(
                f"arm '{arm.name}': 'streams' cannot be transplanted between runs of a trainer. Use "
                f"Reseed(), which draws it again."
            )


def _donor_steps(arms: Sequence[Arm]) -> int:
    """Steps that a donor trains, if any arm needs one."""
    treatments: list[Treatment] = [t for arm in arms for t in arm.treatments]
    return max((t.window.start for t in treatments if t.needs_donor), default=0)
