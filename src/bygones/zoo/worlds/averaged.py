"""Averages of a first-order autoregression, AR(1): the variance of weight averaging in closed form.

SGD on a quadratic loss, one example x_t ~ (0, s²) a step, independent of the past:

    w_t = a·w_{t-1} + (1 - a)·x_t          a = 1 - lr·c      c: curvature
    e_t = d·e_{t-1} + (1 - d)·w_t          an EMA of the weights, decay d
    u_t = (w_t + … + w_{t-W+1}) / W        SWA over a window of W steps

In the stationary state Cov(w_t, w_{t-k}) = a^k·V with V = s²·(1 - a)/(1 + a), and hence

    Var(e)/V    = (1 - d)/(1 + d)·(1 + a·d)/(1 - a·d)
    Var(u)/V    = [1 + 2·sum_{k<W} (1 - k/W)·a^k] / W
    E(e - w)²/V = Var(e)/V + 1 - 2·(1 - d)/(1 - a·d)

The first: e_t = (1 - d)·sum_i d^i·w_{t-i}, so Var(e)/V = (1 - d)²·sum_{i,j} d^{i+j}·a^|i-j|, and the double
sum is (1 + a·d)/((1 - d²)(1 - a·d)). Cov(e, w)/V = (1 - d)·sum_i (d·a)^i gives the last. As lr -> 0,
the gap of average and last iterate vanishes: relative to V as 2·lr·c·d²/(1 - d²), and V as lr itself.
Polyak & Juditsky 1992 (doi:10.1137/0330046); Izmailov et al. 2018 (arXiv:1803.05407).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones.training.orders import WithReplacement
from bygones.training.recipe import Parts

NUM_CHAINS = 1024
_NUM_EXAMPLES = 512


class Chains(nn.Module):
    """Independent one-dimensional chains w, float64 [NUM_CHAINS]; its output is w, a row for each input."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(NUM_CHAINS, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.w.expand(len(inputs), NUM_CHAINS)


def recipe(seed: int, lr: float = 0.2, curvature: float = 1.0, decay: float = 0.9) -> Parts:
    """Build the run: chains that start at 0, plain SGD, one example a step, and an EMA that begins at once.

    `lr`: learning rate. `curvature`: c. `decay`: d of the EMA. The examples are the same for all seeds; a
    seed draws which one comes at each step.
    """
    model = Chains()
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        data=(torch.from_numpy(draw_examples()),),
        order=WithReplacement(num_examples=_NUM_EXAMPLES, batch_size=1),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)),
        train_step=_descend(curvature),
        probe_set=(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)),
    )


def _descend(curvature: float):
    """Build the training step: one example, the gradient of c/2·|w - x|², one update, one average."""

    def step(parts: Parts, batch: tuple[Tensor]) -> Tensor:
        (examples,) = batch
        loss = 0.5 * curvature * (parts.model(examples) - examples).square().sum()
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        assert parts.averages is not None
        parts.averages.update_parameters(parts.model)
        return loss

    return step


def draw_examples() -> np.ndarray:
    """Draw the examples: independent normals, float64 [examples, NUM_CHAINS], mean 0 and variance 1."""
    drawn = np.random.default_rng(11).standard_normal((_NUM_EXAMPLES, NUM_CHAINS))
    return (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)


def variance(a: float) -> float:
    """Return V, the stationary variance of the last iterate: (1 - a)/(1 + a), for examples of variance 1."""
    return (1 - a) / (1 + a)


def ema_ratio(a: float, decay: float) -> float:
    """Return Var(EMA)/V.

    >>> ema_ratio(0.8, 0.0)   # no averaging
    1.0
    >>> round(ema_ratio(0.8, 0.9), 6)
    0.323308
    """
    return (1 - decay) / (1 + decay) * (1 + a * decay) / (1 - a * decay)


def window_ratio(a: float, length: int) -> float:
    """Return Var(average of the last `length` iterates)/V.

    >>> window_ratio(0.5, 1), window_ratio(0.5, 2), round(window_ratio(0.0, 4), 3)
    (1.0, 0.75, 0.25)
    """
    lags = np.arange(1, length)
    return float((1 + 2 * ((1 - lags / length) * a**lags).sum()) / length)


def gap_ratio(a: float, decay: float) -> float:
    """Return E(EMA - last iterate)²/V.

    >>> gap_ratio(0.8, 0.0)
    0.0
    """
    return ema_ratio(a, decay) + 1 - 2 * (1 - decay) / (1 - a * decay)
