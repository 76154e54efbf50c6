"""Commands on studies: demo, run, plan, report, compare, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bygones.cli.options import (
    Address,
    Device,
    Executor,
    Json,
    Lanes,
    ManyWorkers,
    Seeds,
    StoredStudy,
    StorePlace,
    StudyName,
    StudyOption,
    beside,
    executor_of,
    outcomes_of,
    places,
    results_alone,
    say_effects,
)

if TYPE_CHECKING:
    from bygones.study.executors import AbstractExecutor


def demo(
    out: Annotated[Path, typer.Option(help="Folder for store and report.")] = Path("bygones-demo"),
    seeds: Seeds = None,
    lanes: Lanes = "auto",
    device: Device = "cpu",
    workers: ManyWorkers = None,
) -> None:
    """Measure a small network on digits, and write a report."""
    store = str(out / "store")
    executor = executor_of(None, workers, None, store, device)
    _run("digits", seeds, store, lanes, device, executor, workers or places(device))
    _report(store, out, None, as_json=False)


def run(
    study: StudyName,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    lanes: Lanes = "auto",
    device: Device = "cpu",
    workers: ManyWorkers = None,
    executor: Executor = None,
    address: Address = None,
    until_halfwidth: Annotated[
        float | None,
        typer.Option(help="Add seeds until each excess over its null is known within ± this."),
    ] = None,
    max_seeds: Annotated[
        int, typer.Option(min=2, help="With --until-halfwidth: at most so many.")
    ] = 128,
    as_json: Json = False,
) -> None:
    """Train what is missing of a study, say what was found. Run it again to go on or to add to it."""
    chosen = executor_of(executor, workers, address, store, device)
    at_once = workers or places(device)
    with results_alone():
        if until_halfwidth is None:
            name = _run(study, seeds, store, lanes, device, chosen, at_once)
        else:
            name = _run_until(
                study, seeds, store, lanes, device, chosen, at_once, until_halfwidth, max_seeds
            )
    say_effects(store, name, as_json=as_json)


def plan(
    study: StudyName,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    lanes: Lanes = "auto",
    device: Device = "cpu",
    workers: ManyWorkers = None,
    half_width: Annotated[
        float | None,
        typer.Option(help="Also say how many seeds it takes, going by those stored, for ± this."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a study would cost. In steps, time and bytes, with and without shared prefixes."""
    from bygones.cli import terminal

    workers = workers or places(device)
    with results_alone():
        planned = _planned(study, seeds, store, lanes, device, workers)
    if as_json:
        print(json.dumps(terminal.plan_dict(planned, workers), indent=2))
        return
    for line in terminal.plan_lines(planned, workers):
        terminal.out.print(line)
    terminal.out.print("Memory found in it:")
    terminal.out.print(
        terminal.inventory_table([source.to_dict() for source in planned.facts.sources or ()])
    )
    for finding in planned.facts.findings or ():
        terminal.out.print(f"Note: {finding}")
    if half_width is not None:
        _say_seeds_needed(planned, half_width, workers)


def report(
    store: StoredStudy,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it (default: beside STORE).")
    ] = None,
    study: StudyOption = None,
    as_json: Json = False,
) -> None:
    """Write a stored study's HTML report. With --json, print its effects and digests instead."""
    _report(store, out or beside(store, "report"), study, as_json=as_json)


def compare(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Folders or URLs of stored studies.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path(
        "bygones-comparison"
    ),
) -> None:
    """Put several studies side by side. Effects of arms with the same name are pooled."""
    from bygones.analysis.compare_studies import side_by_side
    from bygones.cli import terminal
    from bygones.publish.report import write_comparison

    pooled = side_by_side([outcomes_of(store, None) for store in stores])
    for one in pooled:
        terminal.out.print(str(one))
    terminal.out.print(f"Comparison: {write_comparison(pooled, out)}")


