"""Heavy-ball momentum on a quadratic loss: a linear system, so every effect has a closed form.

    loss(w; batch) = 1/2 · sum_j c_j (w_j - mean_batch(x)_j)²      c: curvature, x: examples
    b <- mu·b + g,   w <- w - lr·b

Two runs with the same batches differ by (dw, db), which evolves without noise:

    db <- mu·db + c·dw,   dw <- dw - lr·db

so the effect of a treatment of the momentum buffer (or of the weights) is known exactly, for each seed
and in expectation over seeds. With c = 0 the loss is flat, and a kick q of the buffer moves the weights by
-lr·mu(1-mu^H)/(1-mu)·q in H steps. Polyak 1964 (doi:10.1016/0041-5553(64)90137-5).

With torch's `nesterov=True` a step is w <- w - lr·(g + mu·b), so on a flat loss each step moves the weights
mu times as far. The other closed forms here are those of heavy ball.
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
    """A point w, float64 [DIMENSIONS], as a linear model: x [N, DIMENSIONS] -> x @ w [N]."""

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
    nesterov: bool = False,
) -> Parts:
    """Build the run. A seed draws the initial point and the batches; the examples are the same for all.

    `lr`: learning rate. `momentum`: mu. `curvature`: a factor on c. `ema_decay`: decay of an EMA of the
    weights; 0 for none. `nesterov`: torch's form of Nesterov momentum.
    """
    model = Point()
    examples = torch.from_numpy(draw_examples())
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
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, nesterov=nesterov),
        data=(examples,),
        order=WithReplacement(_NUM_EXAMPLES, _BATCH_SIZE),
        averages=averages,
        train_step=step,
        probe_set=(torch.eye(DIMENSIONS, dtype=torch.float64), torch.zeros(DIMENSIONS)),
    )


def transition(lr: float, momentum: float, curvature: float = 1.0) -> np.ndarray:
    """Return the transition matrix of (w, b) for each coordinate: float64 [DIMENSIONS, 2, 2].

        b' = mu·b + c·w,  w' = w - lr·b'

    >>> transition(lr=0.1, momentum=0.5)[0].round(2).tolist()
    [[0.9, -0.05], [1.0, 0.5]]
    """
    c = np.asarray(CURVATURE) * curvature
    ones = np.ones_like(c)
    rows = [[ones - lr * c, -lr * momentum * ones], [c, momentum * ones]]
    return np.moveaxis(np.asarray(rows), -1, 0)


def displacement(
    dw: np.ndarray, db: np.ndarray, steps: int, lr: float, momentum: float, curvature: float = 1.0
) -> np.ndarray:
    """Return the difference of w after `steps`, from initial differences dw and db: all [DIMENSIONS].

    >>> one = np.ones(DIMENSIONS)
    >>> displacement(0 * one, one, steps=1, lr=0.1, momentum=0.5).round(6).tolist()
    [-0.05, -0.05, -0.05]
    """
    powers = np.stack(
        [np.linalg.matrix_power(m, steps) for m in transition(lr, momentum, curvature)]
    )
    return np.einsum("dij,dj->di", powers, np.stack([dw, db], axis=-1))[:, 0]


def expected_buffer(step: int, lr: float, momentum: float, curvature: float = 1.0) -> np.ndarray:
    """Return the expectation over seeds of the momentum buffer at a boundary: [DIMENSIONS].

    The initial point has mean 0 and each batch has the mean of the examples in expectation, so the
    expected run is the run without noise from 0.
    """
    c = np.asarray(CURVATURE) * curvature
    target = draw_examples().mean(0)
    w, b = np.zeros(DIMENSIONS), np.zeros(DIMENSIONS)
    for _ in range(step):
        b = momentum * b + c * (w - target)
        w = w - lr * b
    return b


def flat_kick(
    q: np.ndarray, steps: int, lr: float, momentum: float, nesterov: bool = False
) -> np.ndarray:
    """Return the displacement of w by a kick q of the buffer on a flat loss, H `steps` later.

        dw(H) = -lr·mu(1-mu^H)/(1-mu)·q        heavy ball
        dw(H) = -lr·mu²(1-mu^H)/(1-mu)·q       torch's `nesterov=True`: g + mu·b is applied, not b

    >>> flat_kick(np.ones(1), steps=2, lr=0.1, momentum=0.5).round(6).tolist()
    [-0.075]
    """
    applied = momentum if nesterov else 1.0
    return -lr * applied * momentum * (1.0 - momentum**steps) / (1.0 - momentum) * q


def draw_examples() -> np.ndarray:
    return np.random.default_rng(20260121).standard_normal((_NUM_EXAMPLES, DIMENSIONS)) + 1.0
