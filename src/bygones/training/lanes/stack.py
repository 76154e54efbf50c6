"""The tensors of several runs laid on top of each other, so that one operation serves them all.

    stack[name]: [width W, *shape]          lane i of it is the tensor of run i, in place

A run whose tensors are views into the stack is *linked*: what its sources capture and restore is its lane.
What has no lane is *shared*: step counts, learning rates, schedules. Lanes are always at the same step
under the same treatments, so these agree; where they do not, `NotBatchable` says so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from bygones.core.digest import same_bits
from bygones.core.errors import RecipeError
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.run import Run

# Their update of an entry looks at that entry alone, so a stack of tensors is updated like each of them.
ELEMENTWISE: tuple[type[Optimizer], ...] = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
_FUSED_ON_GPU = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_FUSED = (*_FUSED_ON_GPU, torch.optim.Adagrad)
_COUNTERS = ("step", "mu_product")  # numbers that every parameter has of its own, all alike
_COUNT = "n_averaged"  # of an AveragedModel: it decides between two formulas, so it is shared


class NotBatchable(RecipeError):
    """Runs that cannot be lanes of one step; the reason is half a sentence."""


class Stack:
    """Model, optimizers and averages of `width` lanes, made like those of one run."""

    def __init__(self, like: Parts, width: int) -> None:
        self.width = width
        self.model = _stacked(like.model, width)
        self.averages = None if like.averages is None else _stacked(like.averages, width)
        self._names = {id(p): name for name, p in like.model.named_parameters()}
        self._parameters = dict(self.model.named_parameters())
        self.optimizers = {
            label: self._stacked_optimizer(optimizer)
            for label, optimizer in like.optimizers.items()
        }

    def _stacked_optimizer(self, like: Optimizer) -> Optimizer:
        groups = []
        for group in like.param_groups:
            mine = [self._parameters[self._names[id(p)]] for p in group["params"]]
            groups.append({**group, "params": mine})
        made: Any = type(like)(groups)  # type: ignore[call-arg]
        for group in made.param_groups:
            group.update(_settings_for(made))
        return made

    # ------------------------------------------------------------------ into the stack

    def gather(self, lanes: Mapping[int, Run]) -> None:
        """Makes each run's tensors its lane; those that lie elsewhere are copied in. The rest must agree."""
        if not lanes:
            return
        for lane, run in lanes.items():
            for mine, whole in self._tensors(run.parts):
                _link(mine, whole.detach()[lane])
        first, *others = lanes.values()
        schedule = first.sources["scheduler"].capture()
        for run in others:
            if not same_bits(run.sources["scheduler"].capture(), schedule):
                raise NotBatchable(
                    f"seeds {first.seed} and {run.seed} differ in schedule or in an optimizer's settings"
                )
        self.follow_settings(first.parts)
        for label, optimizer in self.optimizers.items():
            theirs = {lane: run.parts.optimizers[label] for lane, run in lanes.items()}
            for whole, states in _states(optimizer, theirs):
                self._gather_state(optimizer, whole, states)
        if self.averages is not None:
            counts = [_count(run.parts.averages) for run in lanes.values()]
            if any(not torch.equal(count, counts[0]) for count in counts):
                raise NotBatchable("their averages have seen different numbers of models")
            _count(self.averages).copy_(counts[0])

    def _gather_state(
        self, optimizer: Optimizer, whole: Tensor, states: Mapping[int, dict[str, Any]]
    ) -> None:
        first, *others = states.values()
        if any(state.keys() != first.keys() for state in others):
            raise NotBatchable("their optimizers hold different things")
        before = optimizer.state.pop(whole, {})
        for key, value in first.items():
            held = optimizer.state[whole]
            if not _has_lanes(key, value, whole):
                if not all(same_bits(state[key], value) for state in others):
                    raise NotBatchable(f"their optimizers differ in '{key}'")
                # Fused updates count on the device, others on the CPU.
                fused = isinstance(value, Tensor) and "fused" in _settings_for(optimizer)
                held[key] = clone_leaf(value.to(whole.device) if fused else value)
                continue
            held[key] = before[key] if key in before else torch.stack([value] * self.width)
            for lane, state in states.items():
                state[key] = _linked(state[key], held[key][lane])

    # ------------------------------------------------------------------ out of the stack

    def scatter(self, lanes: Mapping[int, Run]) -> None:
        """Gives each run what is shared, and its lane of whatever an optimizer has created since."""
        for label, optimizer in self.optimizers.items():
            theirs = {lane: run.parts.optimizers[label] for lane, run in lanes.items()}
            for whole, states in _states(optimizer, theirs):
                for key, value in optimizer.state.get(whole, {}).items():
                    with_lanes = _has_lanes(key, value, whole)
                    for lane, state in states.items():
                        state[key] = value[lane] if with_lanes else clone_leaf(value)
        if self.averages is not None:
            for run in lanes.values():
                _count(run.parts.averages).copy_(_count(self.averages))

    def unlink(self, run: Run) -> None:
        """Gives a run tensors of its own again, with the values of its lane."""
        for mine, _ in self._tensors(run.parts):
            mine.data = mine.data.clone()
        for optimizer in run.parts.optimizers.values():
            for state in optimizer.state.values():
                state.update({key: clone_leaf(value) for key, value in state.items()})

    # ------------------------------------------------------------------ one step

    def follow_settings(self, parts: Parts) -> None:
        """Takes over the settings (learning rates, …) that a run's optimizers have now."""
        for label, optimizer in self.optimizers.items():
            theirs = parts.optimizers[label].param_groups
            for group, their in zip(optimizer.param_groups, theirs, strict=True):
                kept = _settings_for(optimizer)
                group.update({k: v for k, v in their.items() if k != "params" and k not in kept})

    def update(self, gradients: dict[str, Tensor]) -> None:
        """One step of every optimizer and of the averages, as `supervised` takes it."""
        for name, gradient in gradients.items():
            self._parameters[name].grad = gradient
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if self.averages is not None:
            self.averages.update_parameters(self.model)

    def _tensors(self, parts: Parts) -> Iterator[tuple[Tensor, Tensor]]:
        """Each tensor of a run that has a lane, with the stack that the lane is of."""
        yield from _pairs(parts.model, self.model)
        if parts.averages is not None and self.averages is not None:
            yield from _pairs(parts.averages, self.averages)


