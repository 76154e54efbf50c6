"""Heavy ball on a quadratic: a linear run, so every effect has a closed form.

    loss(w; batch) = 1/2 · sum_j c_j (w_j - mean_batch(x)_j)²      c: curvature, x: examples
    b <- mu·b + g,   w <- w - lr·b

Two runs that share their batches differ by (dw, db), which moves without noise:

    db <- mu·db + c·dw,   dw <- dw - lr·db

so what a treatment of the momentum buffer (or of the weights) does is known exactly, for each seed
and in expectation over seeds. With c = 0 the loss is flat, and a kick q of the buffer moves the weights by
lr·mu(1-mu^H)/(1-mu)·q in H steps. Polyak 1964 (doi:10.1016/0041-5553(64)90137-5).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones.training.orders import WithReplacement
from bygones.training.recipe import Parts

DIMENSIONS = 3
CURVATURE = (1.0, 0.3, 0.1)
_NUM_EXAMPLES = 64
_BATCH_SIZE = 8


class Point(nn.Module):
    """A point w: float64 [DIMENSIONS]; as a function, x -> x @ w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(DIMENSIONS, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.w


def recipe(
    seed: int,
    lr: float = 0.1,
    momentum: float = 0.9,
    curvature: float = 1.0,
    ema_decay: float = 0.0,
) -> Parts:
    """A seed draws the starting point and the batches; the examples are the same for all seeds."""
    model = Point()
    examples = torch.from_numpy(_examples())
    scale = torch.tensor(CURVATURE, dtype=torch.float64) * curvature
    averages = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)) if ema_decay else None
    )

    def step(parts: Parts, batch: tuple[Tensor]) -> Tensor:
        loss = 0.5 * (scale * (model.w - batch[0].mean(0)) ** 2).sum()
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if averages is not None:
            averages.update_parameters(model)
        return loss

    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum),
        data=(examples,),
        order=WithReplacement(_NUM_EXAMPLES, _BATCH_SIZE),
        averages=averages,
        train_step=step,
        probe_set=(torch.eye(DIMENSIONS, dtype=torch.float64), torch.zeros(DIMENSIONS)),
    )


def transition(lr: float, momentum: float, curvature: float = 1.0) -> np.ndarray:
    """The matrix that moves (w, b) of each coordinate one step: float64 [DIMENSIONS, 2, 2].

    b' = mu·b + c·w,  w' = w - lr·b'
    """
    c = np.asarray(CURVATURE) * curvature
    ones = np.ones_like(c)
    rows = [[ones - lr * c, -lr * momentum * ones], [c, momentum * ones]]
    return np.moveaxis(np.asarray(rows), -1, 0)


def displacement(
    dw: np.ndarray, db: np.ndarray, steps: int, lr: float, momentum: float, curvature: float = 1.0
) -> np.ndarray:
    """By how much w differs `steps` after it differed by dw and its buffer by db: [DIMENSIONS]."""
    powers = np.stack(
        [np.linalg.matrix_power(m, steps) for m in transition(lr, momentum, curvature)]
    )
    return np.einsum("dij,dj->di", powers, np.stack([dw, db], axis=-1))[:, 0]


def expected_buffer(step: int, lr: float, momentum: float, curvature: float = 1.0) -> np.ndarray:
    """E over seeds of the momentum buffer at a boundary: [DIMENSIONS].

    The starting point has mean 0 and each batch has the mean of the examples, so the expected run is
    the noiseless run from 0.
    """
    c = np.asarray(CURVATURE) * curvature
    target = _examples().mean(0)
    w, b = np.zeros(DIMENSIONS), np.zeros(DIMENSIONS)
    for _ in range(step):
        b = momentum * b + c * (w - target)
        w = w - lr * b
    return b


def flat_kick(q: np.ndarray, steps: int, lr: float, momentum: float) -> np.ndarray:
    """By how much a kick q of the buffer moves w on a flat loss: -lr·mu(1-mu^H)/(1-mu)·q."""
    return -lr * momentum * (1.0 - momentum**steps) / (1.0 - momentum) * q


def _examples() -> np.ndarray:
    return np.random.default_rng(20260121).standard_normal((_NUM_EXAMPLES, DIMENSIONS)) + 1.0
