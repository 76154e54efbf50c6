"""What a run was shown and what it carried at each boundary, as a hash chain that anybody can check.

A file of JSON lines, written from the top and never changed:

    {"ledger": 1, "run": …, "seed": …, "every": k, "streams": […], "contract": {…}, "entry": E}
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
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from xxhash import xxh3_128

from bygones.digest import array_of, chunks, is_array
from bygones.errors import LedgerError
from bygones.values import Digest

FORMAT = 1

_HEADS: dict[
    Any, bytes
] = {}  # how type and shape are written, made once: a batch is like the last one


def chained(entry: str, batch: Any) -> str:
    """The next link of a chain over the contents of batches: xxh3 of the last link and of this batch."""
    hasher = xxh3_128(entry.encode())
    for part in _contents(batch):
        hasher.update(part)
    return hasher.hexdigest()


def quick(value: Any) -> str:
    """xxh3 of a value's canonical bytes: to tell states apart at every step, at the speed of memory."""
    hasher = xxh3_128()
    for chunk in chunks(value):
        hasher.update(chunk)
    return hasher.hexdigest()


def entry(
    step: int, ids: str, batches: str, loss: float | None, holds: Mapping[str, str]
) -> dict[str, Any]:
    """One entry, not yet chained. JSON has no NaN, so a loss that is no number is written in words."""
    number = loss if loss is None or math.isfinite(loss) else str(loss)
    return {"step": step, "ids": ids, "batches": batches, "loss": number, "holds": dict(holds)}