def _stacked(module: nn.Module, width: int) -> Any:
    """A copy of a module in which every parameter and buffer has its lanes."""
    twin = copy.deepcopy(module)
    made: dict[int, Any] = {}
    for part in twin.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is None or (name == _COUNT and isinstance(part, AveragedModel)):
                continue
            if id(value) not in made:
                whole = value.detach().expand(width, *value.shape).clone()
                made[id(value)] = (
                    nn.Parameter(whole, value.requires_grad)
                    if isinstance(value, nn.Parameter)
                    else whole
                )
            target = part._parameters if name in part._parameters else part._buffers
            target[name] = made[id(value)]
    return twin


def _pairs(one: nn.Module, stacked: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    mine = [*one.named_parameters(), *one.named_buffers()]
    whole = [*stacked.named_parameters(), *stacked.named_buffers()]
    for (name, tensor), (_, stack) in zip(mine, whole, strict=True):
        if not (name == _COUNT and isinstance(one, AveragedModel)):
            yield tensor, stack


def _states(
    optimizer: Optimizer, theirs: Mapping[int, Optimizer]
) -> Iterator[tuple[Tensor, dict[int, dict[str, Any]]]]:
    """Each stacked parameter of an optimizer, with what the lanes' own optimizers hold of theirs."""
    for index, group in enumerate(optimizer.param_groups):
        for place, whole in enumerate(group["params"]):
            yield (
                whole,
                {
                    lane: o.state[o.param_groups[index]["params"][place]]
                    for lane, o in theirs.items()
                },
            )


def _has_lanes(key: str, value: Any, whole: Tensor) -> bool:
    """Whether something that an optimizer holds is an array like the parameter, of one lane or of all."""
    return (
        isinstance(value, Tensor)
        and key not in _COUNTERS
        and value.shape in (whole.shape, whole.shape[1:])
    )


def _link(tensor: Tensor, lane: Tensor) -> None:
    if tensor.data_ptr() != lane.data_ptr():
        lane.copy_(tensor.detach())
        tensor.data = lane


def _linked(tensor: Tensor, lane: Tensor) -> Tensor:
    if tensor.data_ptr() != lane.data_ptr():
        lane.copy_(tensor)
    return lane


def _settings_for(optimizer: Optimizer) -> dict[str, Any]:
    """One pass over memory for an update, where torch has it."""
    on_gpu = optimizer.param_groups[0]["params"][0].is_cuda  # as all of them are
    fused = _FUSED_ON_GPU if on_gpu else _FUSED
    return {"fused": True, "foreach": False} if type(optimizer) in fused else {}


def _count(averages: AveragedModel | None) -> Tensor:
    assert averages is not None
    return averages.get_buffer(_COUNT)
