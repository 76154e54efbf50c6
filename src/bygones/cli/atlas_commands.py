"""`bygones dynamics atlas`: train what every regime still lacks, and write one page of them all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bygones.cli.options import Lanes, Workers
from bygones.cli.resources import default_workers, make_executor, print_to_stderr
from bygones.core.errors import BygonesError, MissingExtra, WorkerError
from bygones.core.files import write_whole
from bygones.core.text import describe_error, format_count

if TYPE_CHECKING:
    from bygones.publish.report.atlas import Entry
    from bygones.study.design import Study
    from bygones.study.executors import AbstractExecutor
    from bygones.study.plan import Plan

NUM_SEEDS = 16
QUICK_SEEDS, QUICK_STEPS = 4, 100


def atlas(
    regimes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REGIME...]", help="Regimes (see `bygones list regimes`; default: all)."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"Train {QUICK_SEEDS} seeds instead of {NUM_SEEDS}, and follow each study for about "
            f"{QUICK_STEPS} steps.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder of the page and the stores (default: bygones-atlas, or bygones-atlas-quick).",
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what is left to train and what that takes, and end.")
    ] = False,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle", help="Write each study as a bundle too, with its digest on the page."
        ),
    ] = False,
    workers: Workers = None,
    lanes: Lanes = "auto",
) -> None:
    """Train what is missing of every regime, and write the atlas.

    One page of regimes by sources: how much each memory matters, beside another seed, and for how long.
    A regime whose package is missing, or whose training fails, is left out and named. The same command goes
    on where it stopped.

    \b
    Examples:
      bygones dynamics atlas --quick
      bygones dynamics atlas digits charlm --out digits-and-charlm
    """
    from bygones.cli import terminal
    from bygones.cli.values import parse_lanes
    from bygones.publish.report.atlas import write_atlas

    names = _chosen(regimes)
    parse_lanes(lanes)  # what is wrong in all regimes is said once
    folder = out or Path("bygones-atlas-quick" if quick else "bygones-atlas")
    num_workers = workers or default_workers("cpu")
    with print_to_stderr():
        plans, missing, failed = _plan_all(names, folder, lanes, num_workers, quick=quick)
    if plan_only:
        return
    entries: list[Entry] = []
    executor = make_executor(None, workers, None, str(folder), "cpu")
    for done, (name, planned) in enumerate(plans.items()):
        left = sum(one.seconds_left(num_workers) for one in list(plans.values())[done:])
        about = f", about {terminal.duration(left)} left" if left else ""
        terminal.console.print(f"Regime {done + 1} of {len(plans)}{about}.")
        try:
            with print_to_stderr():
                entries.append(_enter(name, planned, executor, folder, bundle=bundle))
        except Exception as error:  # whatever a regime's code raises: the others are finished
            failed[name] = error
            terminal.console.print(f"{name} is left out: {_sentence(error)}")
    left_out = missing | {name: _sentence(error) for name, error in failed.items()}
    if entries:
        page = write_atlas(entries, folder, left_out=left_out, quick=quick)
        terminal.print_atlas(entries)
        terminal.out.print(f"Atlas: {page}")
    _end(entries, missing, failed)


def _chosen(regimes: Sequence[str] | None) -> list[str]:
    """Return the regimes that are asked for, each once. Raises `UnknownName`."""
    from bygones.core.catalogue import unknown_name
    from bygones.zoo.regimes import REGIMES

    for name in regimes or ():
        if name not in REGIMES:
            raise unknown_name("regime", name, REGIMES)
    return list(dict.fromkeys(regimes or REGIMES))


def _study(name: str, *, quick: bool) -> Study:
    """Return a regime's default study with the seeds of the atlas, cut short for a quick one."""
    from bygones.cli.load import load_study
    from bygones.study.shorten import shorten

    study = load_study(name)
    if quick:
        return shorten(study, QUICK_STEPS).with_seeds(range(QUICK_SEEDS))
    return study.with_seeds(range(NUM_SEEDS))


