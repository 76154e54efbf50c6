"""The same studies as a careful user of PyTorch writes them: every arm of every seed from step 0.

One process, plain loops, nothing shared between arms but the seed. It knows nothing of bygones; the arms,
the nulls and what is observed are the same, the random draws are its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Built = tuple[nn.Module, torch.optim.Optimizer, Any]  # model, optimizer, schedule or None


@dataclass(frozen=True)
class Problem:
    """What is trained: `build` after `torch.manual_seed`, examples, batch size, what is observed."""

    build: Callable[[], Built]
    inputs: Tensor
    labels: Tensor
    batch_size: int
    probe: Tensor
    fork: int
    horizons: Sequence[int]


class Order:
    """Reshuffled each epoch; from `again_from` on with another draw, or with two windows exchanged."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.per_epoch = len(problem.inputs) // problem.batch_size
        self.problem, self.seed = problem, seed
        self.draw = 0
        self.moved: dict[int, int] = {}
        self.epochs: dict[tuple[int, int], np.ndarray] = {}

    def rows(self, step: int) -> np.ndarray:
        step = self.moved.get(step, step)
        epoch, place = divmod(step, self.per_epoch)
        if (self.draw, epoch) not in self.epochs:
            rng = np.random.default_rng([self.seed, self.draw, epoch])
            self.epochs[self.draw, epoch] = rng.permutation(len(self.problem.inputs))
        size = self.problem.batch_size
        return self.epochs[self.draw, epoch][place * size : (place + 1) * size]


Treatment = Callable[[Problem, nn.Module, torch.optim.Optimizer, Order, np.random.Generator], None]


def nothing(problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any) -> None:
    pass


def sham(problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def scaled_moments(factor: float) -> Treatment:
    def treat(problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any) -> None:
        for held in _arrays(optimizer):
            held.mul_(factor)

    return treat


def kicked_moments(factor: float) -> Treatment:
    """A random direction, as long as what scaling by `factor` takes away."""

    def treat(problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any) -> None:
        for held in _arrays(optimizer):
            _kick(held, float((held * (1 - factor)).norm()), rng)

    return treat


def reset_moments(
    problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any
) -> None:
    optimizer.state.clear()


def reset_batchnorm(
    problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any
) -> None:
    for layer in _norms(model):
        layer.reset_running_stats()


def kicked_batchnorm(
    problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any
) -> None:
    for layer in _norms(model):
        _kick(layer.running_mean, float(layer.running_mean.norm()), rng)
        _kick(layer.running_var, float((layer.running_var - 1).norm()), rng)


def swapped_windows(
    problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any
) -> None:
    first = range(problem.fork, problem.fork + 10)
    order.moved = {step: step + 10 for step in first} | {step + 10: step for step in first}


def shuffled_window(
    problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: np.random.Generator
) -> None:
    window = np.arange(problem.fork, problem.fork + 20)
    order.moved = dict(zip(window.tolist(), rng.permutation(window).tolist(), strict=True))


def redrawn_order(draw: int) -> Treatment:
    def treat(problem: Problem, model: nn.Module, optimizer: Any, order: Order, rng: Any) -> None:
        order.draw = draw

    return treat


ARMS: dict[str, Treatment] = {
    "control": nothing,
    "sham": sham,
    "reset moments": reset_moments,
    "null of reset moments": kicked_moments(0.0),
    "scale moments": scaled_moments(0.5),
    "null of scale moments": kicked_moments(0.5),
    "swap windows": swapped_windows,
    "null of swap windows": shuffled_window,
    "reseed order": redrawn_order(1),
    "null of reseed order": redrawn_order(2),
}
WITH_BATCHNORM = ARMS | {
    "reset batchnorm": reset_batchnorm,
    "null of reset batchnorm": kicked_batchnorm,
}


def measure(problem: Problem, arms: dict[str, Treatment], seeds: Sequence[int]) -> np.ndarray:
    """Probabilities of every seed, arm and horizon: [R, A, H, N, C]."""
    return np.stack(
        [np.stack([_train(problem, treat, seed) for treat in arms.values()]) for seed in seeds]
    )


def _train(problem: Problem, treat: Treatment, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model, optimizer, schedule = problem.build()
    order = Order(problem, seed)
    loss_of = nn.CrossEntropyLoss()
    seen = []
    for step in range(problem.fork + max(problem.horizons) + 1):
        if step == problem.fork:
            treat(problem, model, optimizer, order, np.random.default_rng([seed, 9]))
        if step - problem.fork in problem.horizons:
            seen.append(_observe(model, problem.probe))
        rows = torch.from_numpy(order.rows(step))
        outputs = model(problem.inputs[rows])
        loss = loss_of(outputs.flatten(0, -2), problem.labels[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if not torch.isfinite(loss):
            raise RuntimeError("diverged")
    return np.stack(seen)


def _observe(model: nn.Module, probe: Tensor) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        p = torch.softmax(model(probe).flatten(0, -2), -1).numpy()
    model.train()
    return p


def _arrays(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [
        v for held in optimizer.state.values() for v in held.values() if v is not None and v.ndim
    ]


def _norms(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def _kick(tensor: Tensor, size: float, rng: np.random.Generator) -> None:
    """Moves a tensor by `size`; one that is nowhere negative stays so."""
    nowhere_negative = bool((tensor >= 0).all())
    direction = torch.from_numpy(rng.standard_normal(tuple(tensor.shape))).to(tensor.dtype)
    tensor.add_(direction, alpha=size / float(direction.norm()))
    if nowhere_negative:
        tensor.abs_()
