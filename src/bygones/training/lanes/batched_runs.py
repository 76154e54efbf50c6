"""Several runs as the lanes of one step: the step machine of `Run`, for all of them at once.

for step in range(start, stop):
    -- boundary --  where something acts or looks, each run is its lane: treated and observed as ever
    batches = one of each lane's own data, in its own order, with its own draws
    losses, gradients = all lanes at once;  one update of all lanes
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import as_array, same_bits
from bygones.core.hash_chain import extend_chain
from bygones.core.keyed_rng import mix
from bygones.training.devices import to_device
from bygones.training.generators import device_generator, preserve_global_generators
from bygones.training.lanes.gradients import Gradients
from bygones.training.lanes.stack import ELEMENTWISE, NotBatchable, Stack
from bygones.training.recipe import Parts, supervised
from bygones.training.run import Donor, Run
from bygones.training.treatment import Treatment


class BatchedRuns:
    """Runs of one recipe that take their steps together, `width` lanes wide.

    Lanes that no run uses compute along and are thrown away: what a run's lane comes to must not depend on
    how many neighbours it has. A run that diverges leaves its lane and goes on by itself, training no more.

    >>> from bygones.zoo.regimes import digits
    >>> lanes = BatchedRuns([Run(digits.recipe, seed) for seed in range(3)], width=8)
    >>> lanes.advance(2)
    >>> [run.step for run in lanes.runs]
    [2, 2, 2]
    """

    def __init__(self, runs: Sequence[Run], width: int) -> None:
        why_not = refusal(runs[0].parts)
        if why_not:
            raise NotBatchable(why_not)
        self.runs = list(runs)
        self.width = width
        self._stack = Stack(runs[0].parts, width)
        self._gradients: dict[Any, Gradients] = {}  # by the shapes of a batch
        self._data = _common_data(runs)
        self._generator = device_generator(runs[0].parts.device)  # that masks are drawn from
        for run in runs:
            for optimizer in run.parts.optimizers.values():
                # The stack's optimizer steps in its place, and torch's schedulers would warn of that.
                optimizer._opt_called = True  # type: ignore[attr-defined]

    def advance(
        self,
        until: int,
        treatments: Sequence[Treatment] = (),
        *,
        donors: Sequence[Donor] | None = None,
        at_boundary: Callable[[Run], None] | None = None,
        observe_at: Collection[int] = (),
    ) -> None:
        """As `Run.advance`, for all lanes; `at_boundary` is called at the steps in `observe_at` alone."""
        with preserve_global_generators():
            self._stack.gather(self._live())
            while (step := self.runs[0].step) < until:
                acts = any(_acts(treatment, step) for treatment in treatments)
                if acts or step in observe_at:
                    self._settle()
                    for lane, run in enumerate(self.runs):
                        run.intervene(treatments, donors[lane] if donors else None)
                        if at_boundary is not None and step in observe_at:
                            at_boundary(run)
                    if acts:
                        self._stack.gather(self._live())
                self._train_one_step()
            self._settle()

    def _live(self) -> dict[int, Run]:
        return {lane: run for lane, run in enumerate(self.runs) if run.diverged_at is None}

    def _settle(self) -> None:
        """Makes every run whole: the stack's shared values, and the leader's schedule, are its own too."""
        live = self._live()
        self._stack.scatter(live)
        if live and self.runs[0].parts.schedulers:
            leader, *others = live.values()
            schedule = leader.sources["scheduler"].capture()
            for run in others:
                run.sources["scheduler"].restore(schedule)

    def _train_one_step(self) -> None:
        live = self._live()
        rows = [run.parts.cursor.next() for run in self.runs]
        losses = self._step_of(live, rows) if live else {}
        for lane, run in enumerate(self.runs):
            run.losses.append(losses.get(lane, math.nan))
        lost = [lane for lane, loss in losses.items() if not math.isfinite(loss)]
        if lost:
            self._settle()
        for lane in lost:
            self._stack.unlink(self.runs[lane])
            self.runs[lane].diverged_at = self.runs[lane].step
        for run in self.runs:
            run.step += 1

    def _step_of(self, live: dict[int, Run], rows: list[np.ndarray]) -> dict[int, float]:
        """One step of the lanes that live; their losses."""
        leader = next(iter(live.values()))
        batch, drawn = self._batch(live, rows)
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
                if lane in drawn:
                    self._generator.set_state(drawn[lane])
                else:
                    self._generator.manual_seed(mix(run.parts.keys["dropout"], run.step))
                gradients.draw(lane)
        directions, losses = gradients(batch)
        self._stack.update(directions)
        for scheduler in leader.parts.schedulers.values():
            scheduler.step()
        if leader.parts.schedulers:
            self._stack.follow_settings(leader.parts)
        values = losses.tolist()
        return {lane: values[lane] for lane in live}

    def _batch(
        self, live: dict[int, Run], rows: list[np.ndarray]
    ) -> tuple[tuple[Tensor, Tensor], dict[int, Tensor]]:
        """Inputs and labels of all lanes, [W, B, …]; and torch's generator after it, if it may have moved."""
        first = next(iter(live))
        leader = live[first].parts
        lanes = [lane if lane in live else first for lane in range(self.width)]
        if self._data is not None:
            index = torch.from_numpy(np.stack([rows[lane] for lane in lanes]))
            inputs, labels = (_rows(tensor, index) for tensor in self._data)
            shown = as_array(inputs), as_array(labels)
            for lane, run in live.items():
                run.batch_chain = extend_chain(run.batch_chain, (shown[0][lane], shown[1][lane]))
            return to_device((inputs, labels), leader.device), {}
        batches, drawn = {}, {}
        for lane, run in live.items():
            batches[lane] = run.deliver(rows[lane])
            drawn[lane] = self._generator.get_state()
        wrong = _not_a_pair(batches[first])
        if wrong:
            raise NotBatchable(wrong)
        inputs, labels = (torch.stack([batches[lane][part] for lane in lanes]) for part in (0, 1))
        return (inputs, labels), drawn