def _plan_all(
    names: Sequence[str], folder: Path, lanes: str, num_workers: int, *, quick: bool
) -> tuple[dict[str, Plan], dict[str, str], dict[str, Exception]]:
    """Plan and print every study; return the plans, why packages are missing, and the errors, by regime."""
    from bygones.cli import terminal
    from bygones.cli.resources import lasting_store
    from bygones.cli.values import parse_lanes
    from bygones.study.plan import plan

    plans: dict[str, Plan] = {}
    missing: dict[str, str] = {}
    failed: dict[str, Exception] = {}
    for name in names:
        try:
            store = lasting_store(str(folder / "stores" / name))
            study = _study(name, quick=quick)
            planned = plan(study, store, lanes=parse_lanes(lanes), workers=num_workers)
        except Exception as error:
            if isinstance(error, MissingExtra):
                missing[name] = str(error)
            else:
                failed[name] = error
            terminal.console.print(f"{name} is left out: {_sentence(error)}")
            continue
        plans[name] = planned
        terminal.console.print(terminal.atlas_plan_line(name, planned, num_workers))
    seconds = sum(planned.seconds_left(num_workers) for planned in plans.values())
    steps = sum(planned.steps_left for planned in plans.values())
    size = terminal.size(sum(planned.bytes_total for planned in plans.values()))
    terminal.console.print(
        f"{len(plans)} regimes, {steps:,} steps to train, about {terminal.duration(seconds)} with "
        f"{num_workers} worker{'s' if num_workers > 1 else ''}; {size} in {folder} when finished."
    )
    return plans, missing, failed


def _enter(
    name: str, planned: Plan, executor: AbstractExecutor, folder: Path, *, bundle: bool
) -> Entry:
    """Train what the store lacks of a regime, and read what it says."""
    from bygones.cli import terminal
    from bygones.publish.report.atlas import make_entry
    from bygones.study.measure import measure
    from bygones.zoo.regimes import SIGNATURES

    digest = planned.facts.digests["study"]
    with _timed(folder / "seconds.json", f"{name} {digest}", planned) as seconds:
        with terminal.progress(planned, name) as follow:
            outcomes = measure(planned.study, executor=executor, planned=planned, on_plan=follow)
    return make_entry(
        name,
        outcomes,
        SIGNATURES[name](outcomes) if name in SIGNATURES else (),
        seconds=seconds(),
        num_bytes=_bytes_in(folder / "stores" / name),
        bundle=_bundle(folder, name, planned.study.name) if bundle else "",
    )


@contextmanager
def _timed(file: Path, key: str, planned: Plan) -> Iterator[Callable[[], float | None]]:
    """Add the time of the block to what earlier runs have noted; yields a function that returns the sum.

    It is noted also where the block is stopped: what was trained until then is stored.
    """
    noted = json.loads(file.read_text()) if file.is_file() else {}
    began, left = time.perf_counter(), bool(planned.seeds_left)
    try:
        yield lambda: noted.get(key)
    finally:
        if left:
            noted[key] = noted.get(key, 0.0) + time.perf_counter() - began
            write_whole(file, json.dumps(noted, indent=2))


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(
        os.lstat(os.path.join(place, file)).st_size
        for place, _, files in os.walk(folder)
        for file in files
    )


def _bundle(folder: Path, name: str, study: str) -> str:
    """Write a regime's study as a bundle, in the place of an earlier one, and return its digest."""
    from bygones.cli.resources import existing_store
    from bygones.publish.bundle_study import bundle_study

    path = folder / "bundles" / f"{name}.zip"
    path.unlink(missing_ok=True)
    store = existing_store(str(folder / "stores" / name))
    return bundle_study(store, path, study).digest


def _end(entries: Sequence[Entry], missing: dict[str, str], failed: dict[str, Exception]) -> None:
    """Raise for regimes that failed, and where there is nothing to show; what is missing has been said."""
    if failed:
        first = next(iter(failed.values()))
        error = WorkerError(
            f"{format_count(len(failed), 'regime')} failed, so the atlas is without: {', '.join(failed)}. "
            f"The first said: {_sentence(first)} What is finished is stored; run the same command again to "
            f"go on."
        )
        error.exit_code = getattr(first, "exit_code", 70)
        raise error
    if not entries:
        named = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise WorkerError(f"there is no regime left to show. {named}")


def _sentence(error: Exception) -> str:
    """Return what an error says; of one that bygones did not expect, also its class."""
    return str(error) if isinstance(error, BygonesError) else f"it {describe_error(error)}."
