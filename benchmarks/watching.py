"""Cost of watching a script: the same loop bare, and under bygones' hooks and ledger.

    python benchmarks/watching.py

Both loops run in one process with one thread, in turns of 20 steps, a bare one and a watched one in pairs,
with alternating order; prints the median of the pairs' differences and its 95 % interval.
The watched loop has what every studied script has at every step: the optimizer's hooks, the loader's,
`backward`'s, and a hash over the content of each delivered batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bygones.attach.step_clock import Clock

PAIRS, STEPS = 60, 20


def main() -> None:
    torch.set_num_threads(1)
    print("| step | batch | bare | µs a step | overhead |")
    print("| --- | --- | --- | --- | --- |")
    for name, width, size in (
        ("MLP, 2 × 128", 128, 64),
        ("MLP, 2 × 320", 320, 128),
        ("MLP, 2 × 640", 640, 128),
        ("MLP, 2 × 256", 256, 1024),
    ):
        bare, extra = measured(loop(width, size))
        middle, (low, high) = float(np.median(extra)), median_interval(extra)
        print(
            f"| {name} | {size} × 784 floats | {bare * 1e3:.2f} ms "
            f"| {middle * 1e6:.0f} [{low * 1e6:.0f}, {high * 1e6:.0f}] "
            f"| {100 * middle / bare:.1f} % [{100 * low / bare:.1f}, {100 * high / bare:.1f}] |"
        )


def loop(width: int, batch_size: int) -> Callable[[], None]:
    """A training loop of `STEPS` steps, as a script has it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data = TensorDataset(torch.randn(4096, 784), torch.randint(10, (4096,)))
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)

    def train() -> None:
        done = 0
        while done < STEPS:
            for inputs, labels in loader:
                loss = nn.functional.cross_entropy(model(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                if done == STEPS:
                    break

    return train


def measured(train: Callable[[], None]) -> tuple[float, np.ndarray]:
    """Median seconds a bare step, and the seconds that watching adds to a step, one number for each pair."""
    train()
    bare, extra = [], []
    for number in range(PAIRS):
        times = {}
        for kind in ("bare", "watched") if number % 2 else ("watched", "bare"):
            times[kind] = (timed(train) if kind == "bare" else timed_and_watched(train)) / STEPS
        bare.append(times["bare"])
        extra.append(times["watched"] - times["bare"])
    return float(np.median(bare)), np.asarray(extra)


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % by order statistics, which assume nothing of the distribution."""
    low, high = (int(k) for k in stats.binom.interval(0.95, len(values), 0.5))
    ordered = np.sort(values)
    return float(ordered[low]), float(ordered[min(high, len(values) - 1)])


def timed_and_watched(train: Callable[[], None]) -> float:
    clock = Clock()
    with clock.listening():
        seconds = timed(train)
    assert clock.step == STEPS
    assert len(clock.record.batches.steps) == STEPS
    return seconds


def timed(train: Callable[[], None]) -> float:
    began = time.perf_counter()
    train()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
