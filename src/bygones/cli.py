"""The command line: argument parsing and nothing else.

Modules that need torch are imported inside the commands, so that help and reports come at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bygones import cli_scripts
from bygones.cli_shared import (
    Address,
    Device,
    Executor,
    Json,
    Lanes,
    ManyWorkers,
    SeedEnv,
    Seeds,
    StoredStudy,
    StorePlace,
    StudyName,
    StudyOption,
    beside,
    executor_of,
    folder_store,
    outcomes_of,
    places,
    results_alone,
    say_effects,
)
from bygones.errors import BygonesError

if TYPE_CHECKING:
    from bygones.executors import AbstractExecutor

app = typer.Typer(
    help="How much does a trained network depend on its training history?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
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


@app.command()
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


@app.command()
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
    from bygones import terminal

    workers = workers or places(device)
    with results_alone():
        planned = _planned(study, seeds, store, lanes, device, workers)
    if as_json:
        print(json.dumps(terminal.plan_dict(planned, workers), indent=2))
        return
    for line in terminal.plan_lines(planned, workers):
        terminal.out.print(line)
    terminal.out.print("Memory found in it:")
    terminal.out.print(terminal.inventory_table(planned.attributes["sources"]))
    for finding in planned.attributes["findings"]:
        terminal.out.print(f"Note: {finding}")
    if half_width is not None:
        _say_seeds_needed(planned, half_width, workers)


@app.command()
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


@app.command()
def compare(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Folders or URLs of stored studies.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path(
        "bygones-comparison"
    ),
) -> None:
    """Put several studies side by side. Effects of arms with the same name are pooled."""
    from bygones import terminal
    from bygones.comparison import side_by_side
    from bygones.report import write_comparison

    pooled = side_by_side([outcomes_of(store, None) for store in stores])
    for one in pooled:
        terminal.out.print(str(one))
    terminal.out.print(f"Comparison: {write_comparison(pooled, out)}")


@app.command()
def bundle(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="The folder that a run was stored in.")
    ],
    study: StudyOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder, or a file that ends in .zip (default: beside STORE)."),
    ] = None,
    license: Annotated[str, typer.Option(help="SPDX identifier, like CC-BY-4.0.")] = "not stated",
    date: Annotated[
        str | None,
        typer.Option(help="Day of publication, like 2026-01-31 (default: of the last outcome)."),
    ] = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Leave the HTML report out.")
    ] = False,
) -> None:
    """Write a stored study as a bundle that stands alone. A folder or zip that anybody can check."""
    from bygones import terminal
    from bygones.bundling import bundle_study

    made = bundle_study(
        folder_store(store),
        out or beside(store, "bundle"),
        study,
        license=license,
        date=date,
        with_report=not no_report,
    )
    if made.why_no_code:
        terminal.console.print(f"Note: the code is not included: {made.why_no_code}.")
    terminal.out.print(f"Bundle: {made.path}")
    terminal.out.print(f"The bundle's digest, to be published beside it: {made.digest}")


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A folder or zip that bygones bundle wrote.")
    ],
    digest: Annotated[
        str | None, typer.Option(help="What the bundle's digest has to be, known from elsewhere.")
    ] = None,
    rerun: Annotated[
        int, typer.Option(min=0, help="Train so many seeds again; needs --run-code.")
    ] = 0,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Allow the bundle's own program to be run.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, help="How far a prediction may be off on a machine of another kind."),
    ] = 1e-3,
    as_json: Json = False,
) -> None:
    """Check that a bundle is what was written. And that its numbers follow from its outcomes."""
    from bygones import terminal
    from bygones.bundle import verify_bundle

    found = verify_bundle(path, digest=digest, rerun=rerun, run_code=run_code, tolerance=tolerance)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    for what, said in [*found.checks, *([("run again", found.rerun)] if found.rerun else [])]:
        terminal.out.print(f"{what:<10} {said}")
    terminal.out.print(f"The bundle's digest: {found.digest}")
    if digest is None:
        terminal.console.print(
            "It agrees with itself. That it is the one that was published is only known with --digest."
        )


@app.command()
def check(
    study: StudyName,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Prove that a recipe can be forked. Nothing that it carries from step to step is forgotten."""
    from bygones.measuring import certify, plan
    from bygones.studies import load_study

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


app.command()(cli_scripts.sources)
app.command("script")(cli_scripts.run_script)
app.command()(cli_scripts.twin)
app.command("check-resume")(cli_scripts.check_resume)
app.command()(cli_scripts.observers)
app.command()(cli_scripts.sufficiency)


@app.command()
def ledger(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|STUDY | -- SCRIPT [ARGUMENTS]",
            help="A recipe (file.py:recipe, package.module:recipe) or a study, whose recipe it is; or, after "
            "`--`, a training script with its arguments.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The ledger's file; it must not be there yet.")],
    until: Annotated[
        int | None, typer.Option(min=0, help="Of a recipe: the step to train to.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="An entry at each so many-th boundary.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The seed to run with.")] = 0,
    seed_env: SeedEnv = None,
    optimizer: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of a script with several optimizers: whose steps are counted, in the order in which they "
            "first step.",
        ),
    ] = 0,
) -> None:
    """Write a run down, boundary by boundary. What it was shown and what it carried, chained."""
    if "--" in sys.argv:
        cli_scripts.ledger_of_script(run, out, until, every, seed, seed_env, optimizer)
        return
    from bygones import terminal
    from bygones.errors import DesignError
    from bygones.recording import record
    from bygones.studies import load_recipe

    if len(run) != 1 or until is None:
        raise DesignError(
            "a ledger of a recipe needs one RECIPE or STUDY and --until STEP. A script is put after `--`."
        )
    terminal.console.print(str(record(load_recipe(run[0]), seed, until, every, out)))


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="LEDGER", help="A ledger's file.")],
    other: Annotated[Path, typer.Argument(metavar="LEDGER", help="Another one's.")],
    as_json: Json = False,
) -> None:
    """Say where two ledgers' runs part, and in what. The exit code is 1 if they are not equal."""
    from bygones.ledger import part

    found = part(one, other)
    print(json.dumps({"equal": found.equal, **asdict(found)}, indent=2) if as_json else found)
    raise typer.Exit(0 if found.equal else 1)


