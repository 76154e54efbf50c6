"""Commands on a store: list its studies, measure what they take, remove one."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bygones.cli.options import Json, StoredStudy, StudyName
from bygones.cli.resources import existing_store, lasting_store
from bygones.core.errors import DesignError

if TYPE_CHECKING:
    from bygones.store.outcomes import Manifest


def list_studies(store: StoredStudy, as_json: Json = False) -> None:
    """List the studies of a store.

    \b
    Example:
      bygones store ls bygones-store
    """
    from bygones.cli import terminal
    from bygones.store import open_existing
    from bygones.store.outcomes import read_manifests

    lasting_store(store)
    found = [
        _describe(name, one) for name, one in sorted(read_manifests(open_existing(store)).items())
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        terminal.out.print(f"There is no finished study in {store}.")
        return
    rows = [[_cell(value) for value in one.values()] for one in found]
    terminal.out.print(terminal.table("", ("study", "seeds", "arms", "fork at", "horizons"), rows))


def _describe(name: str, manifest: Manifest) -> dict[str, object]:
    fork_at = manifest.facts.fork_at
    return {
        "study": name,
        "seeds": len(manifest.seeds),
        "arms": sum(arm.role == "treated" for arm in manifest.facts.arms),
        "fork_at": fork_at,
        "horizons": [step - fork_at for step in manifest.steps],
    }


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def measure_size(store: StoredStudy, as_json: Json = False) -> None:
    """Show what each study of a store takes on the disk.

    Studies that share a past share its objects; removing one of them frees only what is its own.

    \b
    Example:
      bygones store size bygones-store
    """
    from bygones.cli import terminal
    from bygones.store.contents import measure_store

    found = measure_store(existing_store(store))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    rows = [
        (one.study, terminal.size(one.own_bytes), terminal.size(one.shared_bytes))
        for one in found.studies
    ]
    rows.append(("in no finished study", terminal.size(found.unlisted), ""))
    rows.append(("records", terminal.size(found.records), ""))
    if found.damaged:
        rows.append(("damaged files, set aside", terminal.size(found.damaged), ""))
    rows.append(("all", terminal.size(found.total), ""))
    terminal.out.print(terminal.table("", ("", "its own", "shared with others"), rows))


def remove(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The folder of a store.")],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The name of the study to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a study from a store.

    What another study of the store needs is kept. Training the study again makes everything anew.

    \b
    Example:
      bygones store rm bygones-store torchs_ema --yes
    """
    from bygones.cli import terminal
    from bygones.core.text import format_count
    from bygones.store.contents import remove_study
    from bygones.store.outcomes import read_manifest

    there = existing_store(store)
    read_manifest(there, study)  # a name that is not there is an error before anything is asked
    if not yes:
        if not sys.stdin.isatty():
            raise DesignError(f"this deletes {study} from {store}. Add --yes if that is meant.")
        typer.confirm(f"Delete {study} from {store}, with what was trained for it?", abort=True)
    gone = remove_study(there, study)
    if as_json:
        print(json.dumps(asdict(gone), indent=2))
        return
    terminal.out.print(
        f"Deleted {study}: {format_count(gone.num_objects, 'object')}, {terminal.size(gone.num_bytes)}, and "
        f"{format_count(gone.num_records, 'record')}."
    )


def export(
    record: Annotated[
        str,
        typer.Argument(
            metavar="RECORD",
            help="A store's folder or URL, a ledger (.jsonl), or the JSON of `bygones audit resume --json`.",
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="TRACKER", help="mlflow, tensorboard or wandb (offline).")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="A folder, or for MLflow a tracking URI (default: sqlite:///mlflow.db, runs, or here).",
        ),
    ] = None,
    study: StudyName = None,
) -> None:
    """Export a study, a ledger or a resume check to a tracker.

    \b
    Example:
      bygones store export bygones-store --to tensorboard
    """
    from bygones.cli import terminal
    from bygones.publish.export import TRACKERS
    from bygones.publish.export.runs import read_run

    tracker = TRACKERS[to]
    where = tracker.write(read_run(record, study), out or tracker.default_place)
    terminal.out.print(f"Exported: {where}")
