"""Batched training: several runs as the lanes of one step, with the training loop of `Run`.

    for step in range(start, stop):
        -- boundary --  at a treatment or observation, each run is linked to its lane and treated as usual
        batches = one for each lane, from its own data, order and random streams
        losses, gradients = all lanes at once;  one update of all lanes

Shapes: W lanes, B examples in a batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import as_array, same_bits
from bygones.core.hash_chain import extend_chain
from bygones.core.keyed_rng import mix_place
from bygones.core.text import join_names
from bygones.training.devices import to_device
from bygones.training.generators import device_generator, preserve_global_generators
from bygones.training.lanes.gradients import Gradients
from bygones.training.lanes.stack import ELEMENTWISE, NotBatchable, Stack
from bygones.training.recipe import Parts, supervised
from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run
from bygones.training.treatment import Treatment


class BatchedRuns:
    """Runs of one recipe that are trained together, in `width` lanes.

    Unused lanes are computed and discarded, so that a run's bits do not depend on the number of runs.
    A run that diverges leaves its lane and is trained no further. Raises `NotBatchable` for a recipe
    that cannot have lanes.

    >>> from bygones.zoo.regimes import digits
    >>> lanes = BatchedRuns([Run(digits.recipe, seed) for seed in range(3)], width=8)
    >>> lanes.advance(2)
    >>> [run.step for run in lanes.runs]
    [2, 2, 2]
    """

    def __init__(self, runs: Sequence[Run], width: int) -> None:
        reason = refusal(runs[0].parts)
        if reason:
            raise NotBatchable(reason)
        self.runs = list(runs)
        self.width = width
        self._stack = Stack(runs[0].parts, width)
        self._gradients: dict[Any, Gradients] = {}  # by the shapes of a batch
        self._data = _find_common_data(runs)
        self._generator = device_generator(runs[0].parts.device)  # dropout masks are drawn from it
        for run in runs:
            for optimizer in run.parts.optimizers.values():
                # The stack's optimizer steps instead; torch's schedulers would warn that this one does not.
                optimizer._opt_called = True  # type: ignore[attr-defined]

    def advance(
        self,
        until: int,
        treatments: Sequence[Treatment] = (),
        *,
        others: Sequence[OtherRuns] | None = None,
        at_boundary: Callable[[Run], None] | None = None,
        observe_at: Collection[int] = (),
    ) -> None:
        """Train all lanes as `Run.advance` does; call `at_boundary` only at the steps in `observe_at`."""
        with preserve_global_generators():
            self._stack.gather(self._live_lanes())
            while (step := self.runs[0].step) < until:
                acts = any(step in treatment.boundaries for treatment in treatments)
                if acts or step in observe_at:
                    self._complete_runs()
                    for lane, run in enumerate(self.runs):
                        run.intervene(treatments, others[lane] if others else None)
                        if at_boundary is not None and step in observe_at:
                            at_boundary(run)
                    if acts:
                        self._stack.gather(self._live_lanes())
                self._train_one_step()
            self._complete_runs()

    def _live_lanes(self) -> dict[int, Run]:
        """Return the runs that have not diverged, by lane."""
        return {lane: run for lane, run in enumerate(self.runs) if run.diverged_at is None}

    def _complete_runs(self) -> None:
        """Copy to every run what it does not share with its lane: shared state, and the schedule."""
        live = self._live_lanes()
        self._stack.scatter(live)
        if live and self.runs[0].parts.schedulers:
            leader, *others = live.values()
            schedule = leader.sources["scheduler"].capture()
            for run in others:
                run.sources["scheduler"].restore(schedule)

    def _train_one_step(self) -> None:
        live = self._live_lanes()
        rows = [run.parts.cursor.next() for run in self.runs]
        losses = self._step_lanes(live, rows) if live else {}
        for run in live.values():
            run.parts.cursor.check_feedback()  # a treatment may have switched to an order that needs it
        for lane, run in enumerate(self.runs):
            run.losses.append(losses.get(lane, math.nan))
        diverged = [lane for lane, loss in losses.items() if not math.isfinite(loss)]
        if diverged:
            self._complete_runs()
        for lane in diverged:
            self._stack.unlink(self.runs[lane])
            self.runs[lane].diverged_at = self.runs[lane].step
        for run in self.runs:
            run.step += 1

    def _step_lanes(self, live: dict[int, Run], rows: list[np.ndarray]) -> dict[int, float]:
        """Train the live lanes for one step; return their losses by lane."""
        leader = next(iter(live.values()))
        batch, generators = self._make_batch(live, rows)
        shapes = tuple((tuple(part.shape), part.dtype) for part in batch)
        if shapes not in self._gradients:
            self._gradients[shapes] = Gradients(
                leader.parts.model,
                leader.parts.loss,
                dict(self._stack.model.named_parameters()),
                dict(self._stack.model.named_buffers()),
                batch,
            )
        gradients = self._gradients[shapes]
        if gradients.masks:
            for lane, run in live.items():
                if lane in generators:
                    self._generator.set_state(generators[lane])
                else:
                    self._generator.manual_seed(mix_place(run.parts.keys["dropout"], run.step))
                gradients.draw(lane)
        by_parameter, losses = gradients(batch)
        self._stack.update(by_parameter)
        for scheduler in leader.parts.schedulers.values():
            scheduler.step()
        if leader.parts.schedulers:
            self._stack.follow_settings(leader.parts)
        values = losses.tolist()
        return {lane: values[lane] for lane in live}

    def _make_batch(
        self, live: dict[int, Run], rows: list[np.ndarray]
    ) -> tuple[tuple[Tensor, Tensor], dict[int, Tensor]]:
        """Return inputs and labels [W, B, …], and the generator's state by lane if fetching may draw."""
        first = next(iter(live))
        leader = live[first].parts
        lanes = [lane if lane in live else first for lane in range(self.width)]
        if self._data is not None:
            index = torch.from_numpy(np.stack([rows[lane] for lane in lanes]))
            inputs, labels = (_select_rows(tensor, index) for tensor in self._data)
            arrays = as_array(inputs), as_array(labels)
            for lane, run in live.items():
                run.batch_chain = extend_chain(run.batch_chain, (arrays[0][lane], arrays[1][lane]))
            return to_device((inputs, labels), leader.device), {}
        batches, generators = {}, {}
        for lane, run in live.items():
            batches[lane] = run.deliver(rows[lane])
            generators[lane] = self._generator.get_state()
        reason = _check_is_pair(batches[first])
        if reason:
            raise NotBatchable(reason)
        inputs, labels = (torch.stack([batches[lane][part] for lane in lanes]) for part in (0, 1))
        return (inputs, labels), generators


