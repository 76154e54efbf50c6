"""Fork check: test that snapshots are complete, by restoring them into another seed's run.

A snapshot is complete if the restored run continues like the original. So each snapshot is restored into
a run that was built from *another* seed, both are trained to the end, and every leaf is compared bit by
bit. Then each source is left out in turn: if the runs still agree, the source made no difference here. A
source that holds the same in both runs cannot be left out, so this says nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bygones.core.digest import same_bits
from bygones.core.errors import ForkError
from bygones.core.first_difference import first_differing_leaf
from bygones.core.text import join_names
from bygones.core.values import Digest
from bygones.training.probes import Values
from bygones.training.reachable import hash_reachable
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot

_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Certificate:
    """The result of a passed fork check.

    `boundaries`: where the run was forked. `until`: the step at which the forks were compared.
    `needed`: sources without which a fork ends differently. `inert`: sources that made no difference.
    `constant`: sources that held at each boundary what a new run of another seed holds (a setting, say), so
    that leaving them out left nothing out: they may matter where they are changed.
    """

    boundaries: tuple[int, ...]
    until: int
    needed: tuple[str, ...]
    inert: tuple[str, ...]
    constant: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "passed": True,
            "boundaries": list(self.boundaries),
            "until": self.until,
            "needed": list(self.needed),
            "inert": list(self.inert),
            "constant": list(self.constant),
        }

    def __str__(self) -> str:
        places = ", ".join(map(str, self.boundaries))
        inert = f"; inert in this run: {', '.join(self.inert)}" if self.inert else ""
        constant = f"; constant in this run: {', '.join(self.constant)}" if self.constant else ""
        return (
            f"forks at steps {places} are bit-equal to the original at step {self.until}; "
            f"needed for that: {', '.join(self.needed)}{inert}{constant}"
        )


def check_fork(
    recipe: Recipe | Any, at: Sequence[int], until: int, seed: int = 0, device: str = "cpu"
) -> Certificate:
    """Fork a run at the boundaries `at` and require each fork to end bit-equal to the original.

    Raises `ForkError`, which names the first leaf and step that differ, and what is reachable from the
    parts, differs at the fork and is captured by no source. Cost: (len(at) + number of sources) runs
    from a boundary to `until`, and three from the start, one of which trains the same seed again: a run
    that its seed does not decide is refused.

    >>> from bygones.zoo.worlds import heavy_ball
    >>> print(check_fork(heavy_ball.recipe, at=[1, 4], until=6))
    forks at steps 1, 4 are bit-equal to the original at step 6; needed for that: weights, moments, \
order, streams; constant in this run: scheduler, gradients
    """
    recipe = Recipe.of(recipe)
    run = Run(recipe, seed, device)
    snapshots: dict[int, Snapshot] = {}
    seen: dict[int, dict[str, Digest]] = {}
    for step in sorted({*at}):
        run.advance(step)
        snapshots[step] = run.snapshot()
        seen[step] = hash_reachable(run.parts)
    run.advance(until)
    ending, outputs = run.snapshot(), _observe_outputs(run)
    differing: set[str] = set()  # sources that a restore changes
    for step, snapshot in snapshots.items():
        # Build a new run each time: one that has trained before may carry state of its own.
        fork = Run(recipe, _OTHER_SEED, device)
        differing |= _differing_sources(fork.snapshot(), snapshot)
        fork.restore(snapshot)
        hidden = _find_differences(seen[step], hash_reachable(fork.parts))
        fork.advance(until)
        if first_differing_leaf(ending.states, fork.snapshot().states) is not None:
            raise _explain_failure(recipe, run, snapshot, until, hidden)
        if not same_bits(outputs, _observe_outputs(fork)):
            raise ForkError(
                f"the fork of {recipe} at step {step} trains like the original, but the model's "
                f"outputs on the probe set differ at step {until}. {_name_suspects(hidden)}"
            )
    _check_seed_decides(recipe, run, ending)
    tested = [name for name in run.sources if name in differing]
    needed = [name for name in tested if _is_needed(recipe, device, snapshots, ending, name)]
    return Certificate(
        tuple(snapshots),
        until,
        needed=tuple(needed),
        inert=tuple(name for name in tested if name not in needed),
        constant=tuple(name for name in run.sources if name not in differing),
    )


def _check_seed_decides(recipe: Recipe, run: Run, ending: Snapshot) -> None:
    """Train the same seed again, some time later, and raise `ForkError` unless it ends in the same bits."""
    again = Run(recipe, run.seed, run.parts.device)
    again.advance(ending.step)
    where = first_differing_leaf(ending.states, again.snapshot().states)
    if where is not None:
        raise ForkError(
            f"{recipe} is not decided by its seed: seed {run.seed}, trained twice to step {ending.step}, "
            f"differs first in {where}. A clock, the process's number, a file that changes or a generator "
            f"that nothing seeds decides a part of it; take that from the seed."
        )


def _differing_sources(one: Snapshot, other: Snapshot) -> set[str]:
    """Return the names of the sources whose state differs in any bit."""
    return {
        name
        for name in one.states
        if first_differing_leaf({name: one.states[name]}, {name: other.states[name]}) is not None
    }


def _is_needed(
    recipe: Recipe,
    device: str,
    snapshots: Mapping[int, Snapshot],
    ending: Snapshot,
    source: str,
) -> bool:
    """Return True if, at any boundary, a fork without this source ends differently."""
    for snapshot in snapshots.values():
        fork = Run(recipe, _OTHER_SEED, device)
        fork.restore(snapshot, leave_out=source)
        fork.advance(ending.step)
        if first_differing_leaf(ending.states, fork.snapshot().states) is not None:
            return True
    return False


def _explain_failure(
    recipe: Recipe, run: Run, snapshot: Snapshot, until: int, hidden: list[str]
) -> ForkError:
    """Train original and fork again, step by step, and build the error that names where they diverge."""
    device = run.parts.device
    original = Run(recipe, run.seed, device)
    original.advance(snapshot.step)
    fork = Run(recipe, _OTHER_SEED, device)
    fork.restore(snapshot)
    where = first_differing_leaf(original.snapshot().states, fork.snapshot().states)
    step = snapshot.step
    while where is None and step < until:
        step += 1
        original.advance(step)
        fork.advance(step)
        where = first_differing_leaf(original.snapshot().states, fork.snapshot().states)
    found = (
        where
        or "a leaf that agreed when the run was repeated: the training step is not deterministic"
    )
    return ForkError(
        f"the fork of {recipe} at step {snapshot.step} differs first in {found} at step {step}. "
        f"{_name_suspects(hidden)}"
    )


def _name_suspects(hidden: list[str]) -> str:
    """Write what may explain the failure, and what to do: `hidden` are the paths that differ."""
    if not hidden:
        return (
            "Nothing reachable from the parts differs at the fork, so the step itself is not "
            "deterministic, or keeps state in a library or a global out of reach."
        )
    return (
        f"What differs at the fork and is captured by no source: {join_names(hidden, limit=6)}. Name it in "
        f"Parts.others, write a source for it, or compute it anew in every step."
    )


def _observe_outputs(run: Run) -> np.ndarray | None:
    """Observe the model on the probe set, or return None without one.

    Some state influences the model in evaluation mode only, so the training states may not show it.
    """
    return None if run.parts.probe_set is None else run.observe(Values(), check=False)


def _find_differences(one: Mapping[str, Digest], other: Mapping[str, Digest]) -> list[str]:
    """List the paths whose digests differ, or that only one of the two has."""
    return [path for path in sorted(one.keys() | other.keys()) if one.get(path) != other.get(path)]
