"""Stacked tensors: the models, optimizers and averages of several runs with a leading lane dimension.

    stack[name]: [width W, *shape]          lane i is the tensor of run i, in place

A run is *linked* if its tensors are views into the stack, so that its sources capture and restore its
lane. State without a lane is *shared*: step counts, learning rates, schedules. Lanes are always at the
same step under the same treatments, so shared state agrees; if it does not, `NotBatchable` is raised.
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

# These optimizers update each number by itself, so updating a stack equals updating each of its tensors.
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
_COUNTERS = ("step", "mu_product")  # scalars per parameter, equal in all lanes
_COUNT = "n_averaged"  # of an AveragedModel: it selects the update formula, so it is shared


class NotBatchable(RecipeError):
    """Runs cannot be lanes of one step; the message is the reason, a clause without a full stop."""


class Stack:
    """Model, optimizers and averages with `width` lanes, built like the parts of one run (`like`)."""

    def __init__(self, like: Parts, width: int) -> None:
        self.width = width
        self.model = _stack_module(like.model, width)
        self.averages = None if like.averages is None else _stack_module(like.averages, width)
        self._names = {id(p): name for name, p in like.model.named_parameters()}
        self._parameters = dict(self.model.named_parameters())
        self.optimizers = {
            label: self._stack_optimizer(optimizer) for label, optimizer in like.optimizers.items()
        }

    def _stack_optimizer(self, like: Optimizer) -> Optimizer:
        """Build the optimizer of the stacked parameters, with the same groups and settings."""
        groups = []
        for group in like.param_groups:
            stacked = [self._parameters[self._names[id(p)]] for p in group["params"]]
            groups.append({**group, "params": stacked})
        optimizer: Any = type(like)(groups)  # type: ignore[call-arg]
        for group in optimizer.param_groups:
            group.update(_fused_settings(optimizer))
        return optimizer

    # ------------------------------------------------------------------ into the stack

    def gather(self, lanes: Mapping[int, Run]) -> None:
        """Link each run to its lane: copy its tensors into the stack, and make them views of it.

        Raises `NotBatchable` if shared state differs between the runs.
        """
        if not lanes:
            return
        for lane, run in lanes.items():
            for tensor, stacked in self._tensors(run.parts):
                _link(tensor, stacked.detach()[lane])
        first, *others = lanes.values()
        schedule = first.sources["scheduler"].capture()
        for run in others:
            if not same_bits(run.sources["scheduler"].capture(), schedule):
                raise NotBatchable(
                    f"seeds {first.seed} and {run.seed} differ in schedule or in an optimizer's settings"
                )
        self.follow_settings(first.parts)
        for label, optimizer in self.optimizers.items():
            by_lane = {lane: run.parts.optimizers[label] for lane, run in lanes.items()}
            for stacked, states in _pair_states(optimizer, by_lane):
                self._gather_state(optimizer, stacked, states)
        if self.averages is not None:
            counts = [_count_of(run.parts.averages) for run in lanes.values()]
            if any(not torch.equal(count, counts[0]) for count in counts):
                raise NotBatchable("their averages have different update counts")
            _count_of(self.averages).copy_(counts[0])

    def _gather_state(
        self, optimizer: Optimizer, stacked: Tensor, states: Mapping[int, dict[str, Any]]
    ) -> None:
        """Stack the optimizer's state of one parameter, and make the runs' arrays views of it."""
        first, *others = states.values()
        if any(state.keys() != first.keys() for state in others):
            raise NotBatchable("their optimizers have different state")
        before = optimizer.state.pop(stacked, {})
        for key, value in first.items():
            state_of_stack = optimizer.state[stacked]
            if not _has_lanes(key, value, stacked):
                if not all(same_bits(state[key], value) for state in others):
                    raise NotBatchable(f"their optimizers differ in '{key}'")
                # Fused updates keep the step count on the device, others on the CPU.
                fused = isinstance(value, Tensor) and "fused" in _fused_settings(optimizer)
                state_of_stack[key] = clone_leaf(value.to(stacked.device) if fused else value)
                continue
            whole = before[key] if key in before else torch.stack([value] * self.width)
            state_of_stack[key] = whole
            for lane, state in states.items():
                state[key] = _copy_to_lane(state[key], whole[lane])

    # ------------------------------------------------------------------ out of the stack

    def scatter(self, lanes: Mapping[int, Run]) -> None:
        """Copy shared state to each run, and link each run to optimizer state created since `gather`."""
        for label, optimizer in self.optimizers.items():
            by_lane = {lane: run.parts.optimizers[label] for lane, run in lanes.items()}
            for stacked, states in _pair_states(optimizer, by_lane):
                for key, value in optimizer.state.get(stacked, {}).items():
                    with_lanes = _has_lanes(key, value, stacked)
                    for lane, state in states.items():
                        state[key] = value[lane] if with_lanes else clone_leaf(value)
        if self.averages is not None:
            for run in lanes.values():
                _count_of(run.parts.averages).copy_(_count_of(self.averages))

    def unlink(self, run: Run) -> None:
        """Give a run its own tensors again, with the values of its lane."""
        for tensor, _ in self._tensors(run.parts):
            tensor.data = tensor.data.clone()
        for optimizer in run.parts.optimizers.values():
            for state in optimizer.state.values():
                state.update({key: clone_leaf(value) for key, value in state.items()})

    # ------------------------------------------------------------------ one step

    def follow_settings(self, parts: Parts) -> None:
        """Copy the settings (learning rates, …) of a run's optimizers."""
        for label, optimizer in self.optimizers.items():
            sources = parts.optimizers[label].param_groups
            own = {"params", *_fused_settings(optimizer)}
            for group, source in zip(optimizer.param_groups, sources, strict=True):
                group.update({key: value for key, value in source.items() if key not in own})

    def update(self, gradients: dict[str, Tensor]) -> None:
        """Step every optimizer and update the averages, as `supervised` does."""
        for name, gradient in gradients.items():
            self._parameters[name].grad = gradient
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if self.averages is not None:
            self.averages.update_parameters(self.model)

    def _tensors(self, parts: Parts) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each tensor of a run that has a lane, with the stacked tensor."""
        yield from _pair_tensors(parts.model, self.model)
        if parts.averages is not None and self.averages is not None:
            yield from _pair_tensors(parts.averages, self.averages)


def _stack_module(module: nn.Module, width: int) -> Any:
    """Copy a module, with a leading lane dimension on every parameter and buffer."""
    stacked = copy.deepcopy(module)
    done: dict[int, Any] = {}  # by identity, since modules may share tensors
    for part in stacked.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is None or (name == _COUNT and isinstance(part, AveragedModel)):
                continue
            if id(value) not in done:
                lanes = value.detach().expand(width, *value.shape).clone()
                done[id(value)] = (
                    nn.Parameter(lanes, value.requires_grad)
                    if isinstance(value, nn.Parameter)
                    else lanes
                )
            target = part._parameters if name in part._parameters else part._buffers
            target[name] = done[id(value)]
    return stacked


def _pair_tensors(module: nn.Module, stacked: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the parameters and buffers of a module with those of its stacked copy."""
    singles = [*module.named_parameters(), *module.named_buffers()]
    stacks = [*stacked.named_parameters(), *stacked.named_buffers()]
    for (name, tensor), (_, stack) in zip(singles, stacks, strict=True):
        if not (name == _COUNT and isinstance(module, AveragedModel)):
            yield tensor, stack


