"""Resources that options name: executors, stores and folders beside them, and a stored study's effects."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bygones.publish.result import Result
    from bygones.store import FolderStore, RemoteStore
    from bygones.study.executors import AbstractExecutor

NUM_CORES = os.cpu_count() or 1


def print_to_stderr() -> AbstractContextManager[Any]:
    """Send what recipes and clusters print to standard error, so that standard output has results only."""
    return redirect_stdout(sys.stderr)


def default_workers(device: str) -> int:
    """Return how many jobs run at once by default: one a core; on a GPU one, whose lanes fill it."""
    return NUM_CORES if device == "cpu" else 1


def make_executor(
    name: str | None, workers: int | None, address: str | None, store: str, device: str
) -> AbstractExecutor:
    """Make the executor that --executor, --workers, --address and --device ask for.

    Raises `DesignError` for options that do not go together.
    """
    from bygones.core.errors import DesignError
    from bygones.study.executors import EXECUTORS, Processes, Ray, Serial, Slurm

    num_workers = workers or default_workers(device)
    num_gpus = 0 if device == "cpu" else 1  # for each job
    default = "ray" if address else "processes" if num_workers > 1 else "serial"
    kind = EXECUTORS[name or default]
    if address and kind is not Ray:
        raise DesignError(
            f"--address is the address of a Ray cluster; it does not go with '{name}'."
        )
    if kind is Ray:
        return Ray(address, workers, num_gpus)
    if kind is Slurm:
        if workers is None:
            raise DesignError(
                "--executor slurm needs --workers N, the number of Slurm jobs to keep queued or running."
            )
        parameters: dict[str, Any] = {"gpus_per_node": num_gpus} if num_gpus else {}
        return Slurm(workers, path_beside(store, "slurm"), **parameters)
    return Processes(num_workers) if kind is Processes else Serial()


def path_beside(store: str, suffix: str) -> Path:
    """Return STORE-suffix: beside the store's folder or, for a URL, in the working directory."""
    from bygones.store import is_remote

    if is_remote(store):
        return Path(f"{store.rstrip('/').rpartition('/')[2]}-{suffix}")
    return Path(store).parent / f"{Path(store).name}-{suffix}"


def lasting_store(place: str) -> FolderStore | RemoteStore:
    """Open the store at a folder or a URL. Raises `StoreError` for one that ends with this process."""
    from bygones.core.errors import StoreError
    from bygones.store import open_store

    if place.startswith("memory:"):
        raise StoreError(
            f"a store at '{place}' is gone as soon as this command ends, with all that was trained. Give a "
            f"folder, or the URL of one that lasts."
        )
    return open_store(place)


def local_store(place: str) -> FolderStore:
    """Return the store in a folder, which need not exist; raises `StoreError` for a URL."""
    from bygones.core.errors import StoreError
    from bygones.store import FolderStore, is_remote, open_store

    if is_remote(place):
        raise StoreError(
            f"this needs a store in a folder, and '{place}' is a URL. Copy it into a folder, as it is, and "
            f"give that."
        )
    store = open_store(place)
    assert isinstance(store, FolderStore)
    return store


def existing_store(place: str) -> FolderStore:
    """Return the store in a folder; raises `StoreError` if the folder does not exist."""
    from bygones.store import open_existing

    open_existing(place)
    return local_store(place)


def read_result(place: str, study: str | None = None, observe: str = "") -> Result:
    """Read a study from the store at a folder or URL that lasts. `observe`: the model that leads."""
    from bygones.publish.result import load

    lasting_store(place)
    return load(place, study, observe)


def list_studies(place: str) -> list[str]:
    """Return the names of the finished studies in a store that lasts."""
    from bygones.store import open_existing
    from bygones.store.outcomes import read_manifests

    lasting_store(place)
    return sorted(read_manifests(open_existing(place)))


def split_study(text: str) -> tuple[str, str | None]:
    """Split STORE:STUDY; a folder that has this very name, or a URL's own colon, is not split.

    >>> split_study("bygones-store:digits"), split_study("s3://bucket/study")
    (('bygones-store', 'digits'), ('s3://bucket/study', None))
    """
    place, colon, study = text.rpartition(":")
    whole = not colon or study.startswith("//") or Path(text).exists()
    return (text, None) if whole else (place, study)


def print_effects(
    place: str, study: str | None, *, as_json: bool, observe: str = "", verbose: bool = False
) -> None:
    """Print the effects of a stored study: all as JSON, or the last horizon's as a table or as sentences."""
    from bygones.cli import terminal
    from bygones.core.study_facts import facts_of
    from bygones.publish.bundle.derived import effects_json

    result = read_result(place, study, observe)
    if as_json:
        print(effects_json(result.outcomes).decode(), end="")
        return
    if verbose:
        for reading in result.readings:
            terminal.out.print(str(reading.last))
    else:
        terminal.out.print(result.summary.to_text(terminal.columns()))
    models = facts_of(result.outcomes).models
    if models:
        beside = ", ".join(models[1:])
        terminal.console.print(f"Observed: {models[0]}; beside it {beside} (report --observe).")
    terminal.console.print(f"Report with figures: bygones report {place}")
