"""Single run: one unbatched run with the interface of `BatchedRuns`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run
from bygones.training.treatment import Treatment


class SingleRun:
    """One run that is trained by itself."""

    def __init__(self, run: Run) -> None:
        self.runs = [run]

    def advance(
        self,
        until: int,
        treatments: Sequence[Treatment] = (),
        *,
        others: Sequence[OtherRuns] | None = None,
        at_boundary: Callable[[Run], None] | None = None,
        observe_at: Collection[int] = (),
    ) -> None:
        """Train as `Run.advance` does; call `at_boundary` only at the steps in `observe_at`."""

        def observe(run: Run) -> None:
            if at_boundary is not None and run.step in observe_at:
                at_boundary(run)

        mine = others[0] if others else None
        self.runs[0].advance(until, treatments, others=mine, at_boundary=observe)