@app.command()
def contract(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A ledger, the folder of a store or a bundle, or the URL of a store.",
        ),
    ],
    against: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Say what differs from this one's.")
    ] = None,
    study: StudyOption = None,
    as_json: Json = False,
) -> None:
    """Print a numeric and RNG contract, or compare two. Of a ledger, a store or a bundle."""
    from bygones import terminal
    from bygones.terms import differences, read_terms

    terms = read_terms(path, study)
    if against is None:
        if as_json:
            print(json.dumps(terms.to_dict(), indent=2))
        else:
            terminal.print_terms(terms)
        return
    found = differences(terms, read_terms(against, study))
    if as_json:
        rows = [{"what": what, "here": here, "there": there} for what, here, there in found]
        print(json.dumps({"equal": not found, "differences": rows}, indent=2))
    else:
        terminal.print_differences(found)
    raise typer.Exit(1 if found else 0)


@app.command()
def checklist(
    store: StoredStudy,
    study: StudyOption = None,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, for an appendix.")
    ] = False,
) -> None:
    """Fill in a study's reporting checklist. From what it recorded, and from nothing else."""
    from bygones import terminal
    from bygones.checklist import checklist, to_markdown

    filled = checklist(outcomes_of(store, study))
    if as_json:
        print(json.dumps(filled, indent=2))
    elif as_markdown:
        print(to_markdown(filled), end="")
    else:
        terminal.print_checklist(filled)


@app.command("list")
def list_members(
    kind: Annotated[str, typer.Argument(help="sources, interventions, orders, probes, metrics, …")],
    as_json: Json = False,
) -> None:
    """List what there is of a kind. Each with its first line of documentation."""
    from bygones import terminal
    from bygones.catalogues import CATALOGUES

    summary = CATALOGUES[kind].summary()
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    rows = list(summary.items())
    terminal.out.print(terminal.table("", (kind, ""), rows))


def _chosen(study: str, seeds: str | None) -> Any:
    from bygones.studies import load_study, parse_seeds

    chosen = load_study(study)
    return chosen if seeds is None else chosen.with_seeds(parse_seeds(seeds))


def _planned(
    study: str, seeds: str | None, store: str, lanes: str, device: str, workers: int
) -> Any:
    from bygones.measuring import plan
    from bygones.store import open_store
    from bygones.studies import parse_lanes

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
    from bygones import terminal
    from bygones.measuring import measure

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
    from bygones import terminal
    from bygones.stopping import anytime_estimates, measure_until
    from bygones.store import open_store
    from bygones.studies import parse_lanes

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
    from bygones import terminal
    from bygones.outcomes import read_manifest, read_outcomes
    from bygones.power import seeds_needed
    from bygones.stopping import judged_pairs

    outcomes = read_outcomes(planned.store, read_manifest(planned.store, planned.study.name))
    steps_a_seed = planned.steps_shared / len(planned.study.seeds)
    for arm, pilot in judged_pairs(outcomes).items():
        needed = seeds_needed(pilot, half_width=half_width)
        steps = needed.num_pairs * steps_a_seed
        time = terminal.duration(steps * planned.seconds_a_step / workers)
        terminal.out.print(f"{arm}: {needed} That is {steps:,.0f} steps, about {time}.")


def _report(store: str, out: Path, study: str | None, *, as_json: bool) -> None:
    from bygones import terminal
    from bygones.report import write_report

    if as_json:
        say_effects(store, study, as_json=True)
        return
    path = write_report(outcomes_of(store, study), out)
    terminal.out.print(f"Report: {path}")


def main() -> None:
    """Runs the command; every error becomes one sentence and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        status = app(arguments, standalone_mode=False)
        if status == 130:  # some versions of typer make this out of a KeyboardInterrupt
            raise KeyboardInterrupt
        if status:
            sys.exit(status)
    except BygonesError as error:
        print(getattr(error, "place", ""), end="", file=sys.stderr) if debug else None
        _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail(
            "stopped. What is finished is stored; run the same command again to go on.", 130, debug
        )
    except BrokenPipeError:
        os._exit(0)  # the reader of our output has seen enough
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            sentence = f"{usage()}{_before_the_script(arguments)} See `bygones --help`."
            _fail(sentence, getattr(error, "exit_code", 2), debug)
        _fail(
            f"an error that bygones did not expect: {type(error).__name__}: {error}. What is finished is "
            f"stored. Run again with --debug to see where, and please report it.",
            70,
            debug,
        )


def _before_the_script(arguments: list[str]) -> str:
    """What to do if the options of a script were taken for ours."""
    script = next((argument for argument in arguments if argument.endswith(".py")), None)
    if script is None or "--" in arguments or arguments[0] in ("run", "plan", "check"):
        return ""
    return f" If {script} is the script, put `--` before it: … -- {script} …"


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"bygones: {sentence}", file=sys.stderr)
    sys.exit(exit_code)
