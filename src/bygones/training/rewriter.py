"""Treatments at a boundary: how each rewrites its source, and what is remembered of open windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Digest, State, match_leaves
from bygones.training.interventions import Boundary
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment

Donor = Callable[[int], Mapping[str, State]]  # the donor's states, by source, at a step


class Rewriter:
    """Rewrites the sources of one run, and keeps the entry state of each window that is open."""

    def __init__(self, sources: Mapping[str, AbstractSource], seed: int) -> None:
        self.sources = sources
        self.seed = seed
        self.entries: dict[Digest, State] = {}

    def intervene(
        self, step: int, treatments: Iterable[Treatment], donor: Donor | None = None
    ) -> None:
        """Lets the treatments whose window has this boundary rewrite their sources."""
        for treatment in treatments:
            if step in treatment.window:
                self._rewrite(step, treatment, donor)
            elif step == treatment.window.stop and treatment.intervention.restores_at_end:
                self._put_back(treatment)

    def _rewrite(self, step: int, treatment: Treatment, donor: Donor | None) -> None:
        source = self.sources[treatment.source]
        state = source.capture()
        address = treatment.digest()
        if step == treatment.window.start:
            source.register_policies(treatment.order_policies())
            self.entries[address] = state
        names = match_leaves(state, treatment.leaves)
        chosen = {name: state[name] for name in names}
        given = donor(step)[source.name] if donor and treatment.needs_donor else None
        at = Boundary(
            step=step,
            window=treatment.window,
            source=source.name,
            leaves=treatment.leaves,
            entry=_select(self.entries[address], treatment.leaves),
            fresh=_select(source.fresh(), treatment.leaves) if treatment.needs_fresh else None,
            donor=_select(given, treatment.leaves) if given is not None else None,
            rng=generator(self.seed, "intervention", source.name, step),
        )
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a run that diverges takes its kicks along
            rewritten = treatment.intervention(chosen, at)
        kept = {name: leaf for name, leaf in state.items() if name not in chosen}
        source.restore({**kept, **rewritten})
        if step == treatment.window.stop - 1 and not treatment.intervention.restores_at_end:
            del self.entries[address]

    def _put_back(self, treatment: Treatment) -> None:
        source = self.sources[treatment.source]
        entry = self.entries.pop(treatment.digest(), None)
        if entry is not None:
            names = getattr(treatment.intervention, "with_", entry)
            source.restore({**source.capture(), **{name: entry[name] for name in names}})


def _select(state: State, leaves: str) -> State:
    return {name: state[name] for name in match_leaves(state, leaves)}
