"""Lanes: several seeds batched into one training step by `torch.func.vmap`."""

from collections.abc import Sequence

from bygones.training.lanes.batched_runs import BatchedRuns, refusal
from bygones.training.lanes.single_run import SingleRun
from bygones.training.lanes.stack import NotBatchable
from bygones.training.run import Run


def make_runner(runs: Sequence[Run], width: int) -> BatchedRuns | SingleRun:
    """Combine runs: as lanes of one step if `width` > 1, else the first run by itself."""
    return BatchedRuns(runs, width) if width > 1 else SingleRun(runs[0])


__all__ = ["SingleRun", "BatchedRuns", "NotBatchable", "make_runner", "refusal"]