def refusal(parts: Parts) -> str:
    """Why runs of this recipe cannot be lanes, as far as can be seen without a step; empty if they may."""
    if parts.train_step is not supervised:
        return "its training step is its own"
    if parts.others:
        return f"it carries memory of its own ({', '.join(parts.others)})"
    for optimizer in parts.optimizers.values():
        if type(optimizer) not in ELEMENTWISE:
            return f"{type(optimizer).__name__} is not known to update each number by itself"
    groups = [group for optimizer in parts.optimizers.values() for group in optimizer.param_groups]
    updated = {id(p) for group in groups for p in group["params"]}
    if updated - {id(p) for p in parts.model.parameters()}:
        return "its optimizer updates parameters that are not the model's"
    for name, parameter in parts.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in updated:
            return f"no optimizer has {name}, so its gradients pile up"
    return ""


def _rows(examples: Tensor, index: Tensor) -> Tensor:
    """examples[index], by the faster of torch's two ways."""
    return examples.index_select(0, index.view(-1)).view(*index.shape, *examples.shape[1:])


def _not_a_pair(batch: Any) -> str:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        if all(isinstance(part, Tensor) for part in batch):
            return ""
    return "its batches are not pairs of tensors, inputs and labels"


def _common_data(runs: Sequence[Run]) -> tuple[Tensor, Tensor] | None:
    """The examples, if every run has the same two tensors of them and nothing is drawn on the way."""
    first = runs[0].parts
    if first.augment is not None or not isinstance(first.data, tuple) or _not_a_pair(first.data):
        return None
    if all(same_bits(list(run.parts.data), list(first.data)) for run in runs[1:]):
        return first.data[0], first.data[1]
    return None


def _acts(treatment: Treatment, step: int) -> bool:
    """Whether a treatment rewrites something at this boundary, or puts it back."""
    ends = step == treatment.window.stop and treatment.intervention.restores_at_end
    return step in treatment.window or ends