def refusal(parts: Parts) -> str:
    """Return why a recipe cannot have lanes, as far as its parts show without a step; "" if it may."""
    if parts.train_step is not supervised:
        return f"it has a training step of its own{_find_line(parts.train_step)}"
    if parts.order.feedback:
        return f"its order needs the {parts.order.feedback} of each batch"
    if parts.others:
        return f"it carries memory of its own ({join_names(parts.others)})"
    for optimizer in parts.optimizers.values():
        if type(optimizer) not in ELEMENTWISE:
            return f"{type(optimizer).__name__} is not known to update each number by itself"
    groups = [group for optimizer in parts.optimizers.values() for group in optimizer.param_groups]
    updated = {id(p) for group in groups for p in group["params"]}
    if updated - {id(p) for p in parts.model.parameters()}:
        return "its optimizer updates parameters that are not the model's"
    for name, parameter in parts.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in updated:
            return f"no optimizer has {name}, so its gradients accumulate"
    return ""


def _find_line(function: Any) -> str:
    """Return where a function begins, as " (name, file:line)"; "" if it is no function of Python's."""
    code = getattr(inspect.unwrap(getattr(function, "func", function)), "__code__", None)
    if code is None:
        return ""
    return f" ({code.co_name}, {PurePath(code.co_filename).name}:{code.co_firstlineno})"


def _select_rows(examples: Tensor, index: Tensor) -> Tensor:
    """Return examples[index], by `index_select`, which is faster than indexing."""
    return examples.index_select(0, index.view(-1)).view(*index.shape, *examples.shape[1:])


def _check_is_pair(batch: Any) -> str:
    """Return "" for a pair of tensors, else why the batch cannot be batched."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        if all(isinstance(part, Tensor) for part in batch):
            return ""
    return "its batches are not pairs of tensors, inputs and labels"


def _find_common_data(runs: Sequence[Run]) -> tuple[Tensor, Tensor] | None:
    """Return the examples if all runs have the same two tensors and no augmentation; else None."""
    first = runs[0].parts
    if first.augment is not None or not isinstance(first.data, tuple) or _check_is_pair(first.data):
        return None
    if all(same_bits(list(run.parts.data), list(first.data)) for run in runs[1:]):
        return first.data[0], first.data[1]
    return None
