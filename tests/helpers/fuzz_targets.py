"""Fuzz targets: each reads bytes that somebody else may have written, and raises nothing but `BygonesError`.

target(data)   raises for a fault: another exception, or a reading that contradicts itself

Digests would stop a fuzzer at once. So what it makes is also signed anew, as an attacker would.
`benchmarks/fuzz.py` searches for faults; the tests call each target with the seeds in `tests/fuzz_seeds`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.study_recipes import plain, small

from bygones.core.errors import BygonesError
from bygones.publish.bundle import layout, verify_bundle, write_bundle
from bygones.publish.bundle.archive import files_of, open_bundle, write_zip
from bygones.publish.result import Result
from bygones.store import FolderStore, MemoryStore, unpack, unpack_meta
from bygones.store.contracts import read_contracts
from bygones.store.ledger import read_header, read_ledger, write_ledger
from bygones.store.ledger_diff import first_divergence
from bygones.store.outcomes import read_manifest, read_outcomes, write_manifest
from bygones.study.measure import measure
from bygones.study.snapshot_bytes import decode

SEEDS = Path(__file__).parents[1] / "fuzz_seeds"


@cache
def base() -> tuple[FolderStore, Path]:
    """A small study in a store, and its bundle; both are left to the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix="bygones-fuzz-"))
    store = FolderStore(folder / "store")
    measure(small(("reset",), (0, 1), range(2), recipe=plain), store)
    write_bundle(store, folder / "bundle", date="2026-01-31")
    return store, folder / "bundle"


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bygones-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------ what is read


def ledger(data: bytes) -> None:
    """A ledger, as it is and with its chain made anew; and compared with one that is whole."""
    with scratch() as folder:
        whole = folder / "whole"
        write_ledger(whole, {"run": "a", "every": 1}, [{"step": n, "holds": {}} for n in range(4)])
        for name, content in (("raw", data), ("signed", signed_ledger(data))):
            path = folder / name
            path.write_bytes(content)
            for one, other in ((path, whole), (whole, path), (path, path)):
                with suppress(BygonesError):
                    str(first_divergence(one, other))
            with suppress(BygonesError):
                read_header(path)
                read_contracts(path)
            with suppress(BygonesError):
                read = read_ledger(path)
                if read.complete:
                    write_ledger(folder / f"{name}-again", read.header, read.entries)
                    assert (folder / f"{name}-again").read_bytes() == content, "not what was read"


def signed_ledger(data: bytes) -> bytes:
    """The lines of a ledger that are JSON objects, with their digests made anew."""
    previous, first, lines = "", "", []
    for raw in data.split(b"\n"):
        try:
            line = json.loads(raw)
            said = {key: value for key, value in line.items() if key != "entry"}
            if "header" in said:
                said["header"] = first
            text = _canonical(said)
            entry = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
            lines.append(_canonical({**said, "entry": entry}).encode() + b"\n")
        except (ValueError, AttributeError, RecursionError):
            continue
        first = first or entry
        previous = entry if len(lines) > 1 else ""
    return b"".join(lines)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def record(data: bytes) -> None:
    """A record of a store, under the address of the studies."""
    with scratch() as folder:
        store = FolderStore(folder)
        write_manifest(store, read_manifest(base()[0]))
        (path,) = folder.glob("records/*/*/*.json")
        path.write_bytes(data)
        with suppress(BygonesError):
            read_study(store)


def manifest(data: bytes) -> None:
    """The record of a study whose fields were changed; see `edited`."""
    store, _ = base()
    changed = edited(read_manifest(store).to_dict(), data)
    kept = MemoryStore()
    write_manifest(kept, read_manifest(store))
    (address,) = kept._records
    kept.write_record(address, next(iter(kept.records(address))), changed)
    with suppress(BygonesError):
        found = read_manifest(kept)
        Result(read_outcomes(store, found))


def read_study(store: FolderStore) -> None:
    read_outcomes(store, read_manifest(store))


def safetensors(data: bytes) -> None:
    """An object: arrays or a snapshot, with the length of its header as it is, and put right."""
    for content in (data, len(data).to_bytes(8, "little") + data):
        for read in (unpack, unpack_meta, decode):
            with suppress(BygonesError):
                read(content)


def archive(data: bytes) -> None:
    """A zip: what is accepted is what writing its files gives."""
    with scratch() as folder:
        (folder / "a.zip").write_bytes(data)
        with suppress(BygonesError), open_bundle(folder / "a.zip") as unpacked:
            write_zip(unpacked, folder / "again.zip")
            assert (folder / "again.zip").read_bytes() == data, "more in it than its files"


def bundle(data: bytes) -> None:
    """A bundle of which one file was changed: `NAME`, a line's end, and content, or changes of its fields.

    The listing is made anew, if it is not the listing that was changed.
    """
    _, whole = base()
    asked, _, content = data.partition(b"\n")
    names = files_of(whole)
    name = asked.decode(errors="replace")
    name = name if name in names else names[sum(asked) % len(names)]
    with scratch() as folder:
        made = Path(shutil.copytree(whole, folder / "bundle"))
        if name.endswith(".json"):
            content = layout_json(edited(json.loads((whole / name).read_bytes()), content))
        (made / name).write_bytes(content)
        if name != layout.LISTING:
            rest = [one for one in names if one != layout.LISTING]
            digests = {one: layout.sha256(made / one) for one in rest}
            (made / layout.LISTING).write_bytes(layout.listing(digests))
        with suppress(BygonesError):
            verify_bundle(made)


def layout_json(value: Any) -> bytes:
    try:
        return layout.to_json(value)
    except ValueError:  # a number that is none
        return json.dumps(value).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "ledger": ledger,
    "record": record,
    "manifest": manifest,
    "safetensors": safetensors,
    "zip": archive,
    "bundle": bundle,
}

# ------------------------------------------------------------------ changes of fields


def edited(value: Any, changes: bytes) -> Any:
    """A JSON value with some of its parts replaced: each line of `changes` is `NUMBER:JSON`.

    The number counts all parts from the outermost on; without JSON the part is removed.

    >>> edited({"a": [1, 2], "b": 3}, b"3:null\\n4:")
    {'a': [1, None]}
    """
    holder = {"": json.loads(json.dumps(value))}
    places = list(_places(holder))
    for line in changes.split(b"\n")[:20]:
        number, colon, text = line.partition(b":")
        if not colon or not number.strip().isdigit():
            continue
        parent, key = places[int(number[:6]) % len(places)]
        try:
            new = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError):
            new = text.decode(errors="replace")
        with suppress(KeyError, IndexError):
            if text.strip():
                parent[key] = new
            else:
                del parent[key]
    return holder.get("")


def _places(parent: Any) -> Iterator[tuple[Any, Any]]:
    items = list(parent.items() if isinstance(parent, dict) else enumerate(parent))
    for key, value in items:
        yield parent, key
        if isinstance(value, dict | list):
            yield from _places(value)


def seeds_of(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((SEEDS / name).iterdir())}
