"""The step machine: the one object here that changes.

for step in range(start, stop):
    -- boundary --  interventions rewrite sources; probes read; snapshots are taken
    batch = data[order(step)]
    train_step(parts, batch)           # the recipe's own code
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ProbeError, RecipeError
from bygones.core.first_difference import first_differing_leaf
from bygones.core.hash_chain import extend_chain, ledger_entry, state_digests
from bygones.core.keyed_rng import mix
from bygones.core.values import Digest, State
from bygones.training.devices import to_device
from bygones.training.generators import (
    preserve_global_generators,
    seed_global_generators,
    with_seeded_generators,
)
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Memory, Recipe, build
from bygones.training.rewriter import Rewriter
from bygones.training.sources import find_sources
from bygones.training.treatment import Treatment


@dataclass(frozen=True)
class Snapshot:
    """All that crosses a boundary: each source's state, and the entry states of open windows."""

    step: int
    states: Mapping[str, State]
    entries: Mapping[Digest, State] = field(default_factory=dict)
    diverged_at: int | None = None
    # Records that follow the run, and are no part of what it carries: see `Run.entry`.
    shown: str = ""  # chained hash of the example ids shown so far
    delivered: str = ""  # chained hash of the contents of the batches trained on so far

    def digest(self) -> Digest:
        return digest([self.step, self.states, self.entries, self.diverged_at])


Donor = Callable[[int], Snapshot]  # the donor's snapshot at a step


class Run:
    """One training run, built from a recipe and a seed, that can be stopped at any boundary.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> run = Run(heavy_ball.recipe, seed=0)
    >>> run.advance(5)
    >>> fork = run.snapshot()
    >>> run.advance(9)
    >>> twin = Run(heavy_ball.recipe, seed=1)      # another seed: everything must come with the snapshot
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
        self.delivered = ""  # chained hash of the contents of all batches so far
        self._rewriter = Rewriter(self.sources, seed)
        self._augmentation = torch.Generator()

    def advance(
        self,
        until: int,
        treatments: Sequence[Treatment] = (),
        *,
        donor: Donor | None = None,
        at_boundary: Callable[[Run], None] | None = None,
    ) -> None:
        """Trains to the boundary `until`, treating at each boundary before it, not yet at it.

        `at_boundary` is called after the treatments of each boundary. A run whose loss is not finite
        stops training there, says so in `diverged_at`, and still walks its boundaries.
        """
        with preserve_global_generators():
            while self.step < until:
                self.intervene(treatments, donor)
                if at_boundary is not None:
                    at_boundary(self)
                self._train_one_step()

    def intervene(self, treatments: Iterable[Treatment], donor: Donor | None = None) -> None:
        """Lets the treatments whose window has this boundary rewrite their sources."""
        states = None if donor is None else lambda step: donor(step).states
        self._rewriter.intervene(self.step, treatments, states)

    def observe(self, probe: AbstractProbe, *, check: bool = True) -> np.ndarray:
        """What a probe reads here: float [N, C]. Fails if the probe changed the run."""
        before = self.snapshot() if check else None
        flags = [(module, module.training) for module in self._modules()]
        with with_seeded_generators(
            self.parts.keys, self.step
        ):  # should the model draw, it draws the same again
            try:
                observed = np.asarray(probe(self.parts))
            except (BygonesError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise ProbeError(
                    f"the probe {probe} raised {type(error).__name__} at step {self.step}: {error}."
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
                f"A probe may only read; work on a copy, or take what it changes out of the model."
            )
        if observed.ndim != 2:
            raise ProbeError(
                f"the probe {probe} must give an array of two dimensions [inputs, outputs]; it gave "
                f"{list(observed.shape)}."
            )
        return observed

    def snapshot(self) -> Snapshot:
        """A copy of everything that crosses this boundary; it stays on the device."""
        states = {name: source.capture() for name, source in self.sources.items()}
        return Snapshot(
            self.step,
            states,
            dict(self._rewriter.entries),
            self.diverged_at,
            self.parts.cursor.realised,
            self.delivered,
        )

    def entry(self) -> dict[str, Any]:
        """What the ledger says of this boundary: what was shown so far, and a digest of what is carried."""
        states = {name: source.capture() for name, source in self.sources.items()}
        loss = self.losses[-1] if self.losses else None
        return ledger_entry(
            self.step, self.parts.cursor.realised, self.delivered, loss, state_digests(states)
        )

    def restore(self, snapshot: Snapshot, leave_out: str | None = None) -> None:
        """Puts the run at a snapshot's boundary, exact to the bit (`leave_out`: all but one source)."""
        for name, source in self.sources.items():
            if name != leave_out:
                source.restore(snapshot.states[name])
        self.step = snapshot.step
        self.diverged_at = snapshot.diverged_at
        self._rewriter.entries = dict(snapshot.entries)
        self.parts.cursor.realised = snapshot.shown
        self.delivered = snapshot.delivered
        self.losses = []

    def register_policies(self, treatments: Iterable[Treatment]) -> None:
        """Makes known what treatments bring along, so that a snapshot taken under them can be restored."""
        for treatment in treatments:
            self.sources[treatment.source].register_policies(treatment.order_policies())

    def deliver(self, rows: np.ndarray) -> Any:
        """This step's batch of these examples, with its generators at their addresses."""
        keys = self.parts.keys
        seed_global_generators(keys, self.step)
        with self._blamed_on_the_recipe():
            batch = self.parts.fetch(rows)
            if self.parts.augment is not None:
                self._augmentation.manual_seed(mix(keys["augmentation"], self.step))
                batch = self.parts.augment(batch, self._augmentation)
        self.delivered = extend_chain(self.delivered, batch)
        return to_device(batch, self.parts.device)

    @contextmanager
    def _blamed_on_the_recipe(self) -> Iterator[None]:
        try:
            yield
        except (BygonesError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise RecipeError(
                f"the training step of {self.recipe} raised {type(error).__name__} at step "
                f"{self.step}, seed {self.seed}: {error}."
            ) from error

    def _train_one_step(self) -> None:
        rows = self.parts.cursor.next()
        if self.diverged_at is None:
            with self._blamed_on_the_recipe():
                returned = self.parts.train_step(self.parts, self.deliver(rows))
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
