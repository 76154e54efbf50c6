"""What it costs a script to be watched: the same loop bare, and under bygones' hooks and ledger.

    python benchmarks/watching.py

Both loops run in one process with one thread, in turns of 100 steps, and the medians of the turns are
compared. The watched loop has what every studied script has at every step: the optimizer's hooks, the
loader's, `backward`'s, and a hash over the content of each delivered batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bygones.script.clock import Clock

TURNS, STEPS = 9, 50


def main() -> None:
    torch.set_num_threads(1)
    print("| step | batch | bare | watched | µs a step | overhead |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, width, size in (
        ("MLP, small", 128, 64),
        ("MLP, wide", 640, 256),
        ("wide batch", 256, 1024),
    ):
        bare, watched = measured(loop(width, size))
        extra = watched - bare
        print(
            f"| {name} | {size} × 784 floats | {bare * 1e3:.2f} ms | {watched * 1e3:.2f} ms "
            f"| {extra * 1e6:.0f} | {100 * extra / bare:.1f} % |"
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


def measured(train: Callable[[], None]) -> tuple[float, float]:
    """Seconds a step, bare and watched: medians over turns that alternate."""
    times: dict[str, list[float]] = {"bare": [], "watched": []}
    train()
    for _ in range(TURNS):
        times["bare"].append(timed(train))
        clock = Clock()
        with clock.listening():
            times["watched"].append(timed(train))
        assert clock.step == STEPS
        assert len(clock.ledger.steps) == STEPS
    bare, watched = (statistics.median(times[kind]) / STEPS for kind in ("bare", "watched"))
    return bare, watched


def timed(train: Callable[[], None]) -> float:
    began = time.perf_counter()
    train()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
