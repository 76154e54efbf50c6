"""What several commands share: their options, and how a store is read and its effects are said."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bygones.study.executors import AbstractExecutor

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A built-in regime (bygones list regimes), study.py[:function], or package.module:function.",
    ),
]
Seeds = Annotated[
    str | None, typer.Option(help="Seeds to use instead of the study's own, like 0-31 or 0-3,10.")
]
StoreFolder = Annotated[Path, typer.Option(help="The folder that keeps what was trained.")]
StorePlace = Annotated[
    str,
    typer.Option(
        metavar="DIR|URL",
        help="Where what was trained is kept: a folder, or a URL like s3://bucket/study.",
    ),
]
StoredStudy = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="The folder that a run was stored in, or a URL like s3://bucket/study.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes to train with, one thread each.")]
Lanes = Annotated[
    str,
    typer.Option(
        metavar="auto|NUMBER",
        help="How many seeds take each step together; 1: one by one; auto: what is fastest here.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="cpu|cuda|cuda:N", help="What to train on, by torch's name for it.")
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where to train: serial, processes, ray or slurm (default: ray with --address; else processes, "
        "or serial with one worker).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a running Ray cluster, like ray://host:10001 or auto."),
]
ManyWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Jobs at once, one core and thread each (default: the cores here; of a Ray cluster, all of "
        "its cores; on a GPU, one).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for machines.")]
StudyOption = Annotated[
    str | None, typer.Option("--study", help="Which study, if the store holds several.")
]

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="-- SCRIPT [ARGUMENTS]",
        help="A training script with its arguments, after `--`; {seed} in them stands for the seed.",
    ),
]
SeedEnv = Annotated[
    str | None,
    typer.Option(
        help="An environment variable that brings the script its seed. Without it, and without {seed} in "
        "the arguments, the global generators are seeded before the script runs."
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:FUNCTION",
        help="What to observe: a function of the model that returns an array [inputs, outputs], or "
        "(logits, labels). Without it, the model on inputs of its own evaluation batches.",
    ),
]

CORES = os.cpu_count() or 1


def results_alone() -> AbstractContextManager[Any]:
    """What a recipe prints, or a cluster, goes to standard error: standard output is for results."""
    return redirect_stdout(sys.stderr)


def places(device: str) -> int:
    """How many jobs go on at once unless one says so: one for each core; on a GPU its lanes fill it."""
    return CORES if device == "cpu" else 1


def executor_of(
    name: str | None, workers: int | None, address: str | None, store: str, device: str
) -> AbstractExecutor:
    """The executor that --executor, --workers, --address and --device ask for."""
    from bygones.core.errors import DesignError
    from bygones.study.executors import EXECUTORS, Processes, Ray, Serial, Slurm

    cores = workers or places(device)
    num_gpus = 0 if device == "cpu" else 1  # a job's
    usual = "ray" if address else "processes" if cores > 1 else "serial"
    kind = EXECUTORS[name or usual]
    if address and kind is not Ray:
        raise DesignError(f"--address is that of a Ray cluster; it does not go with '{name}'.")
    if kind is Ray:
        return Ray(address, workers, num_gpus)
    if kind is Slurm:
        if workers is None:
            raise DesignError("say with --workers N how many of Slurm's jobs may be there at once.")
        asked: dict[str, Any] = {"gpus_per_node": num_gpus} if num_gpus else {}
        return Slurm(workers, beside(store, "slurm"), **asked)
    return Processes(cores) if kind is Processes else Serial()


def beside(store: str, what: str) -> Path:
    """A folder for what belongs to a store: beside it, or here if it is at a URL."""
    from bygones.store import is_remote

    if is_remote(store):
        return Path(f"{store.rstrip('/').rpartition('/')[2]}-{what}")
    return Path(store).parent / f"{Path(store).name}-{what}"


def outcomes_of(store: Path | str, study: str | None) -> Any:
    from bygones.store import is_remote, open_store
    from bygones.store.outcomes import read_manifest, read_outcomes

    opened = open_store(store) if is_remote(store) else folder_store(store)
    return read_outcomes(opened, read_manifest(opened, study))


def folder_store(store: Path | str) -> Any:
    from bygones.core.errors import StoreError
    from bygones.store import FolderStore, is_remote

    if is_remote(store):
        raise StoreError(
            f"this can only be done with a store in a folder: copy '{store}' into one, as it is."
        )
    if not Path(store).is_dir():
        raise StoreError(
            f"there is no store at '{store}'. `bygones run STUDY --store {store}` makes one."
        )
    return FolderStore(store)


def say_effects(store: Path | str, study: str | None, *, as_json: bool) -> None:
    """The effects of a stored study: all of them as JSON, or the last horizon's as sentences."""
    from bygones.analysis.effects import all_effects, default_metrics
    from bygones.cli import terminal
    from bygones.publish.bundle.derived import effects_json

    outcomes = outcomes_of(store, study)
    if as_json:
        print(effects_json(outcomes).decode(), end="")
        return
    for effect in all_effects(
        outcomes, metrics=default_metrics(outcomes)[:1], steps=[int(outcomes.step[-1])]
    ):
        terminal.out.print(str(effect))
    terminal.console.print(f"Report with figures: bygones report {store}")
