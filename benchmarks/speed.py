"""Cost of a study, beside a plain training loop, and of its parts.

    python -m benchmarks.speed [R1 R2 R3 costs parts]        (R3:2 for two of its seeds)

Reference studies (benchmarks/reference): bygones with two workers into a new store, everything counted from
`plan` to the outcomes; and the plain loop, every arm of every seed from step 0, with one or two threads, the
faster of the two in a trial. The loop is run for a few seeds and its time extrapolated (its seeds share
nothing). Both must find the same effects.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from benchmarks.reference import naive, studies

from bygones.analysis.effects import per_seed
from bygones.analysis.metrics import METRICS
from bygones.store import FolderStore
from bygones.study.design import Study
from bygones.study.executors import Processes, Serial
from bygones.study.measure import measure
from bygones.study.plan import Plan, plan
from bygones.study.snapshot_bytes import encode
from bygones.training.contract import Contract
from bygones.training.lanes import BatchedRuns
from bygones.training.run import Run

NAIVE_SEEDS = {"R1": 8, "R2": 2, "R3": 2}


def main() -> None:
    wanted = sys.argv[1:] or ["R1", "R2", "R3", "costs", "parts"]
    names = [name for name in wanted if name[:2] in NAIVE_SEEDS]
    if names:
        print(
            "| study | loop | bygones | times faster | sharing | lanes | steps planned / done "
            "| time left predicted / taken | effects agree |"
        )
        print("| --- " * 9 + "|")
    for name in names:
        print("| " + " | ".join(reference(name)) + " |", flush=True)
    if "costs" in wanted:
        print()
        print("| a study with | steps | lanes | planned in | predicted / taken | µs a step |")
        print("| --- " * 6 + "|")
        for row in costs():
            print("| " + " | ".join(row) + " |", flush=True)
    if "parts" in wanted:
        print()
        print("| part | figure |")
        print("| --- | --- |")
        for part, figure in parts():
            print(f"| {part} | {figure} |", flush=True)


# ------------------------------------------------------------------ reference studies


def reference(wanted: str) -> list[str]:
    """One study both ways: a row of the table."""
    name, _, fewer = wanted.partition(":")
    study, problem = studies.study(name), studies.problem(name)
    study = study.with_seeds(study.seeds[: int(fewer)]) if fewer else study
    arms = naive.ARMS if name == "R3" else naive.WITH_BATCHNORM
    threads = min((1, 2), key=lambda n: _trial(problem, n))
    seeds = study.seeds[: NAIVE_SEEDS[name]]
    torch.set_num_threads(threads)
    by_loop, loop_seconds = timed(lambda: naive.measure(problem, arms, seeds))
    torch.set_num_threads(1)
    loop_seconds *= len(study.seeds) / len(seeds)
    planned, outcomes, steps, planning, training = _whole(study)
    seconds = planning + training
    apart = _apart(by_loop, list(arms), outcomes)
    print(f"  {name}: {planned.choice.why}", file=sys.stderr)
    return [
        f"{name}, {len(study.seeds)} seeds",
        f"{loop_seconds:.0f} s ({threads} thread{'s' * (threads > 1)}, {len(seeds)} seeds run)",
        f"{seconds:.0f} s",
        f"{loop_seconds / seconds:.1f}",
        f"{planned.steps_naive / planned.steps_shared:.2f}",
        str(planned.contract.lanes),
        f"{planned.steps_left:,} / {steps:,}",
        f"{planned.seconds_left(2):.0f} s / {training:.0f} s",
        f"largest |z| of {len(arms) - 2} arms: {apart:.1f}",
    ]


def _whole(study: Study) -> tuple[Plan, Any, int, float, float]:
    """A study into a new store: its plan, outcomes and steps, and the seconds to plan and from then on."""
    with TemporaryDirectory() as folder:
        store, executor = FolderStore(Path(folder) / "store"), Processes(2)
        steps: list[int] = []
        began = time.perf_counter()
        executor.get_ready()
        planned = plan(study, store, lanes="auto", workers=2)
        ready = time.perf_counter()
        outcomes = measure(study, store, executor, planned=planned, on_job=steps.append)
        return planned, outcomes, sum(steps), ready - began, time.perf_counter() - ready


def _trial(problem: naive.Problem, threads: int) -> float:
    torch.set_num_threads(threads)
    short = naive.Problem(**{**vars(problem), "fork": 30, "horizons": (0, 30)})
    naive.measure(short, {"control": naive.nothing}, [0])
    return timed(lambda: naive.measure(short, {"control": naive.nothing}, [0]))[1]


def _apart(by_loop: np.ndarray, arms: list[str], outcomes: Any) -> float:
    """The largest |z| between both ways' mean distances from the control, at the last horizon."""
    tv = METRICS["tv"]
    largest = 0.0
    for place, arm in enumerate(arms[2:], start=2):
        loop = np.array([tv(seed[place, -1], seed[0, -1]) for seed in by_loop])
        ours = per_seed(outcomes, "tv", arm).values[:, -1]
        error = np.hypot(loop.std(ddof=1) / len(loop) ** 0.5, ours.std(ddof=1) / len(ours) ** 0.5)
        largest = max(largest, abs(loop.mean() - ours.mean()) / max(error, 1e-12))
    return largest


