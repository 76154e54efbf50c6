"""What a run was shown and what it carried at each boundary, as a hash chain that anybody can check.

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
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from xxhash import xxh3_128

from bygones.digest import array_of, chunks, is_array
from bygones.errors import LedgerError
from bygones.values import Digest

FORMAT = 1

_DEEPEST = 8  # objects within a batch, of classes of their own


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
    """Writes one ledger, line by line; what is written outlives the process, however that ends.

    Left without `end`, as by a run that raised, a ledger lacks its last line and can be read all the same.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._file: IO[str] = _created(path)
        self._header = self._write({"ledger": FORMAT, **header}, "")
        self._last, self._count = "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the ledger as it is."""
        self._file.close()

    def add(self, line: Mapping[str, Any]) -> None:
        self._last = self._write(line, self._last)
        self._count += 1

    def end(self) -> Digest:
        """Closes the ledger: after this line it cannot be cut short or gone on with unnoticed."""
        sealed = self._write({"end": self._count, "header": self._header}, self._last)
        self._file.close()
        return sealed

    def _write(self, line: Mapping[str, Any], previous: str) -> Digest:
        content = {key: value for key, value in line.items() if key != "entry"}
        sealed = _seal(content, previous)
        self._file.write(_json({**content, "entry": sealed}) + "\n")
        self._file.flush()
        return sealed


def refuse_existing(path: Path) -> None:
    """Refuses a path at which there is something."""
    if path.exists():
        raise LedgerError(
            f"there is a '{path}' already, and a ledger is never written over. Choose another name."
        )


def _created(path: Path) -> IO[str]:
    """A new file; one that is there is left alone, since a ledger is never changed."""
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x", encoding="utf-8", newline="\n")
    except OSError as error:
        raise LedgerError(f"cannot write the ledger {path}: {error.strerror}.") from error


def write_ledger(
    path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> Digest:
    """Writes a whole ledger, and returns the seal of its last line."""
    with Writer(path, header) as writer:
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


def read_header(path: Path) -> dict[str, Any]:
    """The first line alone, checked; what follows is not read."""
    for line in _lines_of(path):
        content = {key: value for key, value in line.items() if key != "entry"}
        if line.get("entry") != _seal(content, ""):
            raise LedgerError(f"{path}, line 1: not the line that was written.")
        return _checked_header(content, f"{path}, line 1")
    raise LedgerError(f"{path} is empty; expected a ledger.")


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
    return line


def _seal(line: Mapping[str, Any], previous: str) -> Digest:
    return hashlib.sha256(f"{previous}\n{_json(line)}".encode()).hexdigest()


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=256)  # a batch is like the last one
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{dtype.str}{shape}".encode()


def _contents(batch: Any, depth: int = 0) -> Iterator[bytes | memoryview]:
    """The contents of a batch's tensors and arrays, and the text of what is neither.

    Of an object of a class of its own, its attributes; of anything else, the name of its class.
    """
    if is_array(batch):
        array = array_of(batch)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        yield _head(array.dtype, array.shape)
        # What numpy lends to nobody (times, and arrays of no size) goes by its bytes.
        yield array.data if array.size and array.dtype.kind in "biufc" else array.tobytes()
    elif isinstance(batch, Mapping):
        for key, item in batch.items():
            yield str(key).encode()
            yield from _contents(item, depth)
    elif isinstance(batch, list | tuple):
        for item in batch:
            yield from _contents(item, depth)
    elif isinstance(batch, bool | int | float | complex | str | bytes | np.generic | None):
        yield repr(batch).encode()
    else:
        yield type(batch).__qualname__.encode()
        if depth < _DEEPEST:
            yield from _contents(getattr(batch, "__dict__", {}), depth + 1)


# ------------------------------------------------------------------ two ledgers


@dataclass(frozen=True)
class Parting:
    """Where two runs part: the first boundary that differs, what differs there, and what followed.

    `first` is in causal order: randomness, data, schedules, everything else, the weights last. `followed`
    gives, for each other thing, the first boundary at which it differed too. `step` is None if the two
    are equal as far as both go; `before` is the last boundary at which they are. `entries`: how many
    each has, if both are whole and equal. `ends` says, in words, what is to be known of how they end.
    """

    step: int | None
    before: int | None
    first: tuple[str, ...]
    followed: tuple[tuple[str, int], ...]
    entries: int | None
    ends: str
    headers: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """No entry differs, and neither goes on where the other ends."""
        return self.step is None and self.ends not in (_SHORTER, _IN_COMMON)

    def __str__(self) -> str:
        also = f" Their headers differ in: {', '.join(self.headers)}." if self.headers else ""
        if self.entries is not None:
            count = "the one entry" if self.entries == 1 else f"all {self.entries:,} entries"
            return (
                f"The two ledgers are equal, {count} of them, up to boundary {self.before}.{also}"
            )
        if self.step is None:
            return f"The two ledgers are equal up to boundary {self.before}, {self.ends}.{also}"
        since = "from the start on" if self.before is None else f"after boundary {self.before}"
        steps: dict[int, list[str]] = {}
        for name, step in self.followed:
            steps.setdefault(step, []).append(name)
        later = [f"{', '.join(names)} from {step} on" for step, names in steps.items()]
        follow = f" Then also: {'; '.join(later)}." if later else ""
        return (
            f"The two runs part {since}: at boundary {self.step} they differ in {', '.join(self.first)}."
            f"{follow}{also}"
        )


_SHORTER = "where the shorter ends"
_IN_COMMON = "at those boundaries that both have"
_UNFINISHED = "where both end, without the last line of a run that came to its end"
_HALF_FINISHED = "where both end, one of them without its last line"


