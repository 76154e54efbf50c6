"""Cost of hashing, beside the machine's memory bandwidth, and the ledger's share of a step.

    python benchmarks/hashing.py

First table: bytes a second of each hash over 16 MB of numbers, beside a copy of the same bytes by numpy
(reading and writing them) and their sum (reading them). Second: the parts that a ledger adds to a step of
digits' recipe: the chain over the contents of batches (every step), and an entry (every k-th).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np
import torch
from xxhash import xxh3_128

from bygones.core.digest import digest
from bygones.core.hash_chain import extend_chain, fast_digest
from bygones.training.contract import Contract
from bygones.training.run import Run
from bygones.zoo.regimes import digits

REPEATS = 15


def main() -> None:
    with Contract.here().in_force():
        print("| 16 MB of float32 | GB/s | share of a copy |")
        print("| --- | --- | --- |")
        for name, speed, share in throughput():
            print(f"| {name} | {speed:.2f} | {share:.0%} |")
        print()
        print("| digits, per step | µs | share of a step |")
        print("| --- | --- | --- |")
        for name, seconds, share in shares():
            print(f"| {name} | {seconds * 1e6:.0f} | {share:.1%} |")


def throughput() -> list[tuple[str, float, float]]:
    array = np.random.default_rng(0).random(4_000_000, dtype=np.float32)
    other = np.empty_like(array)
    work: dict[str, Callable[[], object]] = {
        "copy (numpy)": lambda: np.copyto(other, array),
        "sum (numpy)": lambda: array.sum(),
        "xxh3_128, bare": lambda: xxh3_128(array.data).digest(),
        "the ledger's chain over a batch": lambda: extend_chain("", array),
        "the ledger's digest of a state": lambda: fast_digest({"leaf": array}),
        "SHA-256, bare": lambda: hashlib.sha256(array.data).digest(),
        "the store's and the study's digest": lambda: digest({"leaf": array}),
    }
    speeds = {name: array.nbytes / median(function) / 1e9 for name, function in work.items()}
    return [(name, speed, speed / speeds["copy (numpy)"]) for name, speed in speeds.items()]


def shares() -> list[tuple[str, float, float]]:
    run = Run(digits.recipe, 0)
    run.advance(20)
    batch = run.parts.fetch(run.parts.cursor.next())
    began = time.perf_counter()
    run.advance(220)
    step = (time.perf_counter() - began) / 200
    parts = {
        "a whole step": step,
        "the chain over the batch's content": median(lambda: extend_chain(run.batch_chain, batch)),
        "an entry, with a digest of every source": median(run.entry),
    }
    return [(name, seconds, seconds / step) for name, seconds in parts.items()]


def median(function: Callable[[], object]) -> float:
    """Median seconds of a call."""
    function()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
