"""Compare two ledgers: the first boundary at which they differ, and in what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

from bygones.core.errors import LedgerError
from bygones.core.text import join_names
from bygones.store.ledger import MOST_LINE, check_entry, check_header, parse_line


@dataclass(frozen=True)
class Divergence:
    """First divergence of two runs: the first boundary that differs, in which fields, and what followed.

    `first` is in causal order: randomness, data, schedules, everything else, the weights last. `followed`
    gives, for each other thing, the first boundary at which it differed too. `step` is None if the two
    are equal as far as both go; `before` is the last boundary at which they are. `entries`: how many
    each has, if both are complete and equal. `ends`: how they end, in words.
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
        """Whether no entry differs, and both end at the same boundary."""
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
        later = [f"{_listed(names)} from {step} on" for step, names in steps.items()]
        follow = f" Then also: {'; '.join(later)}." if later else ""
        return (
            f"The two runs part {since}: at boundary {self.step} they differ in {_listed(self.first)}."
            f"{follow}{also}"
        )


def _listed(names: Iterable[str]) -> str:
    """List fields; of a job, each once with all of its ranks."""
    ranks: dict[str, list[str]] = {}
    for name in names:
        of_all, _, rank = name.partition(OF_RANK)
        ranks.setdefault(of_all, []).extend([rank] if rank else [])
    return ", ".join(
        f"{name} of rank{'s' if len(numbers) > 1 else ''} {join_names(numbers)}"
        if numbers
        else name
        for name, numbers in ranks.items()
    )


_SHORTER = "where the shorter ends"
_IN_COMMON = "at those boundaries that both have"
_UNFINISHED = "where both end, without the last line of a run that came to its end"
_HALF_FINISHED = "where both end, one of them without its last line"


def first_divergence(one: Path, other: Path) -> Divergence:
    """Find the first divergence of two ledgers, by bisection along their hash chains.

    As long as two runs are equal, their ledgers are equal to the byte; and two entries that are equal
    have equal pasts. So the first unequal line is found by bisection: some thirty lines of each
    file are read, and then those from there until every field differs (at most a thousand). The chains
    are not verified; `read_ledger` does that.
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
            return Divergence(step, before, names, followed, None, "", headers)
        if before is None:
            raise LedgerError(f"{one} and {other} have no boundary in common.")
        if also is not None:
            return Divergence(None, before, (), (), None, _IN_COMMON, headers)
        ends = [ledger.line_at(place) for ledger in (mine, theirs)]
        finished = [end for end in ends if end is not None and "end" in end]
        if any(end is not None and "end" not in end for end in ends):
            return Divergence(None, before, (), (), None, _SHORTER, headers)
        if len(finished) == 2:
            return Divergence(None, before, (), (), finished[0]["end"], "", headers)
        words = _HALF_FINISHED if finished else _UNFINISHED
        return Divergence(None, before, (), (), None, words, headers)


def _last_in_common(mine: _Bisected, theirs: _Bisected) -> tuple[int, dict[str, Any] | None]:
    """Return where the last equal line ends, in bytes, and that line; None where there is none."""
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
    """Return whether two lines are equal entries; the chain makes all entries before them equal too."""
    return one is not None and other is not None and "step" in one and one == other


def _at_equal_steps(
    one: Iterator[dict[str, Any]], other: Iterator[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield pairs of entries of the same boundary; a run's last entry may have no partner."""
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
OF_RANK = " of rank "  # in the ledger of a job, between a field and the number of its rank


def fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields of an entry by name, in causal order."""
    # A script may call a variable "loss", and hold memory in it.
    holds = {f"{n} (held)" if n in _OWN else n: v for n, v in line.get("holds", {}).items()}
    flat = {**holds, **{name: line.get(name) for name in _OWN}}
    return dict(sorted(flat.items(), key=lambda item: _causal(item[0])))


_FOLLOWED = 1000
_LAST = ("loss", "gradients", "moments", "averages", "batchnorm", "weights")


def _causal(name: str) -> tuple[int, str]:
    """Return the sort key of a field: causes before effects."""
    of_all = name.partition(OF_RANK)[0]
    if of_all in _LAST:
        return 9 + _LAST.index(of_all), name
    places = {"ids": 1, "batches": 2, "order": 3, "scheduler": 4}
    return (0 if of_all.startswith("streams") else places.get(of_all, 5)), name


def differing_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the fields that differ between two entries, in causal order."""
    mine, theirs = fields(one), fields(other)
    names = sorted(mine.keys() | theirs.keys(), key=_causal)
    return tuple(name for name in names if mine.get(name) != theirs.get(name))


def _spreading(
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> tuple[int | None, tuple[int, tuple[str, ...]] | None, tuple[tuple[str, int], ...]]:
    """Return the last equal boundary, the first that differs with its fields, and when others follow."""
    before: int | None = None
    first: tuple[int, tuple[str, ...]] | None = None
    since: dict[str, int] = {}
    for mine, theirs in islice(pairs, _FOLLOWED):
        now = differing_fields(mine, theirs)
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
    """Random access to the lines of a ledger's file.

    Places are counted in bytes from the end of the header.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        size = file.seek(0, 2)
        file.seek(0)
        header = self._line()
        if header is None:
            raise LedgerError(f"{path} is empty; expected a ledger.")
        self.header = check_header(header, f"{path}, line 1")
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
        """Where the last line that was read ends."""
        return self._file.tell() - self._begin

    def line_at(self, place: int) -> dict[str, Any] | None:
        """Return the first line that begins at a place or later."""
        self._file.seek(self._begin + place - 1)
        self._file.readline(MOST_LINE + 1)  # to where a line begins
        return self._line()

    def entries(self, place: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from a place on."""
        line = self.line_at(place)
        while line is not None and "step" in line:
            yield line
            line = self._line()

    def _line(self) -> dict[str, Any] | None:
        """Return the next line; None at the end, or where the line is incomplete (the run was killed)."""
        place = f"{self._path}, the line at byte {self._file.tell()}"
        raw = self._file.readline(MOST_LINE + 1)
        if len(raw) > MOST_LINE:
            raise LedgerError(f"{place}: longer than any line of a ledger.")
        if not raw.endswith(b"\n"):
            return None
        line = parse_line(raw, place)
        return check_entry(line, place) if "step" in line else line