# ------------------------------------------------------------------ costs

VARIED = {
    "seeds": (8, 16, 32, 64),
    "arms": (1, 2, 5),
    "after": (75, 150, 300),
    "width": (64, 128, 256),
}


def costs() -> Iterator[list[str]]:
    """What a study costs against its seeds, arms, horizon and model, each by itself."""
    for what, values in VARIED.items():
        for value in values:
            planned, _, steps, planning, training = _whole(studies.varied(**{what: value}))
            yield [
                f"{what} {value}",
                f"{steps:,}",
                str(planned.contract.lanes),
                f"{planning:.1f} s",
                f"{planned.seconds_left(2):.1f} s / {training:.1f} s",
                f"{1e6 * training / steps:.0f}",
            ]


# ------------------------------------------------------------------ parts


def parts() -> Iterator[tuple[str, str]]:
    with Contract.here().in_force():
        yield from _steps()
        yield from _snapshots()
        yield from _widths()
    yield from _workers()


def _steps() -> Iterator[tuple[str, str]]:
    """A step of `Run` beside the same step without it, in turns, so that both meet the same machine."""
    for name, recipe in (("R1", studies.r1), ("R2", studies.r2), ("R3", studies.r3)):
        run, bare = Run(recipe, 0), Run(recipe, 0)
        rows = [bare.parts.order.rows(1, step) for step in range(400)]

        def loop(bare: Run = bare, rows: list[np.ndarray] = rows) -> None:
            for step in range(20):
                bare.parts.train_step(bare.parts, bare.parts.fetch(rows[step])).item()

        run.advance(20)
        loop()
        pairs = [
            (timed(loop)[1], timed(lambda run=run: run.advance(run.step + 20))[1])
            for _ in range(40)
        ]
        alone, watched = (np.median([pair[i] for pair in pairs]) / 20 for i in (0, 1))
        extra = np.median([b - a for a, b in pairs]) / 20
        yield (
            f"step of {name}: bare loop, in `Run`, overhead",
            f"{alone * 1e3:.2f} ms, {watched * 1e3:.2f} ms, {extra * 1e6:.0f} µs = {extra / alone:.1%}",
        )


def _snapshots() -> Iterator[tuple[str, str]]:
    run = Run(studies.r2, 0)
    run.advance(3)
    snapshot = run.snapshot()
    size = len(encode(snapshot))
    array = np.zeros(size, dtype=np.uint8)
    other = np.empty_like(array)
    copy = best(lambda: np.copyto(other, array))
    with TemporaryDirectory() as folder:
        store = FolderStore(folder)
        for name, work in {
            "snapshot": run.snapshot,
            "restore": lambda: run.restore(snapshot),
            "snapshot's digest (SHA-256)": snapshot.digest,
            "snapshot to bytes": lambda: encode(snapshot),
            "bytes into the store (SHA-256, file)": lambda: store.put(
                np.random.default_rng().bytes(16) + array.tobytes()
            ),
        }.items():
            seconds = best(work)
            yield (
                f"{name}, {size / 1e3:.0f} kB",
                f"{seconds * 1e6:.0f} µs = {size / seconds / 1e9:.2f} GB/s, {copy / seconds:.0%} of a copy",
            )


def _widths() -> Iterator[tuple[str, str]]:
    """A seed's step by itself and in lanes."""
    for name, recipe in (("R1", studies.r1), ("R2", studies.r2), ("R3", studies.r3)):
        run = Run(recipe, 0)
        run.advance(5)
        figures = [f"alone {best(lambda run=run: run.advance(run.step + 5)) / 5 * 1e6:.0f}"]
        for width in (4, 8, 16, 32):
            lanes = BatchedRuns([Run(recipe, seed) for seed in range(width)], width)
            lanes.advance(2)

            def on(lanes: BatchedRuns = lanes) -> None:
                lanes.advance(lanes.runs[0].step + 5)

            figures.append(f"{width} lanes {best(on, 5) / 5 / width * 1e6:.0f}")
        yield f"µs of a seed's step of {name}", ", ".join(figures)


def _workers() -> Iterator[tuple[str, str]]:
    """The same work by one process and by two, once the study is planned, and meanwhile workers begun."""
    study = studies.study("R1").with_seeds(range(32))
    seconds = []
    for executor in (Serial(), Processes(2)):
        with TemporaryDirectory() as folder:
            store = FolderStore(folder)
            executor.get_ready()
            planned = plan(study, store, lanes=16, workers=2)
            seconds.append(
                timed(lambda e=executor, p=planned, s=store: measure(study, s, e, planned=p))[1]
            )
    yield (
        "R1 by one process, by two",
        f"{seconds[0]:.1f} s, {seconds[1]:.1f} s: {seconds[0] / seconds[1] / 2:.0%} of twice as fast",
    )


# ------------------------------------------------------------------ timing


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began


def best(work: Callable[[], object], repeats: int = 15) -> float:
    """Seconds of the fastest of some runs: what it costs when nothing else is going on."""
    work()
    return min(timed(work)[1] for _ in range(repeats))


if __name__ == "__main__":
    main()
