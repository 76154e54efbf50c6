"""Applying treatments: capture a source, rewrite it, restore it; keep the entry states of open windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Digest, State, match_leaves
from bygones.training.interventions import Boundary, Displacement, MatchedNull
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment

StatesAt = Callable[[int], Mapping[str, State]]  # the states of a run, by source, at a step


@dataclass(frozen=True)
class OtherRuns:
    """The runs whose states a treatment may read; None where no treatment of this run reads them.

    `donor`: of another seed, for transplants. `control`, `treated`: of this seed, for a matched null that
    acts at several boundaries; `treated` is the arm that it matches, after its treatments of the step.
    """

    donor: StatesAt | None = None
    control: StatesAt | None = None
    treated: StatesAt | None = None


class Rewriter:
    """Applies treatments to the sources of one run.

    `entries`: for each treatment whose window is open, by digest, the source's state at the window's start.
    `displacements`: how far its matched nulls have moved their sources, and how far the treatments do.
    """

    def __init__(self, sources: Mapping[str, AbstractSource], seed: int) -> None:
        self.sources = sources
        self.seed = seed
        self.entries: dict[Digest, State] = {}
        self.displacements: list[Displacement] = []

    def intervene(
        self, step: int, treatments: Iterable[Treatment], others: OtherRuns | None = None
    ) -> None:
        """Apply the treatments whose window contains this step, and undo those whose window ends here."""
        others = others or OtherRuns()
        for treatment in treatments:
            if step in treatment.window or (treatment.is_null and step in treatment.boundaries):
                self._rewrite(step, treatment, others)
            elif step in treatment.boundaries:
                self._undo(treatment)

    def _rewrite(self, step: int, treatment: Treatment, others: OtherRuns) -> None:
        """Apply one treatment; leaves that it does not select stay as they are."""
        source = self.sources[treatment.source]
        state = source.capture()
        address = treatment.digest()
        if step == treatment.window.start:
            source.register_policies(treatment.order_policies())
            self.entries[address] = state
        names = match_leaves(state, treatment.leaves)
        chosen = {name: state[name] for name in names}
        donor = others.donor(step)[source.name] if others.donor and treatment.needs_donor else None
        at = Boundary(
            step=step,
            window=treatment.window,
            source=source.name,
            leaves=treatment.leaves,
            entry=_select(self.entries[address], treatment.leaves),
            fresh=_select(source.fresh(), treatment.leaves) if treatment.needs_fresh else None,
            donor=None if donor is None else _select(donor, treatment.leaves),
            rng=generator(self.seed, "intervention", source.name, step),
        )
        # The state of a diverging run overflows; kicking it is no error.
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(treatment.intervention, MatchedNull):
                rewritten = self._apply_null(treatment.intervention, chosen, at, others)
            else:
                rewritten = treatment.intervention(chosen, at)
        kept = {name: leaf for name, leaf in state.items() if name not in chosen}
        source.restore({**kept, **rewritten})
        if step == treatment.boundaries[-1]:
            del self.entries[address]

    def _apply_null(
        self, null: MatchedNull, chosen: State, at: Boundary, others: OtherRuns
    ) -> State:
        """Displace as far from the control as the treated arm is, and record both distances."""
        if null.against:
            assert others.control is not None
            assert others.treated is not None
            control = _select(others.control(at.step)[at.source], at.leaves)
            treated = _select(others.treated(at.step)[at.source], at.leaves)
        else:
            control, treated = chosen, null.of(chosen, at)
        rng = generator(self.seed, "null", at.source, at.window.start)
        kicked = null(chosen, replace(at, rng=rng, control=control, treated=treated))
        self.displacements.append(Displacement.measure(at, control, treated, kicked))
        return kicked

    def _undo(self, treatment: Treatment) -> None:
        """Return the treated leaves to their values at the window's start."""
        source = self.sources[treatment.source]
        entry = self.entries.pop(treatment.digest(), None)
        if entry is not None:
            names = getattr(treatment.intervention, "with_", entry)
            source.restore({**source.capture(), **{name: entry[name] for name in names}})


def _select(state: State, leaves: str) -> State:
    return {name: state[name] for name in match_leaves(state, leaves)}