def held(states: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`holds` of an entry: a digest of each source's state, and of each random stream's by its own."""
    holds = {name: quick(state) for name, state in states.items() if name != "streams"}
    streams = states.get("streams", {})
    for name in sorted({leaf.partition("/")[0] for leaf in streams}):
        mine = {leaf: v for leaf, v in streams.items() if leaf.partition("/")[0] == name}
        holds[f"streams/{name}"] = quick(mine)
    return holds


class Writer:
    """Writes one ledger, line by line; what is written is on the disk before the next step begins."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("x", encoding="utf-8")
        self._header = self._write({"ledger": FORMAT, **header}, "")
        self._last, self._count = "", 0

    def add(self, line: Mapping[str, Any]) -> None:
        self._last = self._write(line, self._last)
        self._count += 1

    def end(self) -> Digest:
        """Closes the ledger: after this line it cannot be cut short or gone on with unnoticed."""
        sealed = self._write({"end": self._count, "header": self._header}, self._last)
        self._file.close()
        return sealed

    def _write(self, line: Mapping[str, Any], previous: str) -> Digest:
        sealed = _seal(line, previous)
        self._file.write(_json({**line, "entry": sealed}) + "\n")
        self._file.flush()
        return sealed


def write_ledger(
    path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> Digest:
    """Writes a whole ledger, and returns the seal of its last line."""
    writer = Writer(path, header)
    for line in lines:
        writer.add(line)
    return writer.end()


@dataclass(frozen=True)
class Ledger:
    """A ledger that was read and whose chain holds. `whole`: it has its last line."""

    header: dict[str, Any]
    entries: list[dict[str, Any]]
    whole: bool


def read_ledger(path: Path) -> Ledger:
    """Reads a ledger and checks every link of it. Raises `LedgerError` with the line that is wrong."""
    header: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    whole, previous, step, sealed = False, "", -1, ""
    for number, line in enumerate(_lines_of(path), start=1):
        place = f"{path}, line {number}"
        content = {key: value for key, value in line.items() if key != "entry"}
        if whole:
            raise LedgerError(f"{place}: the ledger goes on after its last line.")
        if line.get("entry") != _seal(content, previous):
            raise LedgerError(
                f"{place}: the chain is broken. The line, or one before it, is not the one that was written."
            )
        if number == 1:
            header = _checked_header(content, place)
            sealed = str(line["entry"])
        elif "end" in content:
            whole = True
            if content != {"end": len(entries), "header": sealed}:
                raise LedgerError(f"{place}: the last line closes another ledger than this one.")
        else:
            if not isinstance(content.get("step"), int) or content["step"] <= step:
                raise LedgerError(f"{place}: steps must rise from line to line.")
            previous, step = line["entry"], content["step"]
            entries.append(line)
    if not header:
        raise LedgerError(f"{path} is empty; expected a ledger.")
    return Ledger(header, entries, whole)


def _checked_header(header: dict[str, Any], place: str) -> dict[str, Any]:
    if header.get("ledger") != FORMAT:
        raise LedgerError(
            f"{place}: not the first line of a ledger of format {FORMAT} (found {header.get('ledger')!r})."
        )
    return header


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield _parsed(raw, f"{path}, line {number}")
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror}.") from error


def _parsed(raw: bytes, place: str) -> dict[str, Any]:
    """A line as it was written, to the byte: another spelling of the same values is another line."""
    try:
        line = json.loads(raw)
        written = _json(line).encode() + b"\n"
    except (ValueError, RecursionError):
        raise LedgerError(f"{place}: not a line of JSON.") from None
    if not isinstance(line, dict) or written != raw:
        raise LedgerError(f"{place}: not a line as a ledger writes it.")
    return line


def _seal(line: Mapping[str, Any], previous: str) -> Digest:
    return hashlib.sha256(f"{previous}\n{_json(line)}".encode()).hexdigest()


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _contents(batch: Any) -> Iterator[bytes | memoryview]:
    """The contents of a batch's tensors and arrays, and the text of what is neither."""
    if is_array(batch):
        array = array_of(batch)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        kind = (array.dtype, array.shape)
        if kind not in _HEADS:
            _HEADS[kind] = f"{array.dtype.str}{array.shape}".encode()
        yield _HEADS[kind]
        # What numpy lends to nobody (times, and arrays of no size) goes by its bytes.
        yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
    elif isinstance(batch, Mapping):
        for key, item in batch.items():
            yield str(key).encode()
            yield from _contents(item)
    elif isinstance(batch, list | tuple):
        for item in batch:
            yield from _contents(item)
    elif isinstance(batch, bool | int | float | str | bytes | None):
        yield repr(batch).encode()


# ------------------------------------------------------------------ two ledgers


@dataclass(frozen=True)
class Parting:
    """Where two runs part: the first boundary that differs, what differs there, and what followed.

    `first` is in causal order: randomness, data, schedules, everything else, the weights last. `followed`
    gives, for each other thing, the first boundary at which it differed too. `step` is None if the two are
    equal as far as both go, which is to boundary `until`.
    """

    step: int | None
    before: int | None
    first: tuple[str, ...]
    followed: tuple[tuple[str, int], ...]
    until: int
    headers: tuple[str, ...]

    def __str__(self) -> str:
        also = f" Their headers differ in: {', '.join(self.headers)}." if self.headers else ""
        if self.step is None:
            return f"The two ledgers are equal up to boundary {self.until}, where the shorter ends.{also}"
        since = "from the start on" if self.before is None else f"after boundary {self.before}"
        later = "".join(f" {name} follows at {step}." for name, step in self.followed)
        return (
            f"The two runs part {since}: at boundary {self.step} they differ in {', '.join(self.first)}."
            f"{later}{also}"
        )


def part(one: Path, other: Path) -> Parting:
    """Where the runs of two ledgers part, by bisection along their chains.

    Reads some thirty lines of each file, and then those from the parting to where all has parted (at most
    a thousand). The chains are taken at their word; `read_ledger` checks them.
    """
    with _Bisected.open(one) as mine, _Bisected.open(other) as theirs:
        if mine.header.get("every") != theirs.header.get("every"):
            raise LedgerError(
                f"{one} has an entry every {mine.header.get('every')} steps and {other} every "
                f"{theirs.header.get('every')}; to be compared they need the same steps."
            )
        low, high = 0, min(mine.last, theirs.last)
        if _same(mine.at_most(high), theirs.at_most(high)):
            return Parting(None, None, (), (), high, _headers(mine.header, theirs.header))
        while low < high:  # the first step at which they are not the same
            middle = (low + high) // 2
            if _same(mine.at_most(middle), theirs.at_most(middle)):
                low = middle + 1
            else:
                high = middle
        before = mine.at_most(low - 1)
        first, followed = _spreading(mine.onwards(low), theirs.onwards(low))
        return Parting(
            step=low,
            before=None if before is None else before["step"],
            first=first,
            followed=followed,
            until=min(mine.last, theirs.last),
            headers=_headers(mine.header, theirs.header),
        )


def fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """All that an entry says, by name, in causal order."""
    flat = {**line.get("holds", {}), **{k: line.get(k) for k in ("ids", "batches", "loss")}}
    return dict(sorted(flat.items(), key=lambda item: _causal(item[0])))


_FOLLOWED = 1000
_LAST = ("loss", "gradients", "moments", "averages", "batchnorm", "weights")


def _causal(name: str) -> tuple[int, str]:
    """What decides comes before what is decided by it."""
    if name in _LAST:
        return 9 + _LAST.index(name), name
    ranks = {"ids": 1, "batches": 2, "order": 3, "scheduler": 4}
    return (0 if name.startswith("streams") else ranks.get(name, 5)), name


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what two entries do not agree in, in causal order."""
    mine, theirs = fields(one), fields(other)
    names = sorted(mine.keys() | theirs.keys(), key=_causal)
    return tuple(name for name in names if mine.get(name) != theirs.get(name))


def _spreading(
    one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]
) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    """What differs at the first of these pairs of entries, and when the rest follows."""
    first: tuple[str, ...] = ()
    since: dict[str, int] = {}
    for mine, theirs in islice(zip(one, other, strict=False), _FOLLOWED):
        now = differing(mine, theirs)
        first = first or now
        for name in now:
            since.setdefault(name, mine["step"])
        if len(since) == len(fields(mine)):
            break
    return first, tuple((name, step) for name, step in since.items() if name not in first)


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    return (one or {}).get("entry") == (other or {}).get("entry")


def _headers(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    names = sorted((one.keys() | other.keys()) - {"entry"})
    return tuple(name for name in names if one.get(name) != other.get(name))


class _Bisected:
    """A ledger's file, of which only the lines that are asked for are read."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._size = file.seek(0, 2)
        file.seek(0)
        header = self._line()
        if header is None:
            raise LedgerError(f"{path} is empty; expected a ledger.")
        self.header = _checked_header(header, f"{path}, line 1")
        self._begin = file.tell()
        last = self.at_most(sys.maxsize)
        if last is None:
            raise LedgerError(f"{path} has no entries.")
        self.last: int = last["step"]

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            return cls(path, path.open("rb"))
        except OSError as error:
            raise LedgerError(f"cannot read the ledger {path}: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def at_most(self, step: int) -> dict[str, Any] | None:
        """The last entry of a boundary that is not after `step`; the file is left right behind it."""
        low, high = self._begin, self._size  # a line begins at `low`; the wanted one before `high`
        found: dict[str, Any] | None = None
        while low < high:
            middle = (low + high) // 2
            self._file.seek(max(middle - 1, low))
            if middle > low:
                self._file.readline()  # to where the next line begins
            begins, line = self._file.tell(), self._line()
            if line is None or begins >= high or line.get("step", math.inf) > step:
                high = middle
            else:
                found, low = line, self._file.tell()
        self._file.seek(low)
        return found

    def onwards(self, step: int) -> Iterator[dict[str, Any]]:
        """The entries from a boundary on."""
        line = self.at_most(step)
        while line is not None and "step" in line:
            yield line
            line = self._line()

    def _line(self) -> dict[str, Any] | None:
        """The next line; one that was cut short, by a run that was killed, counts as none."""
        raw = self._file.readline()
        if not raw.endswith(b"\n"):
            return None
        return _parsed(raw, f"{self._path}, before byte {self._file.tell()}")
