"""Commands on records: ledgers, contracts, bundles, checklists, catalogues."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bygones.attach.isolation.environment import begin_alone
from bygones.cli import script_study
from bygones.cli.command_types import takes_script
from bygones.cli.options import (
    EveryBoundary,
    Json,
    LedgerOut,
    Optimizer,
    RecipeTarget,
    Seed,
    SeedEnv,
    StoredStudy,
    StudyName,
    Until,
)
from bygones.cli.resources import existing_store, path_beside, read_result


def write_ledger(
    ctx: typer.Context,
    target: RecipeTarget,
    out: LedgerOut,
    every: EveryBoundary = 10,
    seed: Seed = 0,
    until: Until = None,
    seed_env: SeedEnv = None,
    optimizer: Optimizer = 0,
) -> None:
    """Train a recipe or run a script, and write its ledger.

    A ledger has a line for each recorded boundary: the examples shown so far, the loss, and a digest of
    every source. The lines form a hash chain.

    \b
    Examples:
      bygones ledger write digits --until 300 --out a.jsonl
      bygones ledger write --out b.jsonl -- examples/scripts/torchs_ema.py
    """
    if takes_script(ctx, target):
        script_study.record(target, out, every, seed, seed_env, optimizer)
        return
    from bygones.cli import terminal
    from bygones.cli.load import load_recipe
    from bygones.core.errors import DesignError
    from bygones.study.record import record

    if until is None:
        raise DesignError(
            f"the ledger of a recipe needs --until STEP, the step to train '{target[0]}' to. If it is a "
            f"script, put `--` before it."
        )
    terminal.console.print(str(record(load_recipe(target[0]), seed, until, every, out)))


def diff(
    one: Annotated[Path, typer.Argument(metavar="LEDGER", help="A ledger's file.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another ledger's file.")],
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Run both scripts again up to there, and name the first torch operation that differs.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Report the first step at which two ledgers diverge, and how.

    The exit code is 1 if they are not equal.

    \b
    Examples:
      bygones ledger diff a.jsonl b.jsonl
      bygones ledger diff --deep a.jsonl b.jsonl
    """
    if deep:
        begin_alone()
    from bygones.store.ledger_diff import first_divergence

    found = first_divergence(one, other)
    said: dict[str, Any] = {"equal": found.equal, **asdict(found)}
    if not as_json:
        print(found)
    if deep and found.step is not None:
        from bygones.audit.operations.recorded_runs import find_recorded_divergence
        from bygones.cli import terminal

        operation = find_recorded_divergence(
            one, other, Path.cwd(), found.step, lambda run: terminal.console.print(f"{run} …")
        )
        said["deep"] = operation.to_dict()
        if not as_json:
            print(operation)
    if as_json:
        print(json.dumps(said, indent=2))
    raise typer.Exit(0 if found.equal else 1)


def contract(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A ledger's file, a store's folder or URL, a bundle."),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="List the differences from this one's contracts."),
    ] = None,
    study: StudyName = None,
    as_json: Json = False,
) -> None:
    """Print the numeric and the RNG contract of a record.

    With --against, the exit code is 1 if there is a difference.

    \b
    Examples:
      bygones ledger contract a.jsonl
      bygones ledger contract a.jsonl --against b.jsonl
    """
    from bygones.cli import terminal
    from bygones.store.contracts import differences, read_contracts

    terms = read_contracts(path, study)
    if against is None:
        if as_json:
            print(json.dumps(terms.to_dict(), indent=2))
        else:
            terminal.print_terms(terms)
        return
    found = differences(terms, read_contracts(against, study))
    if as_json:
        rows = [{"what": what, "here": here, "there": there} for what, here, there in found]
        print(json.dumps({"equal": not found, "differences": rows}, indent=2))
    else:
        terminal.print_differences(found)
    raise typer.Exit(1 if found else 0)


def write_bundle(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The folder of a store.")],
    study: StudyName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The folder to write, or a file that ends in .zip (default: STORE-bundle).",
        ),
    ] = None,
    license: Annotated[
        str, typer.Option(metavar="SPDX", help="SPDX identifier of the licence, like CC-BY-4.0.")
    ] = "not stated",
    date: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Day of publication, like 2026-01-31 (default: the day of the last outcome).",
        ),
    ] = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Leave the HTML report out.")
    ] = False,
) -> None:
    """Write a stored study as one self-contained folder or zip.

    It holds the design, outcomes, ledgers, effects, code, report and metadata. Its digest is printed, to be
    published with it.

    \b
    Example:
      bygones bundle write bygones-store --out study.zip --license CC-BY-4.0
    """
    from bygones.cli import terminal
    from bygones.publish.bundle_study import bundle_study

    made = bundle_study(
        existing_store(store),
        out or path_beside(store, "bundle"),
        study,
        license=license,
        date=date,
        with_report=not no_report,
    )
    if made.why_no_code:
        terminal.console.print(f"Note: the code is not included: {made.why_no_code}.")
    terminal.out.print(f"Bundle: {made.path}")
    terminal.out.print(f"Digest of the bundle, to be published with it: {made.digest}")


def verify_bundle(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder or zip.")],
    digest: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="Require this digest, known from a publication."),
    ] = None,
    rerun: Annotated[
        int, typer.Option(metavar="N", min=0, help="Train N seeds again; needs --run-code.")
    ] = 0,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Allow the code in the bundle to be run.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0.0,
            help="Accept predictions within X of the recorded ones under another numeric contract.",
        ),
    ] = 1e-3,
    as_json: Json = False,
) -> None:
    """Verify a bundle's files, chains and effects.

    Every file and hash chain is checked, and the effects are computed again from the outcomes. With
    --rerun, seeds are trained again and compared.

    \b
    Example:
      bygones bundle verify study.zip
    """
    from bygones.cli import terminal
    from bygones.publish.bundle import verify_bundle

    found = verify_bundle(path, digest=digest, rerun=rerun, run_code=run_code, tolerance=tolerance)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    for what, said in [*found.checks, *([("run again", found.rerun)] if found.rerun else [])]:
        terminal.out.print(f"{what:<10} {said}")
    terminal.out.print(f"Digest of the bundle: {found.digest}")
    if digest is None:
        terminal.console.print(
            "The bundle is consistent. Only --digest shows that it is the one that was published."
        )


def checklist(
    store: StoredStudy,
    study: StudyName = None,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, for an appendix.")
    ] = False,
) -> None:
    """Fill in the reporting checklist of a stored study.

    Each item is answered from what the study recorded, flagged, or marked as not recorded.

    \b
    Example:
      bygones store checklist bygones-store --markdown
    """
    from bygones.cli import terminal
    from bygones.publish.checklist import checklist, to_markdown

    filled = checklist(read_result(store, study).outcomes)
    if as_json:
        print(json.dumps(filled, indent=2))
    elif as_markdown:
        print(to_markdown(filled), end="")
    else:
        terminal.print_checklist(filled)


def list_catalogue(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="sources, interventions, orders, probes, metrics, estimators, executors, quantities, "
            "regimes, worlds or sections.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """List a catalogue: sources, interventions, metrics and others.

    \b
    Example:
      bygones list interventions
    """
    from bygones.cli import terminal
    from bygones.cli.catalogues import summarize

    summary = summarize(kind)
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    terminal.out.print(terminal.table("", (kind, ""), list(summary.items())))
