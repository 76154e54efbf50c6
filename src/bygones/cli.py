"""The command line: argument parsing and nothing else.

Modules that need torch are imported inside the commands, so that help and reports come at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from bygones.errors import BygonesError

app = typer.Typer(
    help="How much does a trained network depend on its training history?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
Workers = Annotated[int, typer.Option(min=1, help="Processes to train with, one thread each.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for machines.")]
StudyOption = Annotated[
    str | None, typer.Option("--study", help="Which study, if the store holds several.")
]

_CORES = os.cpu_count() or 1


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for store and report.")] = Path("bygones-demo"),
    seeds: Seeds = None,
    workers: Workers = _CORES,
) -> None:
    """Measure what a small network on handwritten digits remembers, and write a report."""
    _run("digits", seeds, out / "store", workers)
    _report(out / "store", out, None, as_json=False)


@app.command()
def run(
    study: StudyName,
    seeds: Seeds = None,
    store: StoreFolder = Path("bygones-store"),
    workers: Workers = _CORES,
    as_json: Json = False,
) -> None:
    """Train what is missing of a study, and say what was found. Run it again to go on or to add to it."""
    name = _run(study, seeds, store, workers)
    _say(store, name, as_json=as_json)


@app.command()
def plan(
    study: StudyName,
    seeds: Seeds = None,
    store: StoreFolder = Path("bygones-store"),
    workers: Workers = _CORES,
    as_json: Json = False,
) -> None:
    """Say what a study would train, store and cost, with and without sharing prefixes."""
    from bygones import terminal

    planned = _planned(study, seeds, store)
    if as_json:
        print(json.dumps(terminal.plan_dict(planned, workers), indent=2))
        return
    for line in terminal.plan_lines(planned, workers):
        terminal.out.print(line)
    terminal.out.print("Memory found in it:")
    terminal.out.print(terminal.inventory_table(planned.attributes["sources"]))
    for finding in planned.attributes["findings"]:
        terminal.out.print(f"Note: {finding}")


@app.command()
def report(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="The folder that a run was stored in.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write it (default: beside STORE).")
    ] = None,
    study: StudyOption = None,
    as_json: Json = False,
) -> None:
    """Write the HTML report of a stored study; with --json, print its effects and digests instead."""
    _report(store, out or store.parent / f"{store.name}-report", study, as_json=as_json)


@app.command()
def check(
    study: StudyName,
    as_json: Json = False,
) -> None:
    """Prove that a recipe can be forked: nothing that it carries from step to step is forgotten."""
    from bygones.measuring import certify, plan
    from bygones.studies import load_study

    certificate = certify(plan(load_study(study)))
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


@app.command("list")
def list_members(
    kind: Annotated[str, typer.Argument(help="sources, interventions, orders, probes, metrics, …")],
    as_json: Json = False,
) -> None:
    """List what there is of a kind, each with its first line of documentation."""
    from bygones import terminal
    from bygones.catalogues import CATALOGUES

    summary = CATALOGUES[kind].summary()
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    rows = list(summary.items())
    terminal.out.print(terminal.table("", (kind, ""), rows))


def _planned(study: str, seeds: str | None, store: Path) -> Any:
    from bygones.measuring import plan
    from bygones.store import FolderStore
    from bygones.studies import load_study, parse_seeds

    chosen = load_study(study)
    if seeds is not None:
        chosen = chosen.with_seeds(parse_seeds(seeds))
    return plan(chosen, FolderStore(store))


def _run(study: str, seeds: str | None, store: Path, workers: int) -> str:
    from bygones import terminal
    from bygones.executors import Processes, Serial
    from bygones.measuring import measure

    planned = _planned(study, seeds, store)
    for line in terminal.plan_lines(planned, workers):
        terminal.console.print(line)
    executor = Processes(workers) if workers > 1 else Serial()
    with terminal.progress(planned, planned.study.name):
        measure(planned.study, executor=executor, planned=planned)
    return planned.study.name


def _outcomes(store: Path, study: str | None) -> Any:
    from bygones.errors import StoreError
    from bygones.outcomes import read_manifest, read_outcomes
    from bygones.store import FolderStore

    if not store.is_dir():
        raise StoreError(
            f"there is no store at '{store}'. `bygones run STUDY --store {store}` makes one."
        )
    folder = FolderStore(store)
    return read_outcomes(folder, read_manifest(folder, study))


def _report(store: Path, out: Path, study: str | None, *, as_json: bool) -> None:
    from bygones import terminal
    from bygones.report import write_report

    if as_json:
        _say(store, study, as_json=True)
        return
    path = write_report(_outcomes(store, study), out)
    terminal.out.print(f"Report: {path}")


def _say(store: Path, study: str | None, *, as_json: bool) -> None:
    """The effects of a stored study: all of them as JSON, or the last horizon's as sentences."""
    from bygones import terminal
    from bygones.effects import all_effects

    outcomes = _outcomes(store, study)
    if as_json:
        found = [effect.to_dict() for effect in all_effects(outcomes, metrics=_metrics(outcomes))]
        head = {
            name: outcomes.attrs[name]
            for name in ("study", "recipe", "digests", "orders", "contract")
        }
        print(json.dumps({**head, "effects": found}, indent=2))
        return
    for effect in all_effects(
        outcomes, metrics=_metrics(outcomes)[:1], steps=[int(outcomes.step[-1])]
    ):
        terminal.out.print(str(effect))
    terminal.console.print(f"Report with figures: bygones report {store}")


def _metrics(outcomes: Any) -> tuple[str, ...]:
    return ("tv", "disagreement", "accuracy", "nll") if "logits" in outcomes else ("rms",)


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
            _fail(f"{usage()} See `bygones --help`.", getattr(error, "exit_code", 2), debug)
        _fail(
            f"an error that bygones did not expect: {type(error).__name__}: {error}. What is finished is "
            f"stored. Run again with --debug to see where, and please report it.",
            70,
            debug,
        )


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"bygones: {sentence}", file=sys.stderr)
    sys.exit(exit_code)
