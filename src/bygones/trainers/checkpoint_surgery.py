"""Checkpoint surgery: copy a saved checkpoint with one source rewritten.

An ordinary resume of the copy is then an arm. Which files can be read is said in `checkpoint_files`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from bygones.core.errors import DesignError
from bygones.core.values import State, Window, match_leaves
from bygones.trainers.checkpoint_files import AbstractCheckpoint, open_checkpoint
from bygones.trainers.saved_sources import SavedMoments, SavedStreams
from bygones.training.interventions import AbstractIntervention, Hold, Reseed
from bygones.training.rewriter import OtherRuns, Rewriter
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment, check_pair


def rewrite_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    source: str,
    intervention: AbstractIntervention,
    donor: str | Path | None = None,
    *,
    leaves: str = "*",
    seed: int = 0,
) -> Path:
    """Copy a checkpoint to `out` with one source rewritten, and return `out`: resume it as any other.

    `source`: weights, moments, scheduler, batchnorm or streams, as far as the checkpoint keeps them.
    `donor`: the checkpoint that a `Transplant` takes the source from. `leaves`: the leaves to rewrite.
    `seed` decides random kicks and re-drawn streams. A reset optimizer is saved without state, so the one
    that loads it is as newly created and its bias correction restarts. What `Replace` puts in stays.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists():
        raise DesignError(f"{out} exists already; name a new place for the rewritten checkpoint.")
    opened = open_checkpoint(checkpoint, seed)
    rewritten = opened.sources[source]
    window = Window(opened.step, opened.step + 1)
    treatment = Treatment(source, intervention, window, leaves)
    _check(treatment, rewritten, opened, donor)
    given = None if donor is None else _donor_state(open_checkpoint(Path(donor), seed), rewritten)
    others = None if given is None else OtherRuns(donor=lambda step: given)
    Rewriter(opened.sources, seed).intervene(opened.step, [treatment], others)
    partial = out.with_name(f"{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    opened.write(partial, source)
    partial.replace(out)
    return out


def _check(
    treatment: Treatment,
    source: AbstractSource,
    opened: AbstractCheckpoint,
    donor: Path | str | None,
) -> None:
    check_pair(treatment, source)
    if isinstance(treatment.intervention, Hold):
        raise DesignError(
            "hold lasts for a window, and a checkpoint is one boundary. Use the callback."
        )
    if treatment.needs_donor and donor is None:
        raise DesignError(f"{treatment} needs donor=, the checkpoint to take it from.")
    if donor is not None and not treatment.needs_donor:
        raise DesignError(
            f"'{treatment.intervention}' takes nothing from a donor; leave donor out."
        )
    if isinstance(treatment.intervention, Reseed) and isinstance(source, SavedStreams):
        source.check_redrawn()
    state = source.capture()
    if state and not match_leaves(state, treatment.leaves):
        raise DesignError(
            f"no leaf of {source.name} in {opened.place.name} matches '{treatment.leaves}'. There are: "
            f"{', '.join(list(state)[:6])}{', …' if len(state) > 6 else ''}."
        )


def _donor_state(donor: AbstractCheckpoint, source: AbstractSource) -> dict[str, State]:
    """The donor's state of this source. Raises `DesignError` where its leaves do not fit."""
    given, mine = donor.sources[source.name].capture(), source.capture()
    for name in sorted(given.keys() | mine.keys()):
        here, there = _kind(mine, name), _kind(given, name)
        if isinstance(source, SavedMoments) and "missing" in (here, there):
            continue  # one of the two optimizers has not updated this parameter yet
        if here != there:
            raise DesignError(
                f"{donor.place} cannot be the donor of {source.name}: {name} is {there} there and {here} in "
                f"the checkpoint to rewrite. Both must be of the same model and settings."
            )
    return {source.name: given}


def _kind(state: State, name: str) -> str:
    """Describe a leaf's type and shape; all plain values count as one kind."""
    if name not in state:
        return "missing"
    leaf = state[name]
    if isinstance(leaf, Tensor | np.ndarray):
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
    return "a plain value"
