"""Boundary hooks: treat and observe one run of a trainer between its optimizer steps.

    boundary s: after s optimizer updates, before the forward pass of the next batch

A library's callback reports when an update is done and when the next step begins; everything that is
done then is here. Imports no library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.attach.discovery import LiveObjects
from bygones.attach.live_run import sources_of
from bygones.core.catalogue import Catalogue
from bygones.core.checks import require_integer
from bygones.core.digest import digest
from bygones.core.errors import BygonesError, DesignError, ProbeError
from bygones.core.first_difference import first_differing_leaf
from bygones.core.values import Digest
from bygones.study.describe import describe_sources
from bygones.training.generators import preserve_global_generators
from bygones.training.interventions import Displacement
from bygones.training.rewriter import OtherRuns, Rewriter
from bygones.training.served_weights import served
from bygones.training.sources import AbstractSource
from bygones.training.sources.averages import Averages
from bygones.training.treatment import Treatment, check_pair

Probe = Callable[[Any], Any]  # of the model: numbers [inputs, outputs]
Fingerprint = Mapping[str, Mapping[str, Digest]]  # source -> leaf -> digest


@dataclass(frozen=True)
class TrainerState:
    """The state of a trainer when training is about to begin."""

    found: LiveObjects
    model: nn.Module
    seed: int
    step: int  # where it begins; above 0 if it resumes
    last: float  # the step after which it ends; infinite if that is not known


@dataclass(frozen=True)
class LiveSources:
    """The memory sources of a run in progress, by name."""

    sources: Catalogue[AbstractSource]


class AtBoundaries:
    """The treatments and observations of one run.

    `before` and `after`: what else is to be done at a boundary, before its treatments and after its
    observation. `stops`: the run may end after the last of these.
    """

    def __init__(
        self,
        treatments: Iterable[Treatment] = (),
        observe_at: Iterable[int] = (),
        probe: Probe | None = None,
        seed: int | None = None,
        *,
        before: Mapping[int, Callable[[AtBoundaries], None]] | None = None,
        after: Mapping[int, Callable[[AtBoundaries], None]] | None = None,
        others: OtherRuns | None = None,
        stops: bool = False,
    ) -> None:
        self.treatments = tuple(treatments)
        self.observe_at = tuple(
            sorted({require_integer(s, "a step to observe at") for s in observe_at})
        )
        self.probe = probe
        self.seed = seed
        self.observed: dict[int, np.ndarray] = {}
        self.losses: dict[int, float] = {}  # of the update from step s to s + 1
        self.model: nn.Module | None = None
        self.live: LiveSources | None = None
        self.device = "cpu"
        self._before, self._after = before or {}, after or {}
        self._others, self._stops = others, stops
        self._handled: set[int] = set()
        self._optimizers: list[Optimizer] = []
        self._loss: float | None = None
        self._rewriter: Rewriter | None = None
        acts = {s for t in self.treatments for s in range(t.window.start, t.window.stop)}
        # Boundaries that have to come; and those at which something is put back, if training goes on so long.
        self._required = frozenset({*self.observe_at, *acts, *self._before, *self._after})
        self._wanted = self._required | {t.boundaries[-1] for t in self.treatments}
        self._check_request()

    # ------------------------------------------------------------------ called by a library's callback

    def begin(self, handed: TrainerState) -> None:
        """Call before training begins, once everything is built: finds the sources and checks the steps."""
        seed = self.seed if self.seed is not None else handed.seed
        self.model = handed.model
        self._optimizers = list(handed.found.optimizers.values())
        self.device = str(next((p.device for p in handed.model.parameters()), "cpu"))
        self.live = LiveSources(_catalogue(handed.found, seed, self.device))
        self._rewriter = Rewriter(self.live.sources, seed)
        self._handled, self.observed, self.losses = set(), {}, {}
        for treatment in self.treatments:
            check_pair(treatment, self.live.sources[treatment.source])
        self._check_reach(handed.step, handed.last)

    def descended(self, loss: Any) -> None:
        """Call after each backward pass with its loss: summed over the batches of an accumulated update."""
        value = float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
        self._loss = value if self._loss is None else self._loss + value

    def updated(self, step: int, over: bool) -> None:
        """Call after each update, when `step` updates are done; `over`: training ends with this one.

        The last boundary is handled here where nothing is trained after it or nothing is changed at it: a
        trainer may load other weights into its model before it reports its end.
        """
        if self._loss is not None:
            self.losses[step - 1], self._loss = self._loss, None
        if step == max(self._required, default=-1):
            if over or self._stops or not self._is_treated(step):
                self.reached(step)

    def reached(self, step: int) -> None:
        """Call before each step, after `step` updates: treats and observes, once for each boundary."""
        self._check_passed_over(step)
        if step in self._handled or step not in self._wanted:
            return
        self._handled.add(step)
        assert self._rewriter is not None
        self._before.get(step, _nothing)(self)
        self._rewriter.intervene(step, self.treatments, self._others)
        if step in self.observe_at:
            self.observed[step] = self._observe(step)
        self._after.get(step, _nothing)(self)

    @property
    def may_stop(self) -> bool:
        """True once every boundary has been handled and the run may end."""
        return self._stops and self._required <= self._handled

    def ended(self, step: int) -> None:
        """Call after training of `step` updates. Raises `DesignError` for boundaries that are missing."""
        self.reached(step)
        missed = sorted(self._required - self._handled)
        if missed:
            raise DesignError(
                f"training ended after {step} optimizer steps, so {_boundaries(missed)} never came. Let it "
                f"train for longer (max_steps, or whatever stopped it early), or ask for an earlier one."
            )

    # ------------------------------------------------------------------ observing

    def rows(self) -> list[dict[str, Any]]:
        """Every source of the run as it stands now: origin, visibility, lifetime, leaves and bytes."""
        if self.live is None:
            raise DesignError("the sources of a run are known once its trainer has begun to train.")
        return [source.to_dict() for source in describe_sources(self.live)]

    @property
    def displacements(self) -> Sequence[Displacement]:
        """How far matched nulls have moved their sources."""
        return [] if self._rewriter is None else self._rewriter.displacements

    def fingerprint(self) -> Fingerprint:
        """The digest of every leaf of every source; two runs are compared by it."""
        assert self.live is not None
        return {
            name: {leaf: digest(value) for leaf, value in source.capture().items()}
            for name, source in self.live.sources.items()
        }

    def diverged_at(self) -> int | None:
        """The first step whose loss was not finite."""
        return next((s for s in sorted(self.losses) if not math.isfinite(self.losses[s])), None)

    def _observe(self, step: int) -> np.ndarray:
        assert self.model is not None
        assert self.probe is not None
        before = self.fingerprint()
        with _untouched(self.model, self.device):
            model = served(self.model, self._optimizers)
            model.eval()
            try:
                said = self.probe(model)
            except BygonesError:
                raise
            except Exception as error:
                raise ProbeError(
                    f"the probe raised {type(error).__name__} at step {step}: {error}."
                ) from error
        changed = first_differing_leaf(before, self.fingerprint())
        if changed is not None:
            raise ProbeError(
                f"the probe changed the run that it observed at step {step} (first in {changed}). A probe "
                f"may only read; work on a copy of the model."
            )
        return _as_rows(said)

    # ------------------------------------------------------------------ checks

    def _is_treated(self, step: int) -> bool:
        return any(step in t.boundaries for t in self.treatments)

    def _check_request(self) -> None:
        if self.observe_at and self.probe is None:
            raise DesignError(
                "steps to observe at were given, and no probe. Give probe=, a function of the model that "
                "returns numbers [inputs, outputs]."
            )
        if self.probe is not None and not self.observe_at:
            raise DesignError(
                "a probe was given, and no steps to observe at. Give observe_at=(100, …)."
            )
        for treatment in self.treatments:
            if treatment.needs_donor and (self._others is None or self._others.donor is None):
                raise DesignError(
                    f"{treatment} needs another run to take it from. Use `measure`, which trains one, or "
                    f"`rewrite_checkpoint(…, donor=…)`, which takes it from a checkpoint."
                )

    def _check_reach(self, first: int, last: float) -> None:
        early = sorted(step for step in self._required if step < first)
        if early:
            raise DesignError(
                f"this training begins at step {first} (it resumes a checkpoint), so {_boundaries(early)} "
                f"never comes. Ask for step {first} or later, or begin at step 0."
            )
        late = sorted(step for step in self._required if step > last)
        if late:
            raise DesignError(
                f"this training ends after {last:g} optimizer steps, so {_boundaries(late)} never comes. "
                f"Ask for a step up to {last:g}, or train for longer."
            )

    def _check_passed_over(self, step: int) -> None:
        missed = sorted(s for s in self._required - self._handled if s < step)
        if missed:
            raise DesignError(
                f"{_boundaries(missed)} was passed over: the trainer went on to its next batch at step "
                f"{step} without stopping there. A training step that makes several optimizer updates has "
                f"boundaries between batches only; ask for multiples of the updates a batch makes."
            )


def _catalogue(found: LiveObjects, seed: int, device: str) -> Catalogue[AbstractSource]:
    """Build the sources of a trainer's objects, with averages of the trained module."""
    if device.startswith("cuda"):  # dropout on a GPU draws from that GPU's own generator
        drawn = torch.cuda.default_generators[torch.device(device).index or 0]
        found = replace(found, generators={**found.generators, "cuda": drawn})
    sources = sources_of(found, seed)
    student = next(iter(found.trained.values()))
    for name, average in found.averaged.items():
        label = "averages" if len(found.averaged) == 1 else name
        sources.append(Averages(average, student, label))
    return Catalogue("memory source of this run", {source.name: source for source in sources})


@contextmanager
def _untouched(model: nn.Module, device: str) -> Iterator[None]:
    """Restore the modes of modules and the global generators at the end, whatever happens inside."""
    modes = [(module, module.training) for module in model.modules()]
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with preserve_global_generators(), torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _as_rows(result: Any) -> np.ndarray:
    """A probe's result as numbers [N, C]: of more dimensions, every position is an input of its own."""
    result = getattr(result, "logits", result)
    if isinstance(result, Tensor):
        result = result.detach().cpu()
        result = (result if result.dtype == torch.float64 else result.float()).numpy()
    array = np.array(result)
    if array.ndim < 2 or not np.issubdtype(array.dtype, np.number):
        raise ProbeError(
            f"the probe must return numbers of two dimensions [inputs, outputs]; it returned "
            f"{array.dtype} {list(array.shape)}."
        )
    return array.reshape(-1, array.shape[-1])


def _boundaries(steps: list[int]) -> str:
    named = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
    return (
        f"the boundary at step {named}" if len(steps) == 1 else f"the boundaries at steps {named}"
    )


def _nothing(_: AtBoundaries) -> None:
    pass