def part(one: Path, other: Path) -> Parting:
    """Where the runs of two ledgers part, by bisection along their chains.

    As long as two runs are equal, their ledgers are equal to the byte; and two entries that are equal
    have equal pasts. So the place where one line stops being the other is searched for by halves: some
    thirty lines of each file are read, and then those from the parting to where all has parted (at most
    a thousand). The chains are taken at their word; `read_ledger` checks them.
    """
    with _Bisected.open(one) as mine, _Bisected.open(other) as theirs:
        if mine.header.get("every") != theirs.header.get("every"):
            raise LedgerError(
                f"{one} has an entry every {mine.header.get('every')} steps and {other} every "
                f"{theirs.header.get('every')}; to be compared they need the same steps."
            )
        headers = _headers(mine.header, theirs.header)
        place, last = _last_in_common(mine, theirs)
        before = None if last is None else last["step"]
        pairs = _at_equal_steps(mine.entries(place), theirs.entries(place))
        also, first, followed = _spreading(pairs)
        before = before if also is None else also
        if first:
            step, names = first
            return Parting(step, before, names, followed, None, "", headers)
        if before is None:
            raise LedgerError(f"{one} and {other} have no boundary in common.")
        if also is not None:
            return Parting(None, before, (), (), None, _IN_COMMON, headers)
        ends = [ledger.line_at(place) for ledger in (mine, theirs)]
        finished = [end for end in ends if end is not None and "end" in end]
        if any(end is not None and "end" not in end for end in ends):
            return Parting(None, before, (), (), None, _SHORTER, headers)
        if len(finished) == 2:
            return Parting(None, before, (), (), finished[0]["end"], "", headers)
        words = _HALF_FINISHED if finished else _UNFINISHED
        return Parting(None, before, (), (), None, words, headers)


def _last_in_common(mine: _Bisected, theirs: _Bisected) -> tuple[int, dict[str, Any] | None]:
    """Where the last line ends up to which two ledgers are equal, and that line, if there is one."""
    low, high = 0, min(mine.length, theirs.length)
    last: dict[str, Any] | None = None
    while (
        low < high
    ):  # a line begins at `low`, all before it are equal; none that begins at `high` is
        middle = (low + high) // 2
        line, other = mine.line_at(middle), theirs.line_at(middle)
        if _same(line, other):
            last, low = line, mine.place
        else:
            high = middle
    return low, last


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Two entries of equal runs: what they hold is equal, and all before them."""
    return one is not None and other is not None and "step" in one and one == other


def _at_equal_steps(
    one: Iterator[dict[str, Any]], other: Iterator[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of entries of the same boundary: where a run ends, it has one that others lack."""
    mine, theirs = next(one, None), next(other, None)
    while mine is not None and theirs is not None:
        if mine["step"] == theirs["step"]:
            yield mine, theirs
        behind = min(mine["step"], theirs["step"])
        if mine["step"] == behind:
            mine = next(one, None)
        if theirs["step"] == behind:
            theirs = next(other, None)


_OWN = ("ids", "batches", "loss")


def fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """All that an entry says, by name, in causal order."""
    # A script may call a variable "loss", and hold memory in it.
    holds = {f"{n} (held)" if n in _OWN else n: v for n, v in line.get("holds", {}).items()}
    flat = {**holds, **{name: line.get(name) for name in _OWN}}
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
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> tuple[int | None, tuple[int, tuple[str, ...]] | None, tuple[tuple[str, int], ...]]:
    """Of these pairs: the last boundary at which they are equal, what differs next, and what follows when."""
    before: int | None = None
    first: tuple[int, tuple[str, ...]] | None = None
    since: dict[str, int] = {}
    for mine, theirs in islice(pairs, _FOLLOWED):
        now = differing(mine, theirs)
        if first is None and now:
            first = mine["step"], now
        elif first is None:
            before = mine["step"]
        for name in now:
            since.setdefault(name, mine["step"])
        if since.keys() >= fields(mine).keys() | fields(theirs).keys():
            break
    met = first[1] if first else ()
    return before, first, tuple((name, step) for name, step in since.items() if name not in met)


def _headers(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    names = sorted((one.keys() | other.keys()) - {"entry"})
    return tuple(name for name in names if one.get(name) != other.get(name))


class _Bisected:
    """A ledger's file, of which only the lines that are asked for are read.

    Places are counted in bytes from the end of the header.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        size = file.seek(0, 2)
        file.seek(0)
        header = self._line()
        if header is None:
            raise LedgerError(f"{path} is empty; expected a ledger.")
        self.header = _checked_header(header, f"{path}, line 1")
        self._begin = file.tell()
        self.length = size - self._begin
        first = self.line_at(0)
        if first is None or "step" not in first:
            raise LedgerError(f"{path} has no entries.")

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            file = path.open("rb")
        except OSError as error:
            raise LedgerError(f"cannot read the ledger {path}: {error.strerror}.") from error
        try:
            return cls(path, file)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def place(self) -> int:
        """Where the line ends that was read last."""
        return self._file.tell() - self._begin

    def line_at(self, place: int) -> dict[str, Any] | None:
        """The first line that begins there or later."""
        self._file.seek(self._begin + place - 1)
        self._file.readline()  # to where a line begins
        return self._line()

    def entries(self, place: int) -> Iterator[dict[str, Any]]:
        """The entries from a place on."""
        line = self.line_at(place)
        while line is not None and "step" in line:
            yield line
            line = self._line()

    def _line(self) -> dict[str, Any] | None:
        """The next line; one that was cut short, by a run that was killed, counts as none."""
        begins = self._file.tell()
        raw = self._file.readline()
        if not raw.endswith(b"\n"):
            return None
        return _parsed(raw, f"{self._path}, the line at byte {begins}")
