"""What several commands share: their options, and how a store is read and its effects are said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

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
Lanes = Annotated[
    str,
    typer.Option(
        metavar="auto|NUMBER",
        help="How many seeds take each step together; 1: one by one; auto: what is fastest here.",
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


def outcomes_of(store: Path, study: str | None) -> Any:
    from bygones.outcomes import read_manifest, read_outcomes

    folder = folder_store(store)
    return read_outcomes(folder, read_manifest(folder, study))


def folder_store(store: Path) -> Any:
    from bygones.errors import StoreError
    from bygones.store import FolderStore

    if not store.is_dir():
        raise StoreError(
            f"there is no store at '{store}'. `bygones run STUDY --store {store}` makes one."
        )
    return FolderStore(store)


def say_effects(store: Path, study: str | None, *, as_json: bool) -> None:
    """The effects of a stored study: all of them as JSON, or the last horizon's as sentences."""
    from bygones import terminal
    from bygones.effects import all_effects, usual_metrics

    outcomes = outcomes_of(store, study)
    if as_json:
        found = [
            effect.to_dict() for effect in all_effects(outcomes, metrics=usual_metrics(outcomes))
        ]
        head = {
            name: outcomes.attrs[name]
            for name in ("study", "recipe", "digests", "orders", "contract")
        }
        print(json.dumps({**head, "effects": found}, indent=2))
        return
    for effect in all_effects(
        outcomes, metrics=usual_metrics(outcomes)[:1], steps=[int(outcomes.step[-1])]
    ):
        terminal.out.print(str(effect))
    terminal.console.print(f"Report with figures: bygones report {store}")
