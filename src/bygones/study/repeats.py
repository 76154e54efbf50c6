"""Repeats: every arm of a study again within each seed, at later forks and in resampled continuations.

    fork f            the arms of the first fork, f − fork_at steps later, off the same control trajectory
    sibling k > 0     the same arms, each after a `Resample` of all that is still random at the fork

A repeat has its own control, sham and nulls. Sibling 0 at the first fork is the study without repeats, so
what is stored of that is not trained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.study.design import Arm, HasSources, Study, add_reference_arms
from bygones.training.interventions import MatchedNull, Resample
from bygones.training.treatment import Treatment


@dataclass(frozen=True)
class Branch:
    """An arm of one repeat. `arm`: under a name of its own; `row`: its place among the study's arms.

    `repeat`: the index of the repeat; `steps`: where it is observed.
    """

    arm: Arm
    row: int
    repeat: int
    steps: tuple[int, ...]


def make_branches(study: Study, run: HasSources) -> tuple[Branch, ...]:
    """Return the arms of every repeat, with their references; those of the first are the study's own.

    Raises `DesignError` for siblings of a run in which nothing can be drawn anew.
    """
    branches: list[Branch] = []
    for index, repeat in enumerate(study.repeats):
        later = repeat.fork_at - study.fork_at
        arms = add_reference_arms([_shift(arm, later) for arm in study.arms], run)
        drawn = _resampled(run, repeat.fork_at, repeat.sibling) if repeat.sibling else ()
        steps = tuple(step + later for step in study.steps)
        for row, arm in enumerate(arms):
            name = f"{arm.name} (repeat {index})" if index else arm.name
            treatments = (*drawn, *(_beside(one, drawn) for one in arm.treatments))
            branches.append(
                Branch(replace(arm, name=name, treatments=treatments), row, index, steps)
            )
    return tuple(branches)


def name_branches(arms: Sequence[Arm], steps: Sequence[int]) -> tuple[Branch, ...]:
    """Return the arms of a study without repeats, references among them, as the branches of its only one."""
    return tuple(Branch(arm, row, 0, tuple(steps)) for row, arm in enumerate(arms))


def _resampled(run: HasSources, at: int, sibling: int) -> tuple[Treatment, ...]:
    """Return the treatments that draw anew what is still random at a step."""
    names = [name for name, source in run.sources.items() if "resampleable" in source.capabilities]
    if not names:
        raise DesignError(
            "siblings differ in what is still to be drawn after the fork, and this run has no order or "
            "stream that can be drawn anew. Use more seeds."
        )
    return tuple(Treatment(name, Resample(sibling), Window(at, at + 1)) for name in names)


def _beside(treatment: Treatment, drawn: Sequence[Treatment]) -> Treatment:
    """Return a null's treatment that is compared with the arm of the same sibling; others as they are."""
    null = treatment.intervention
    if not drawn or not isinstance(null, MatchedNull) or not null.against:
        return treatment
    return replace(treatment, intervention=replace(null, against=(*drawn, *null.against)))


def _shift(arm: Arm, later: int) -> Arm:
    """Return the arm with every treatment so many steps later."""
    return replace(arm, treatments=tuple(_shifted(arm.treatments, later))) if later else arm


def _shifted(treatments: Iterable[Treatment], later: int) -> Iterable[Treatment]:
    for one in treatments:
        window = Window(one.window.start + later, one.window.stop + later)
        yield replace(one, window=window)
