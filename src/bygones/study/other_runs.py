"""Other runs: donors, and the control and treated arm beside a matched null, trained where they are read.

    transplant                  reads the donor, a run of a seed that is none of the study's
    null over several steps     reads the control and the treated arm of its own seed, at each boundary

Both are trained on first use, from the same recipe and under the same contract. The control and the
treated arm go along with their null, so only one boundary of them is held at a time; they equal the
study's own arms to the bit, and what they cost is in the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bygones.core.values import State
from bygones.study.design import Arm
from bygones.study.donor import capture_sources
from bygones.study.tree import Segment, Tree, Work
from bygones.training.interventions import MatchedNull
from bygones.training.lanes import BatchedRuns, SingleRun
from bygones.training.rewriter import OtherRuns, StatesAt
from bygones.training.run import Run, Snapshot
from bygones.training.treatment import Treatment

Runner = BatchedRuns | SingleRun


def make_donors(
    make: Callable[[], Runner], num_seeds: int, boundaries: Sequence[int]
) -> list[StatesAt]:
    """Return each seed's donor: its states at these boundaries. `make` builds the donors' runs."""
    taken: dict[int, list[Snapshot]] = {}

    def train() -> None:
        donors = make()
        for boundary in boundaries:
            donors.advance(boundary)
            taken[boundary] = [run.snapshot() for run in donors.runs]

    def donor(place: int) -> StatesAt:
        def at(step: int) -> Mapping[str, State]:
            if not taken:
                train()
            return taken[step][place].states

        return at

    return [donor(place) for place in range(num_seeds)]


def compared_arm(history: Iterable[Treatment]) -> tuple[Treatment, ...]:
    """Return the treatments of the arm that a null's history is compared with; empty if it reads none."""
    for treatment in history:
        if isinstance(treatment.intervention, MatchedNull) and treatment.intervention.against:
            return treatment.intervention.against
    return ()


def first_boundary(treatments: Iterable[Treatment]) -> int:
    """The boundary up to which an arm, its null and the control are the same run."""
    return min(treatment.window.start for treatment in treatments)


def reference_reads(arm: Arm, end: int) -> dict[int, list[str]]:
    """The sources that an arm's null reads, by step up to `end`; empty if it acts at one boundary."""
    reads: dict[int, list[str]] = {}
    for treatment in arm.treatments:
        for step in treatment.boundaries:
            if step <= end:
                reads.setdefault(step, []).append(treatment.source)
    return dict(sorted(reads.items())) if len(reads) > 1 else {}


def reference_steps(history: Iterable[Treatment], start: int, stop: int, *, at_end: bool) -> int:
    """Steps that the control and the treated arm are trained for beside one piece of a null's training.

    They begin where the arms part, and go as far as the last boundary that is read in [start, stop), or at
    `stop` too.
    """
    treatments = tuple(history)
    compared = compared_arm(treatments)
    read = [step for t in treatments if compared and t.is_null for step in t.boundaries]
    mine = [step for step in read if start <= step < stop or (at_end and step == stop)]
    return 2 * (max(mine) + 1 - first_boundary(compared)) if mine else 0


def work_steps(tree: Tree, work: Work) -> int:
    """Steps that a piece of work takes for one seed, with what its nulls are compared with."""
    history, at_end = tree.segments[work.index].history, work.stop in work.steps
    return work.num_steps + reference_steps(history, work.start, work.stop, at_end=at_end)


def segment_steps(segment: Segment) -> int:
    """Steps that a whole segment takes for one seed, with what its nulls are compared with."""
    start, stop = segment.start, segment.stop
    return stop - start + reference_steps(segment.history, start, stop, at_end=segment.leaf)


@dataclass
class ReferenceRuns:
    """One arm of some seeds, trained as far as its null has come. Steps must be asked for in ascending order.

    `make`: builds the runs at the boundary where the arms part.
    """

    make: Callable[[], Runner]
    treatments: Sequence[Treatment]  # none for the control
    sources: Sequence[str]  # whose states are read
    donors: Sequence[OtherRuns]
    runner: Runner | None = None
    step: int = -1
    states: Sequence[Mapping[str, State]] = ()

    def of(self, place: int) -> StatesAt:
        """The states of one seed's run."""

        def at(step: int) -> Mapping[str, State]:
            if step != self.step:
                self._advance(step)
            return self.states[place]

        return at

    def _advance(self, step: int) -> None:
        """Train to a boundary, and read the states there after its treatments; then one step further."""
        states: list[Mapping[str, State]] = []

        def read(run: Run) -> None:
            states.append(capture_sources(run.sources, self.sources))

        self.runner = self.runner or self.make()
        self.runner.advance(
            step + 1, self.treatments, others=self.donors, at_boundary=read, observe_at=(step,)
        )
        self.step, self.states = step, states
