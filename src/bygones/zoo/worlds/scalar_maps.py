"""Maps of one number, as a training step of its own: chaos and signs with exact answers.

    logistic    w ← 4·w·(1 − w)                 chaotic: Lyapunov exponent ln 2
    sign        w ← w − lr·sign(w − 1)          a sign optimizer on |w − 1|, which starts at the minimum

Logistic: with w = sin²(θ) the map is θ ← 2θ, and log|4 − 8w_t| has mean ln 2 over the invariant density
(Ulam & von Neumann 1947). Sign: the control stays at 1, where the sign is 0. A start of 1 + α, 0 < |α| < lr,
alternates with 1 + α − lr·sign(α), so that after an odd number of steps the response to α is lr − |α| in
size, nearly the same for all small doses: its amplitude exponent tends to 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from bygones.training.orders import Sequential
from bygones.training.recipe import Parts


class Number(nn.Module):
    """One number w, float64 [1]; its output is x·w."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.w


def recipe(seed: int, kind: Literal["logistic", "sign"] = "logistic", lr: float = 0.1) -> Parts:
    """Build the run. `kind`: which map. `lr`: step of the sign map. A seed draws the logistic map's start."""
    start = float(torch.sin(0.5 * torch.pi * torch.rand(1, dtype=torch.float64)) ** 2)
    model = Number(start if kind == "logistic" else 1.0)

    def step(parts: Parts, batch: tuple[Tensor]) -> Tensor:
        with torch.no_grad():
            w = model.w
            w.copy_(4.0 * w * (1.0 - w) if kind == "logistic" else w - lr * torch.sign(w - 1.0))
            return w.sum()

    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        data=(torch.zeros(1, 1, dtype=torch.float64),),
        order=Sequential(1, 1),
        train_step=step,
        probe_set=(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1)),
    )


def growth(start: float, steps: int) -> float:
    """Return the mean of log|4 − 8w_t| on an orbit of the logistic map: its finite-time exponent.

    >>> bool(abs(growth(0.3, 100_000) - np.log(2)) < 0.01)
    True
    """
    w, total = start, 0.0
    for _ in range(steps):
        total += float(np.log(abs(4.0 - 8.0 * w)))
        w = 4.0 * w * (1.0 - w)
    return total / steps


def sign_response(dose: float, lr: float = 0.1) -> float:
    """Return the size of the response of the sign map to a dose below lr, after an odd number of steps.

    >>> round(sign_response(0.01), 12)
    0.09
    """
    return lr - abs(dose)
