"""Measured lifetime: what one step leaves of a difference, against what the hyperparameters say.

At a boundary every leaf v of a source is put to v/2 in a fork. If v' and v'_half are the leaves one step
later, the step keeps the fraction ρ = ‖v' - v'_half‖ / ‖v/2‖ of the difference: β for a moving average with
decay β. An optimizer that sets its momentum to zero in each step has ρ = 0, whatever its β.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bygones.attach.live_run import Live
from bygones.core.digest import as_array
from bygones.core.values import Lifetime, State
from bygones.training.leaves import is_continuous

# A lifetime is contradicted if less than this part of the difference is left that should be.
_LEAST_SHARE = 0.5


def decaying_sources(live: Live) -> list[str]:
    """Return the sources whose lifetime is a decay, and which hold arrays."""
    return [
        name
        for name, source in live.sources.items()
        if source.lifetime().kind == "e-fold" and any(map(_decays, source.capture().values()))
    ]


def _decays(leaf: Any) -> bool:
    return is_continuous(leaf) and np.ndim(as_array(leaf)) > 0


def halve(state: State) -> dict[str, Any]:
    """Return a state with its continuous arrays halved."""
    return {leaf: value * 0.5 if _decays(value) else value for leaf, value in state.items()}


def kept_fraction(before: State, after: State, halved_after: State) -> float:
    """Return the largest part of a difference that any leaf keeps over one step; 0 if it is gone.

    >>> import numpy as np
    >>> before, after = {"m": np.array([2.0, 4.0])}, {"m": np.array([3.0, 3.0])}
    >>> round(kept_fraction(before, after, {"m": after["m"] - 0.9 * before["m"] / 2}), 6)
    0.9
    """
    kept = [0.0]
    for leaf, value in before.items():
        if _decays(value) and leaf in after and leaf in halved_after:
            size = np.linalg.norm(as_array(value).astype(np.float64)) / 2
            one, other = (as_array(held[leaf]).astype(np.float64) for held in (after, halved_after))
            if size > 0:
                kept.append(float(np.linalg.norm(one - other) / size))
    return max(kept)


def contradicted(stated: Lifetime, kept: float) -> bool:
    """Return whether a source forgets much faster than its hyperparameters say.

    >>> contradicted(Lifetime.decaying(0.9), 0.0), contradicted(Lifetime.decaying(0.9), 0.9)
    (True, False)
    """
    return stated.kind == "e-fold" and kept < _LEAST_SHARE * float(np.exp(-1.0 / stated.steps))


def measured_words(live: Live, kept: Mapping[str, float]) -> dict[str, str]:
    """Return the lifetimes that the run contradicts, by source: as measured, and as stated."""
    stated = {name: live.sources[name].lifetime() for name in kept}
    return {
        name: f"{Lifetime.decaying(kept[name])} as measured; its settings say {lifetime}"
        for name, lifetime in stated.items()
        if contradicted(lifetime, kept[name])
    }
