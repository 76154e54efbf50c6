"""Growth: CPU seconds and peak memory of what is far larger than in the tests.

    python -m benchmarks.growth                     # all of it: minutes of CPU
    python -m benchmarks.growth ledger horizons     # these alone
    python -m benchmarks.growth --scale 0.1         # a tenth of each size

Each case runs in a process of its own, at the size and at a quarter of it: what grows faster than the size,
or holds more than is in flight, shows. Prints the table of benchmarks/RESULTS.md.

ledger     two ledgers of a million entries that part near their end: `diff`
seeds      a study of 300 seeds: run, and its report's effects
arms       a study of 40 arms
horizons   a study with 1,000 horizons
inputs     a study with 50,000 probe inputs
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bygones import Arm, Parts, Recipe, Reshuffle, Scale, Study, Treatment, Window
from bygones.publish.result import load
from bygones.store import FolderStore
from bygones.store.ledger import write_ledger
from bygones.store.ledger_diff import first_divergence
from bygones.study.measure import measure

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"ledger": 1_000_000, "seeds": 300, "arms": 40, "horizons": 1_000, "inputs": 50_000}
_INSIDE = "--inside"  # with a case and a size: run it in this process


def entries(size: int, parts_at: int) -> Iterator[dict[str, Any]]:
    holds = {"moments": "0" * 16, "weights": "1" * 16}
    for step in range(size):
        loss = 0.5 if step < parts_at else 0.25
        yield {"step": step, "ids": "a", "batches": "b", "loss": loss, "holds": holds}


def ledger(size: int, folder: Path) -> Callable[[], Any]:
    parts_at = int(size * 0.97)
    write_ledger(folder / "a", {"run": "a", "every": 1}, entries(size, size))
    write_ledger(folder / "b", {"run": "b", "every": 1}, entries(size, parts_at))

    def diff() -> None:
        assert first_divergence(folder / "a", folder / "b").step == parts_at

    return diff


def recipe(seed: int, num_inputs: int) -> Parts:
    rng = np.random.default_rng(7)
    x = torch.from_numpy(rng.standard_normal((24 + num_inputs, 5), np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 24 + num_inputs))
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data, probe = (x[:24], y[:24]), (x[24:], y[24:])
    return Parts(
        model=model, optimizer=optimizer, data=data, order=Reshuffle(24, 4), probe_set=probe
    )


def study(size: int, folder: Path, what: str) -> Callable[[], Any]:
    """Train a small study into a store, and compute what its report says, as a report does."""
    torch.set_num_threads(1)
    made = Recipe.of(recipe, num_inputs=size if what == "inputs" else 20)
    count = size if what == "arms" else 1
    at = Window(2, 3)
    arms = [Arm(f"arm {n}", Treatment("moments", Scale(n / (count + 1)), at)) for n in range(count)]
    horizons = range(1, size + 1) if what == "horizons" else (1, 4)
    seeds = range(size if what == "seeds" else 4)
    asked = Study(made, arms, fork_at=2, horizons=horizons, seeds=seeds, name=what)

    def run() -> None:
        measure(asked, FolderStore(folder / "store"), lanes=1)
        result = load(str(folder / "store"))
        assert len(result.summary.rows) == count

    return run


def inside(case: str, size: int) -> None:
    """Run one case, and print its CPU seconds and its memory at the peak and before, in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = ledger(size, folder) if case == "ledger" else study(size, folder, case)
        before = resource.getrusage(resource.RUSAGE_SELF)
        run()
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps({"cpu": cpu, "peak": after.ru_maxrss / 1024, "before": before.ru_maxrss / 1024})
    )


def measured(case: str, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", _INSIDE, case, str(size)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(SIZES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    asked = parser.parse_args()
    print("| case | size | CPU seconds | peak memory | of that, before it began |")
    print("|---|---|---|---|---|")
    for case in asked.cases or SIZES:
        for size in (
            math.ceil(SIZES[case] * asked.scale / 4),
            math.ceil(SIZES[case] * asked.scale),
        ):
            found = measured(case, size)
            row = f"{found['cpu']:.1f} | {found['peak']:,.0f} MB | {found['before']:,.0f} MB"
            print(f"| {case} | {size:,} | {row} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [_INSIDE]:
        inside(sys.argv[2], int(sys.argv[3]))
    else:
        main()
