"""Commands on records: ledgers, contracts, checklists, bundles."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bygones.cli import script_commands
from bygones.cli.options import (
    Json,
    SeedEnv,
    StoredStudy,
    StudyOption,
    beside,
    folder_store,
    outcomes_of,
)


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
    from bygones.cli import terminal
    from bygones.publish.bundle_study import bundle_study

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
    from bygones.cli import terminal
    from bygones.publish.bundle import verify_bundle

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
        script_commands.ledger_of_script(run, out, until, every, seed, seed_env, optimizer)
        return
    from bygones.cli import terminal
    from bygones.cli.load import load_recipe
    from bygones.core.errors import DesignError
    from bygones.study.record import record

    if len(run) != 1 or until is None:
        raise DesignError(
            "a ledger of a recipe needs one RECIPE or STUDY and --until STEP. A script is put after `--`."
        )
    terminal.console.print(str(record(load_recipe(run[0]), seed, until, every, out)))


def diff(
    one: Annotated[Path, typer.Argument(metavar="LEDGER", help="A ledger's file.")],
    other: Annotated[Path, typer.Argument(metavar="LEDGER", help="Another one's.")],
    as_json: Json = False,
) -> None:
    """Say where two ledgers' runs part, and in what. The exit code is 1 if they are not equal."""
    from bygones.store.ledger_diff import first_divergence

    found = first_divergence(one, other)
    print(json.dumps({"equal": found.equal, **asdict(found)}, indent=2) if as_json else found)
    raise typer.Exit(0 if found.equal else 1)


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


def checklist(
    store: StoredStudy,
    study: StudyOption = None,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, for an appendix.")
    ] = False,
) -> None:
    """Fill in a study's reporting checklist. From what it recorded, and from nothing else."""
    from bygones.cli import terminal
    from bygones.publish.checklist import checklist, to_markdown

    filled = checklist(outcomes_of(store, study))
    if as_json:
        print(json.dumps(filled, indent=2))
    elif as_markdown:
        print(to_markdown(filled), end="")
    else:
        terminal.print_checklist(filled)


def list_catalogue(
    kind: Annotated[str, typer.Argument(help="sources, interventions, orders, probes, metrics, …")],
    as_json: Json = False,
) -> None:
    """List what there is of a kind. Each with its first line of documentation."""
    from bygones.cli import terminal
    from bygones.cli.catalogues import CATALOGUES

    summary = CATALOGUES[kind].summary()
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    rows = list(summary.items())
    terminal.out.print(terminal.table("", (kind, ""), rows))
