"""Recorded runs: run the scripts of two ledgers again, and find the first operation that differs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bygones.attach.isolation.script import Script
from bygones.audit.operations.divergence import DivergenceReport, find_divergence
from bygones.core.code_digest import source_digest
from bygones.core.errors import LedgerError
from bygones.store.ledger import read_header


def find_recorded_divergence(
    one: Path,
    other: Path,
    home: Path,
    until: int,
    on_run: Callable[[str], None] = lambda _: None,
) -> DivergenceReport:
    """Run what two ledgers record again up to boundary `until`, and find the first operation that differs.

    `home`: the folder that the scripts were called from. Raises `LedgerError` for the ledger of a recipe,
    and for a script that is not there or is another one now.
    """
    mine, theirs = _read(one, home), _read(other, home)
    (first, seed), (second, other_seed) = mine, theirs
    return find_divergence(first, second, home, (seed, other_seed), until, on_run)


def _read(ledger: Path, home: Path) -> tuple[Script, int]:
    """Return the script of a ledger, and its seed."""
    header = read_header(ledger)
    if "files" not in header:
        raise LedgerError(
            f"{ledger} records a recipe, {header.get('run')}; --deep runs scripts again. Expected a ledger "
            f"that `bygones ledger write -- SCRIPT` wrote."
        )
    if "processes" in header:
        raise LedgerError(
            f"{ledger} records a job of {header['processes']} processes, and --deep runs scripts of one. "
            f"Leave it out; the ledger of each rank lies beside this one."
        )
    path, *arguments = shlex.split(str(header["run"]))
    _check_files(ledger, home / path, header["files"])
    kind, _, name = str(header.get("seeded_by", "")).rpartition(" ")
    seed_env = name if kind.endswith("variable") else None
    clock = int(header.get("optimizer", 0))
    return Script(path, tuple(arguments), seed_env, clock), int(header["seed"])


def _check_files(ledger: Path, script: Path, files: Mapping[str, Any]) -> None:
    """Raise `LedgerError` unless the script and its modules are those that the ledger names."""
    for name, digest in files.items():
        file = script.resolve().parent / name
        if not file.is_file():
            raise LedgerError(
                f"{ledger} records a run of {name} in {file.parent}, where there is no such file. Run the "
                f"command in the folder in which the ledger was written."
            )
        if source_digest(file) != digest:
            raise LedgerError(
                f"{file} is not what {ledger} records: it was changed since. Check that version out, or give "
                f"both scripts to `bygones audit divergence`."
            )