def _pair_states(
    optimizer: Optimizer, by_lane: Mapping[int, Optimizer]
) -> Iterator[tuple[Tensor, dict[int, dict[str, Any]]]]:
    """Yield each stacked parameter with the states, by lane, of that parameter in the runs' optimizers."""
    for index, group in enumerate(optimizer.param_groups):
        for place, stacked in enumerate(group["params"]):
            states = {
                lane: o.state[o.param_groups[index]["params"][place]] for lane, o in by_lane.items()
            }
            yield stacked, states


def _has_lanes(key: str, value: Any, stacked: Tensor) -> bool:
    """Return True if optimizer state has the shape of its parameter, of one lane or stacked."""
    return (
        isinstance(value, Tensor)
        and key not in _COUNTERS
        and value.shape in (stacked.shape, stacked.shape[1:])
    )


def _link(tensor: Tensor, lane: Tensor) -> None:
    """Copy a tensor to its lane and make it a view of the lane, unless it is one already."""
    if tensor.data_ptr() != lane.data_ptr():
        lane.copy_(tensor.detach())
        tensor.data = lane


def _copy_to_lane(tensor: Tensor, lane: Tensor) -> Tensor:
    """Copy a tensor to its lane, unless it is a view of it, and return the lane."""
    if tensor.data_ptr() != lane.data_ptr():
        lane.copy_(tensor)
    return lane


def _fused_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings of a fused update (one pass over memory), if torch has one for this class."""
    on_gpu = optimizer.param_groups[0]["params"][0].is_cuda  # the same for all parameters
    fused = _FUSED_ON_GPU if on_gpu else _FUSED
    return {"fused": True, "foreach": False} if type(optimizer) in fused else {}


def _count_of(averages: AveragedModel | None) -> Tensor:
    """Return the buffer with the update count of an average."""
    assert averages is not None
    return averages.get_buffer(_COUNT)
