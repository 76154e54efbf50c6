"""Ledger: a run's batches and state digests at each boundary, as a hash chain that anybody can check.

A file of JSON lines, written from the top and never changed:

    {"ledger": 1, "run": …, "seed": …, "every": k, "contract": {…}, "rng": {…}, "entry": E}
    {"step": s, "ids": …, "batches": …, "loss": …, "holds": {source: digest}, "entry": E}       each k steps
    {"end": number of entries, "header": the first line's E, "entry": E}

    E = SHA-256(P | newline | J)   J  the line's JSON without "entry": keys sorted, no blanks
                                   P  the E of the entry before; "" for the header and the first entry

`ids` and `batches` are chains themselves, over the ids of all examples and the contents of all batches up
to this boundary; `loss` is the last step's; `holds` has each source, and each random stream by its own.
So entries of equal runs are equal from the first to the last, and after the first difference none is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Self, cast

from bygones.core.errors import LedgerError
from bygones.core.values import Digest

FORMAT = 1

MOST_LINE = 1 << 24  # bytes: a file of holes is one endless line


class Writer:
    """Write one ledger, line by line, flushed, so that lines survive the process.

    Without `end`, as after a run that raised, a ledger lacks its last line and can still be read.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._file = _created(path)
        self._header = self._write({"ledger": FORMAT, **header}, "")
        self._last, self._count = "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file without a last line."""
        self._file.close()

    def add(self, line: Mapping[str, Any]) -> None:
        self._last = self._write(line, self._last)
        self._count += 1

    def end(self) -> Digest:
        """Write the last line, which makes truncation or additions detectable, and return its hash."""
        root_hash = self._write({"end": self._count, "header": self._header}, self._last)
        self._file.close()
        return root_hash

    def _write(self, line: Mapping[str, Any], previous: str) -> Digest:
        content = {key: value for key, value in line.items() if key != "entry"}
        entry = _entry_digest(content, previous)
        whole = self._file.tell()
        try:
            _write_all(self._file, f"{_json({**content, 'entry': entry})}\n".encode())
        except OSError as error:
            with suppress(OSError):  # what is there can be read, without its last line
                self._file.truncate(whole)
            raise LedgerError(
                f"cannot write on in the ledger {self._path}: {error.strerror}. It ends after a whole line, "
                f"without its last one. Make room, and write it anew under another name."
            ) from error
        return entry


def refuse_existing(path: Path) -> None:
    """Raise LedgerError where the path exists."""
    if os.path.lexists(path):
        raise LedgerError(
            f"there is a '{path}' already, and a ledger is never written over. Choose another name."
        )


def _write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes: an unbuffered file may take a part of them, as where a disk is nearly full."""
    while content:
        content = content[file.write(content) :]


def _created(path: Path) -> FileIO:
    """Create a new file; an existing one is refused, since a ledger is never changed."""
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb", buffering=0)
    except OSError as error:
        raise LedgerError(f"cannot write the ledger {path}: {error.strerror}.") from error


def write_ledger(
    path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> Digest:
    """Write a complete ledger, and return the hash of its last line."""
    with Writer(path, header) as writer:
        for line in lines:
            writer.add(line)
        return writer.end()


@dataclass(frozen=True)
class Ledger:
    """A ledger that was read and whose chain holds. `complete`: it has its last line."""

    header: dict[str, Any]
    entries: list[dict[str, Any]]
    complete: bool


def read_ledger(path: Path) -> Ledger:
    """Read a ledger and check every link. Raises `LedgerError` with the line that is wrong."""
    header: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    complete, previous, step, header_digest = False, "", -1, ""
    for number, line in enumerate(_lines_of(path), start=1):
        place = f"{path}, line {number}"
        content = {key: value for key, value in line.items() if key != "entry"}
        if complete:
            raise LedgerError(f"{place}: the ledger goes on after its last line.")
        if line.get("entry") != _entry_digest(content, previous):
            raise LedgerError(
                f"{place}: the chain is broken. The line, or one before it, is not the one that was written."
            )
        if number == 1:
            header = check_header(content, place)
            header_digest = str(line["entry"])
        elif "end" in content:
            complete = True
            if content != {"end": len(entries), "header": header_digest}:
                raise LedgerError(f"{place}: the last line closes another ledger than this one.")
        else:
            if check_entry(content, place)["step"] <= step:
                raise LedgerError(f"{place}: steps must rise from line to line.")
            previous, step = line["entry"], content["step"]
            entries.append(line)
    if not header:
        raise LedgerError(f"{path} is empty; expected a ledger.")
    return Ledger(header, entries, complete)


def read_header(path: Path) -> dict[str, Any]:
    """Read and check the first line alone."""
    for line in _lines_of(path):
        content = {key: value for key, value in line.items() if key != "entry"}
        if line.get("entry") != _entry_digest(content, ""):
            raise LedgerError(f"{path}, line 1: not the line that was written.")
        return check_header(content, f"{path}, line 1")
    raise LedgerError(f"{path} is empty; expected a ledger.")


def check_header(header: dict[str, Any], place: str) -> dict[str, Any]:
    if header.get("ledger") != FORMAT:
        raise LedgerError(
            f"{place}: not the first line of a ledger of format {FORMAT} (found {header.get('ledger')!r})."
        )
    return header


def check_entry(line: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the line of a boundary; raises `LedgerError` if it has no step, or holds no sources by name."""
    step = line.get("step")
    if type(step) is not int or not isinstance(line.get("holds", {}), dict):
        raise LedgerError(f"{place}: not the entry of a boundary (found step {step!r:.40}).")
    return line


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(MOST_LINE + 1), b""), start=1):
                if len(raw) > MOST_LINE:
                    raise LedgerError(f"{path}, line {number}: longer than any line of a ledger.")
                yield parse_line(raw, f"{path}, line {number}")
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror}.") from error


def parse_line(raw: bytes, place: str) -> dict[str, Any]:
    """Parse a line in its canonical form; another spelling of the same values is refused."""
    if not raw.endswith(b"\n"):
        raise LedgerError(
            f"{place}: the line was cut short, as when a run is killed while it writes. What stands before "
            f"it can be read without it."
        )
    try:
        line = json.loads(raw)
        written = _json(line).encode() + b"\n"
    except (ValueError, RecursionError):
        raise LedgerError(f"{place}: not a line of JSON.") from None
    if not isinstance(line, dict) or written != raw:
        raise LedgerError(f"{place}: not a line as a ledger writes it.")
    return cast(dict[str, Any], line)


def _entry_digest(line: Mapping[str, Any], previous: str) -> Digest:
    return hashlib.sha256(f"{previous}\n{_json(line)}".encode()).hexdigest()


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
