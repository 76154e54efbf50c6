"""Applying treatments: capture a source, rewrite it, restore it; keep the entry states of open windows."""

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
    """Applies treatments to the sources of one run.

    `entries`: for each treatment whose window is open, by digest, the source's state at the window's start.
    """

    def __init__(self, sources: Mapping[str, AbstractSource], seed: int) -> None:
        self.sources = sources
        self.seed = seed
        self.entries: dict[Digest, State] = {}

    def intervene(
        self, step: int, treatments: Iterable[Treatment], donor: Donor | None = None
    ) -> None:
        """Apply the treatments whose window contains this step, and undo those whose window ends here."""
        for treatment in treatments:
            if step in treatment.window:
                self._rewrite(step, treatment, donor)
            elif step == treatment.window.stop and treatment.intervention.restores_at_end:
                self._undo(treatment)

    def _rewrite(self, step: int, treatment: Treatment, donor: Donor | None) -> None:
        """Apply one treatment; leaves that it does not select stay as they are."""
        source = self.sources[treatment.source]
        state = source.capture()
        address = treatment.digest()
        if step == treatment.window.start:
            source.register_policies(treatment.order_policies())
            self.entries[address] = state
        names = match_leaves(state, treatment.leaves)
        chosen = {name: state[name] for name in names}
        donor_state = donor(step)[source.name] if donor and treatment.needs_donor else None
        at = Boundary(
            step=step,
            window=treatment.window,
            source=source.name,
            leaves=treatment.leaves,
            entry=_select(self.entries[address], treatment.leaves),
            fresh=_select(source.fresh(), treatment.leaves) if treatment.needs_fresh else None,
            donor=None if donor_state is None else _select(donor_state, treatment.leaves),
            rng=generator(self.seed, "intervention", source.name, step),
        )
        # The state of a diverging run overflows; kicking it is no error.
        with np.errstate(over="ignore", invalid="ignore"):
            rewritten = treatment.intervention(chosen, at)
        kept = {name: leaf for name, leaf in state.items() if name not in chosen}
        source.restore({**kept, **rewritten})
        if step == treatment.window.stop - 1 and not treatment.intervention.restores_at_end:
            del self.entries[address]

    def _undo(self, treatment: Treatment) -> None:
        """Return the treated leaves to their values at the window's start."""
        source = self.sources[treatment.source]
        entry = self.entries.pop(treatment.digest(), None)
        if entry is not None:
            names = getattr(treatment.intervention, "with_", entry)
            source.restore({**source.capture(), **{name: entry[name] for name in names}})


def _select(state: State, leaves: str) -> State:
    return {name: state[name] for name in match_leaves(state, leaves)}