def check(
    study: StudyName,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Prove that a recipe can be forked. Nothing that it carries from step to step is forgotten."""
    from bygones.cli.load import load_study
    from bygones.study.certificate import certify
    from bygones.study.plan import plan

    with results_alone():
        certificate = certify(plan(load_study(study), device=device))
    if as_json:
        print(json.dumps(certificate, indent=2))
        return
    boundaries = ", ".join(str(step) for step in certificate["boundaries"])
    print(
        f"Forks at steps {boundaries} are bit-equal to the original at step {certificate['until']}."
    )
    print(f"Needed for that: {', '.join(certificate['needed'])}.")
    if certificate["inert"]:
        print(f"Makes no difference in this run: {', '.join(certificate['inert'])}.")


def _chosen(study: str, seeds: str | None) -> Any:
    from bygones.cli.load import load_study, parse_seeds

    chosen = load_study(study)
    return chosen if seeds is None else chosen.with_seeds(parse_seeds(seeds))


def _planned(
    study: str, seeds: str | None, store: str, lanes: str, device: str, workers: int
) -> Any:
    from bygones.cli.load import parse_lanes
    from bygones.store import open_store
    from bygones.study.plan import plan

    chosen, width = _chosen(study, seeds), parse_lanes(lanes)
    return plan(chosen, open_store(store), lanes=width, device=device, workers=workers)


def _run(
    study: str,
    seeds: str | None,
    store: str,
    lanes: str,
    device: str,
    executor: AbstractExecutor,
    workers: int,
) -> str:
    from bygones.cli import terminal
    from bygones.study.measure import measure

    executor.get_ready()
    planned = _planned(study, seeds, store, lanes, device, workers)
    for line in terminal.plan_lines(planned, workers):
        terminal.console.print(line)
    with terminal.progress(planned, planned.study.name) as follow:
        measure(planned.study, executor=executor, planned=planned, on_plan=follow)
    return planned.study.name


def _run_until(
    study: str,
    seeds: str | None,
    store: str,
    lanes: str,
    device: str,
    executor: AbstractExecutor,
    workers: int,
    half_width: float,
    max_seeds: int,
) -> str:
    from bygones.cli import terminal
    from bygones.cli.load import parse_lanes
    from bygones.store import open_store
    from bygones.study.sequential import anytime_estimates, measure_until

    chosen = _chosen(study, seeds)
    outcomes = measure_until(
        chosen,
        half_width,
        store=open_store(store),
        executor=executor,
        lanes=parse_lanes(lanes),
        device=device,
        batch=2 * workers,
        max_seeds=max_seeds,
        on_batch=lambda planned: terminal.console.print(
            f"{planned.study.name}: {len(planned.study.seeds)} seeds, {planned.steps_left:,} steps to train. "
            f"{planned.choice.why}"
        ),
    )
    for arm, estimate in anytime_estimates(outcomes).items():
        terminal.console.print(f"{arm}: {estimate}, valid whenever one stops.")
    return chosen.name


def _say_seeds_needed(planned: Any, half_width: float, workers: int) -> None:
    """How many seeds each arm's excess takes, going by the seeds of the study that are stored."""
    from bygones.analysis.power import seeds_needed
    from bygones.cli import terminal
    from bygones.store.outcomes import read_manifest, read_outcomes
    from bygones.study.sequential import judged_pairs

    outcomes = read_outcomes(planned.store, read_manifest(planned.store, planned.study.name))
    steps_a_seed = planned.steps_shared / len(planned.study.seeds)
    for arm, pilot in judged_pairs(outcomes).items():
        needed = seeds_needed(pilot, half_width=half_width)
        steps = needed.num_pairs * steps_a_seed
        time = terminal.duration(steps * planned.seconds_a_step / workers)
        terminal.out.print(f"{arm}: {needed} That is {steps:,.0f} steps, about {time}.")


def _report(store: str, out: Path, study: str | None, *, as_json: bool) -> None:
    from bygones.cli import terminal
    from bygones.publish.report import write_report

    if as_json:
        say_effects(store, study, as_json=True)
        return
    path = write_report(outcomes_of(store, study), out)
    terminal.out.print(f"Report: {path}")
