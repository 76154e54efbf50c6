"""The proof that nothing was forgotten: restore into another seed's run, train on, compare every bit.

Restoring is right when the future is right. So a snapshot is not compared with what it was made from;
it is put into a run built from *another* seed, both are trained to the end, and every leaf is compared.
Then each source is left out in turn, to see that the comparison would have noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bygones.core.digest import same_bits
from bygones.core.errors import ForkError
from bygones.core.first_difference import first_differing_leaf
from bygones.core.values import Digest
from bygones.training.probes import Values
from bygones.training.reachable import reachable
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot

_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Certificate:
    """What a fork check found: which sources a fork needs, and which made no difference here."""

    boundaries: tuple[int, ...]
    until: int
    needed: tuple[str, ...]
    inert: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": True,
            "boundaries": list(self.boundaries),
            "until": self.until,
            "needed": list(self.needed),
            "inert": list(self.inert),
        }

    def __str__(self) -> str:
        places = ", ".join(map(str, self.boundaries))
        inert = f"; inert in this run: {', '.join(self.inert)}" if self.inert else ""
        return (
            f"forks at steps {places} are bit-equal to the original at step {self.until}; "
            f"needed for that: {', '.join(self.needed)}{inert}"
        )


def check_fork(
    recipe: Recipe | Any, at: Sequence[int], until: int, seed: int = 0, device: str = "cpu"
) -> Certificate:
    """Forks a run at several boundaries and requires each fork to end bit-equal to the original.

    Raises `ForkError` with the first leaf and step that differ, and with everything reachable from the
    parts that differs at the fork and that no source captures. Cost: (len(at) + number of sources)
    runs from a boundary to `until`, and two from the start.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> print(check_fork(heavy_ball.recipe, at=[1, 4], until=6))
    forks at steps 1, 4 are bit-equal to the original at step 6; needed for that: weights, moments, \
order, streams; inert in this run: scheduler, gradients
    """
    recipe = Recipe.of(recipe)
    run = Run(recipe, seed, device)
    snapshots: dict[int, Snapshot] = {}
    seen: dict[int, dict[str, Digest]] = {}
    for step in sorted({*at}):
        run.advance(step)
        snapshots[step] = run.snapshot()
        seen[step] = reachable(run.parts)
    run.advance(until)
    ending, outputs = run.snapshot(), _outputs(run)
    for step, snapshot in snapshots.items():
        # Always a new one: a run that has trained before has memories of its own.
        twin = Run(recipe, _OTHER_SEED, device)
        twin.restore(snapshot)
        hidden = _differing(seen[step], reachable(twin.parts))
        twin.advance(until)
        if first_differing_leaf(ending.states, twin.snapshot().states) is not None:
            raise _refusal(recipe, run, twin, snapshot, until, hidden)
        if not same_bits(outputs, _outputs(twin)):
            raise ForkError(
                f"the fork of {recipe} at step {step} trains on as the original did, and yet the model's "
                f"outputs on the probe set differ at step {until}. {_suspects(hidden)}"
            )
    needed = [name for name in run.sources if _noticed(recipe, device, snapshots, ending, name)]
    inert = [name for name in run.sources if name not in needed]
    return Certificate(tuple(snapshots), until, tuple(needed), tuple(inert))


def _noticed(
    recipe: Recipe,
    device: str,
    snapshots: Mapping[int, Snapshot],
    ending: Snapshot,
    source: str,
) -> bool:
    """Whether a fork that lacks one source ends differently, at any of the boundaries."""
    for snapshot in snapshots.values():
        twin = Run(recipe, _OTHER_SEED, device)
        twin.restore(snapshot, leave_out=source)
        twin.advance(ending.step)
        if first_differing_leaf(ending.states, twin.snapshot().states) is not None:
            return True
    return False


def _refusal(
    recipe: Recipe, run: Run, twin: Run, snapshot: Snapshot, until: int, hidden: list[str]
) -> ForkError:
    """Walks original and twin again, step by step, to say where they part."""
    device = run.parts.device
    original = Run(recipe, run.seed, device)
    original.advance(snapshot.step)
    twin = Run(recipe, _OTHER_SEED, device)
    twin.restore(snapshot)
    where = first_differing_leaf(original.snapshot().states, twin.snapshot().states)
    step = snapshot.step
    while where is None and step < until:
        step += 1
        original.advance(step)
        twin.advance(step)
        where = first_differing_leaf(original.snapshot().states, twin.snapshot().states)
    found = (
        where
        or "a leaf that agreed when the run was repeated: the training step is not deterministic"
    )
    return ForkError(
        f"the fork of {recipe} at step {snapshot.step} differs first in {found} at step {step}. "
        f"{_suspects(hidden)}"
    )


def _suspects(hidden: list[str]) -> str:
    if not hidden:
        return (
            "Nothing reachable from the parts differs at the fork, so the step itself is not "
            "deterministic, or keeps state in a library or a global out of reach."
        )
    return (
        f"What differs at the fork and is captured by no source: {_listed(hidden)}. Name it in "
        f"Parts.others, write a source for it, or compute it anew in every step."
    )


def _outputs(run: Run) -> np.ndarray | None:
    """What the model says on the probe set in evaluation mode: memory may show there and nowhere else."""
    return None if run.parts.probe_set is None else run.observe(Values(), check=False)


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:6])
    return f"{shown} and {len(paths) - 6} more" if len(paths) > 6 else shown


def _differing(one: Mapping[str, Digest], other: Mapping[str, Digest]) -> list[str]:
    return [path for path in sorted(one.keys() | other.keys()) if one.get(path) != other.get(path)]
