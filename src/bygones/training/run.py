"""Training loop: a run that can be stopped, treated, observed, copied and restored at any boundary.

for step in range(start, stop):
    -- boundary --  interventions rewrite sources; probes read; snapshots are taken
    batch = data[order(step)]
    train_step(parts, batch)           # the recipe's own code
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ProbeError, RecipeError
from bygones.core.first_difference import first_differing_leaf
from bygones.core.hash_chain import extend_chain, ledger_entry, state_digests
from bygones.core.keyed_rng import mix_place
from bygones.core.text import describe_error
from bygones.core.values import Digest, State
from bygones.training.devices import to_device
from bygones.training.generators import (
    preserve_global_generators,
    seed_global_generators,
    with_seeded_generators,
)
from bygones.training.interventions import Displacement
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Memory, Recipe, build
from bygones.training.rewriter import OtherRuns, Rewriter
from bygones.training.sources import find_sources
from bygones.training.treatment import Treatment


@dataclass(frozen=True)
class Snapshot:
    """Everything that crosses a boundary: the state of each source, and the entry states of open windows."""

    step: int
    states: Mapping[str, State]
    entries: Mapping[Digest, State] = field(default_factory=dict)
    diverged_at: int | None = None
    # Records of the past, which do not influence the run and are left out of the digest.
    ids_chain: str = ""  # hash chain over the example ids so far
    batch_chain: str = ""  # hash chain over the contents of the batches so far

    def digest(self) -> Digest:
        """Hash what the run carries on."""
        return digest([self.step, self.states, self.entries, self.diverged_at])


class Run:
    """A training run, built from a recipe and a seed, that can be stopped at any boundary.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> run = Run(heavy_ball.recipe, seed=0)
    >>> run.advance(5)
    >>> fork = run.snapshot()
    >>> run.advance(9)
    >>> twin = Run(heavy_ball.recipe, seed=1)      # another seed, so all state comes from the snapshot
    >>> twin.restore(fork)
    >>> twin.advance(9)
    >>> twin.snapshot().digest() == run.snapshot().digest()
    True
    """

    def __init__(self, recipe: Recipe | Callable[..., Any], seed: int, device: str = "cpu") -> None:
        self.recipe = Recipe.of(recipe)
        self.seed = seed
        self.parts = build(self.recipe, seed, device)
        self.sources = find_sources(self.parts)
        self.step = 0
        self.losses: list[float] = []  # since the last restore
        self.diverged_at: int | None = None
        self.batch_chain = ""  # hash chain over the contents of all batches so far
        self._rewriter = Rewriter(self.sources, seed)
        self._augmentation = torch.Generator()
        self._named_errors = _NamedErrors(self)

    def advance(
        self,
        until: int,
        treatments: Sequence[Treatment] = (),
        *,
        others: OtherRuns | None = None,
        at_boundary: Callable[[Run], None] | None = None,
    ) -> None:
        """Train to the boundary `until`; apply treatments at each boundary before it, not at it.

        `others`: the runs whose states a treatment reads, where one does. `at_boundary`:
        called at each boundary, after its treatments. A run whose loss is not finite sets `diverged_at`
        and trains no further, but still passes the remaining boundaries. Raises `RecipeError` if the
        training step raises.
        """
        with preserve_global_generators():
            while self.step < until:
                self.intervene(treatments, others)
                if at_boundary is not None:
                    at_boundary(self)
                self._train_one_step()

    def intervene(self, treatments: Iterable[Treatment], others: OtherRuns | None = None) -> None:
        """Apply the treatments whose window contains this boundary."""
        self._rewriter.intervene(self.step, treatments, others)

    @property
    def displacements(self) -> Sequence[Displacement]:
        """How far matched nulls have moved their sources since the last restore."""
        return self._rewriter.displacements

    def observe(self, probe: AbstractProbe, *, check: bool = True) -> np.ndarray:
        """Evaluate a probe at this boundary: float [N inputs, C outputs].

        Raises `ProbeError` if the probe raises, returns an array of another rank, or (with `check`)
        changes the run.
        """
        before = self.snapshot() if check else None
        flags = [(module, module.training) for module in self._modules()]
        # Seed the generators, so that a model which draws in evaluation draws the same each time.
        with with_seeded_generators(self.parts.keys, self.step):
            try:
                observed = np.asarray(probe(self.parts))
            except (BygonesError, torch.OutOfMemoryError):
                raise
            except (Exception, SystemExit) as error:
                raise ProbeError(
                    f"the probe {probe} {describe_error(error, f'at step {self.step}')}."
                ) from error
            finally:
                for module, training in flags:
                    module.training = training
        changed = (
            None if before is None else first_differing_leaf(before.states, self.snapshot().states)
        )
        if changed is not None:
            raise ProbeError(
                f"the probe {probe} changed the run it observed at step {self.step} (first in {changed}). "
                f"A probe may only read; let it work on a copy, or take what it changes out of the model."
            )
        if observed.ndim != 2 or not observed.size or observed.dtype.kind not in "fiub":
            raise ProbeError(
                f"the probe {probe} must give numbers in two dimensions [inputs, outputs], one or more; it "
                f"gave {list(observed.shape)} of {observed.dtype}."
            )
        return observed

    def snapshot(self) -> Snapshot:
        """Copy everything that crosses this boundary; the copy stays on the device."""
        states = {name: source.capture() for name, source in self.sources.items()}
        return Snapshot(
            self.step,
            states,
            dict(self._rewriter.entries),
            self.diverged_at,
            self.parts.cursor.ids_chain,
            self.batch_chain,
        )

    def ledger_entry(self) -> dict[str, Any]:
        """Build the ledger entry of this boundary: hash chains of the past, and a digest of each source."""
        states = {name: source.capture() for name, source in self.sources.items()}
        loss = self.losses[-1] if self.losses else None
        return ledger_entry(
            self.step, self.parts.cursor.ids_chain, self.batch_chain, loss, state_digests(states)
        )

    def restore(self, snapshot: Snapshot, leave_out: str | None = None) -> None:
        """Return to a snapshot's boundary, bit by bit. `leave_out`: a source that is not restored."""
        for name, source in self.sources.items():
            if name != leave_out:
                source.restore(snapshot.states[name])
        self.step = snapshot.step
        self.diverged_at = snapshot.diverged_at
        self._rewriter.entries = dict(snapshot.entries)
        self._rewriter.displacements = []
        self.parts.cursor.ids_chain = snapshot.ids_chain
        self.batch_chain = snapshot.batch_chain
        self.losses = []

    def register_policies(self, treatments: Iterable[Treatment]) -> None:
        """Register the order policies of treatments, so that snapshots taken under them can be restored."""
        for treatment in treatments:
            self.sources[treatment.source].register_policies(treatment.order_policies())

    def deliver(self, rows: np.ndarray) -> Any:
        """Make this step's batch: seed the generators, fetch the rows, augment, move to the device."""
        keys = self.parts.keys
        seed_global_generators(keys, self.step)
        with self._named_errors:
            batch = self.parts.fetch(rows)
            if self.parts.augment is not None:
                self._augmentation.manual_seed(mix_place(keys["augmentation"], self.step))
                batch = self.parts.augment(batch, self._augmentation)
        self.batch_chain = extend_chain(self.batch_chain, batch)
        return to_device(batch, self.parts.device)

    def _train_one_step(self) -> None:
        rows = self.parts.cursor.next()
        if self.diverged_at is None:
            with self._named_errors:
                returned = self.parts.train_step(self.parts, self.deliver(rows))
                self.parts.cursor.check_feedback()
                loss = returned.item() if isinstance(returned, torch.Tensor) else float(returned)
            if not math.isfinite(loss):
                self.diverged_at = self.step
        else:
            loss = math.nan
        self.losses.append(loss)
        self.step += 1

    def _modules(self) -> list[nn.Module]:
        roots = [self.parts.model, self.parts.averages, *self.parts.others.values()]
        modules = [root.value if isinstance(root, Memory) else root for root in roots]
        return [m for root in modules if isinstance(root, nn.Module) for m in root.modules()]


class _NamedErrors:
    """Raises what the recipe's code raises within a block as a `RecipeError` with step and seed.

    A class and not a generator, which costs several microseconds in each step.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None or isinstance(error, (BygonesError, torch.OutOfMemoryError)):
            return
        if isinstance(error, (Exception, SystemExit)):
            run = self._run
            at = f"at step {run.step}, seed {run.seed}"
            raise RecipeError(
                f"the training step of {run.recipe} {describe_error(error, at)}."
            ) from error
