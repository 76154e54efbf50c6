"""First differing operation of two runs: run both, find the first unequal step, and record its operations.

1   both runs with a digest of what they hold after each step: the first step that differs
2   both again up to there, with a digest of each operation of that step: the first that differs
3   both once more, keeping the values of that operation: how large the difference is
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
from bygones.attach.watched_process import run_in_child
from bygones.audit.operations.comparison import Difference, Size, first_difference, measure_size
from bygones.audit.operations.recorder import Line, Operation, Values
from bygones.audit.operations.runs import (
    Boundaries,
    Boundary,
    BoundaryRun,
    OperationRun,
    Operations,
)
from bygones.core.errors import DesignError, ScriptError
from bygones.core.text import format_count, join_names, to_plain

_MOST_STEPS = 10  # steps whose operations are recorded, from the first that differs on
_STEPS = "compared step by step"
# Where no operation may differ before these do.
_VISIBLE = ("batches", "loss", "weights", "buffers")
# A phase in words, where it is not "in the <phase>"; of the forward pass the module says enough.
_PHASES = {"": "", "forward": "", "backward": "in the backward pass"}


@dataclass(frozen=True)
class Place:
    """Where an operation is: its name, number in the step, phase, module, and line of the script."""

    name: str
    number: int
    phase: str
    module: str
    line: str
    code: str
    inner: str

    def __str__(self) -> str:
        words = [self.name, _PHASES.get(self.phase, f"in the {self.phase}")]
        if self.module:
            words.append(f"of {self.module}")
        at = f"at {self.line}" if self.line else ""
        code = f" (`{self.code}`)" if self.code else ""
        inner = f", in {self.inner}" if self.inner else ""
        return f"{' '.join(filter(None, [*words, at]))}{code}{inner}"


@dataclass(frozen=True)
class DivergenceReport:
    """Where two runs part, and by which operation.

    `step`: the step that differs first, counted from 0, None where the runs are equal; `until`: the last
    boundary that was compared. `differs`: what differs after that step. `one`, `other`: the first operation
    that differs, in each run. `kind`: see `Difference`. `why`: what differs of it, in words. `size`: by how
    much. `alone`: operations before it that only one of the runs does, without consequence. `ends`: which run
    ended before the other, in words. `before_first`: whether they differ before the first update.
    """

    runs: tuple[str, str]
    until: int
    step: int | None
    differs: tuple[str, ...] = ()
    one: Place | None = None
    other: Place | None = None
    kind: str = ""
    why: str = ""
    size: Size | None = None
    alone: int = 0
    ends: str = ""
    before_first: bool = False

    @property
    def equal(self) -> bool:
        """Whether no step differs, and both runs have as many."""
        return self.step is None and not self.ends

    def to_dict(self) -> dict[str, Any]:
        return to_plain({"equal": self.equal, **asdict(self)})

    def __str__(self) -> str:
        if self.step is None:
            what = "batches, losses, weights, buffers, optimizer states and random streams"
            return (
                f"No difference: the two runs have the same {what} in all "
                f"{format_count(self.until, 'step')} compared{self.ends}."
            )
        since = f"are equal up to boundary {self.step}, and differ at boundary {self.step + 1}"
        if self.before_first:
            since = "differ already before the first update"
        lines = [f"The two runs {since} in {join_names(self.differs)}."]
        if self.one is None and self.other is None:
            lines.append(self.why)
            return "\n".join(lines)
        place = self.one or self.other
        assert place is not None
        if self.kind == "other operation":
            first, second = (run or "nothing" for run in (self.one, self.other))
            lines.append(
                f"First differing operation, number {place.number} since then: {first} in the first run, "
                f"{second} in the second."
            )
        else:
            lines.append(f"First differing operation, number {place.number} since then: {place}.")
            lines.append(self.why)
        if self.size is not None:
            lines.append(f"The results differ {self.size}.")
        if self.alone:
            count = format_count(self.alone, "operation")
            lines.append(f"Before it, {count} that only one of the runs does, without consequence.")
        return "\n".join(lines)


def find_divergence(
    one: Script,
    other: Script,
    home: Path,
    seeds: tuple[int, int] = (0, 0),
    until: int = 200,
    on_run: Callable[[str], None] = lambda _: None,
) -> DivergenceReport:
    """Run two scripts, each in its own processes, and find the first operation whose result differs.

    `seeds`: of the first and the second run. `until`: the step up to which they are compared. Each is run up
    to three times. Raises `ScriptError` if a script does not repeat itself.
    """
    for script in (one, other):
        check_script(script)
    if until < 1:
        raise DesignError(f"the runs are compared up to a step of 1 or more; got {until}.")
    warm()
    with scratch_folder() as folder:
        return _Search((one, other), home, seeds, until, folder, on_run).find()


class _Search:
    """The search: `runs` are the two scripts."""

    def __init__(
        self,
        runs: tuple[Script, Script],
        home: Path,
        seeds: tuple[int, int],
        until: int,
        folder: Path,
        on_run: Callable[[str], None],
    ) -> None:
        self.runs, self.home, self.seeds, self.until = runs, home, seeds, until
        self.folder, self.on_run = folder, on_run
        self.names = (str(runs[0]), str(runs[1]))

    def find(self) -> DivergenceReport:
        """Find the step, then the operation."""
        mine: Boundaries = self._run(0, _STEPS, partial(BoundaryRun, self.until))
        warm_for(mine.libraries)
        theirs: Boundaries = self._run(1, _STEPS, partial(BoundaryRun, self.until))
        last = min(len(mine.steps), len(theirs.steps)) - 1
        index = _first_unequal(mine, theirs)
        if index is None:
            return DivergenceReport(self.names, last, None, ends=_ends(mine, theirs))
        step, differs = max(index - 1, 0), _differing(mine.steps[index], theirs.steps[index])
        end = _visible(mine, theirs, index)
        ours = self._record(step, end, (None, None))
        found = first_difference(*ours)
        at = {"step": step, "differs": differs, "before_first": index == 0}
        if found is None:
            full = " (there were more operations than are recorded)" if ours[0].is_full else ""
            why = (
                f"No torch operation up to boundary {end} differs{full}: what differs is decided outside of "
                f"torch."
            )
            return DivergenceReport(self.names, last, **at, why=why)
        again = self._record(step, end, (found.one, found.other))
        self._check_repeats(ours, again, found)
        one, other = (
            _place(run, n) for run, n in zip(again, (found.one, found.other), strict=True)
        )
        why, size = _explain(found, again)
        what = {"kind": found.kind, "why": why, "size": size, "alone": found.alone}
        return DivergenceReport(self.names, last, **at, one=one, other=other, **what)

    def _run(self, which: int, what: str, make: Any) -> Any:
        self.on_run(f"{self.names[which]}, {what}")
        script, seed, folder = self.runs[which], self.seeds[which], self.folder / str(which)
        return run_in_child(lambda parent: make(script, self.home, seed, folder, parent))

    def _record(
        self, begin: int, end: int, keep: tuple[int | None, int | None]
    ) -> tuple[Operations, Operations]:
        what = "its operations recorded" if keep == (None, None) else "the values kept"
        mine, theirs = (
            self._run(which, what, partial(OperationRun, begin, end, keep[which]))
            for which in (0, 1)
        )
        return mine, theirs

    def _check_repeats(
        self, first: tuple[Operations, ...], again: tuple[Operations, ...], found: Difference
    ) -> None:
        """Raise `ScriptError` if an operation was another one when it was run again."""
        for which, number in enumerate((found.one, found.other)):
            if number is None:
                continue
            known, now = first[which].operations, again[which].operations
            if len(now) <= number or known[number].key != now[number].key:
                raise ScriptError(
                    f"{self.names[which]} does not repeat itself: when it was run again with the same seed, "
                    f"its operations were others. Something in it is not decided by its seed."
                )


def _first_unequal(mine: Boundaries, theirs: Boundaries) -> int | None:
    pairs = enumerate(zip(mine.steps, theirs.steps, strict=False))
    return next((index for index, (a, b) in pairs if _differing(a, b)), None)


def _differing(mine: Boundary, theirs: Boundary) -> tuple[str, ...]:
    return tuple(name for name in mine if mine[name] != theirs[name])


def _visible(mine: Boundaries, theirs: Boundaries, index: int) -> int:
    """Return the boundary up to which operations are recorded: where what they compute differs."""
    last = min(len(mine.steps), len(theirs.steps)) - 1
    for step in range(index, min(index + _MOST_STEPS, last) + 1):
        if set(_differing(mine.steps[step], theirs.steps[step])) & set(_VISIBLE):
            return max(step, 1)
    return max(min(index + _MOST_STEPS, last), 1)


def _ends(mine: Boundaries, theirs: Boundaries) -> str:
    if len(mine.steps) == len(theirs.steps):
        return ""
    short, words = (0, mine.ended) if len(mine.steps) < len(theirs.steps) else (1, theirs.ended)
    return f", where the {('first', 'second')[short]} {words} and the other goes on"


# ------------------------------------------------------------------ words


def _place(run: Operations, number: int | None) -> Place | None:
    if number is None:
        return None
    operation = run.operations[number]
    module = run.modules.get(operation.modules[-1], "") if operation.modules else ""
    own = operation.own
    return Place(
        name=operation.name.removesuffix(".default"),
        number=number,
        phase=operation.phase,
        module=module,
        line="" if own is None else f"{Path(own.file).name}:{own.number}",
        code=_code(own),
        inner=_inner(operation),
    )


def _code(line: Line | None) -> str:
    """Return the text of a line; empty if its file cannot be read."""
    if line is None:
        return ""
    try:
        lines = Path(line.file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[line.number - 1].strip() if line.number <= len(lines) else ""


def _inner(operation: Operation) -> str:
    """Return the line of a library that runs the operation, where that says more than the script's line."""
    inner = operation.inner
    if inner is None or inner == operation.own:
        return ""
    path = inner.file.rpartition("site-packages/")[2]
    plain = path.startswith(("torch/nn/", "torch/_", "torch/autograd/", "torch/utils/_"))
    return "" if plain else f"{path}:{inner.number}"


def _explain(found: Difference, runs: tuple[Operations, Operations]) -> tuple[str, Size | None]:
    """Say what differs of an operation, and measure the difference of its results."""
    mine, theirs = runs
    if found.kind == "other operation":
        return "The operations themselves differ.", None
    assert found.one is not None
    assert found.other is not None
    size = _size_of_results(mine.values, theirs.values)
    a, b = mine.operations[found.one], theirs.operations[found.other]
    if found.kind == "random numbers":
        return "It draws random numbers, and the state of its generator differs.", size
    if found.kind == "result":
        return (
            "Inputs and arguments are equal, and the result is not: the operation does not compute the same "
            "twice, or under other settings (threads, precision, algorithms).",
            size,
        )
    name = found.argument
    if found.kind == "argument":
        pair = [dict(operation.settings).get(name) for operation in (a, b)]
        if pair == [None, None]:
            pair = [_number(run.values, name) for run in runs]
        return (
            f"Its argument '{name}' is {pair[0]} in the first run and {pair[1]} in the second.",
            size,
        )
    return _explain_input(name, a, runs), size


def _explain_input(name: str, operation: Operation, runs: tuple[Operations, Operations]) -> str:
    """Say which input differs, and where it came from: all operations before it were equal."""
    mine, theirs = runs
    storage = next(one.storage for one in operation.given if one.argument == name)
    what = mine.memory.get(storage)
    come = f"{what}" if what else "a tensor from outside of the operations (numpy, a file)"
    if operation.phase == "loader":
        come = f"{come}, which the loader reads"
    size = None
    if mine.values is not None and theirs.values is not None:
        pair = mine.values.given.get(name), theirs.values.given.get(name)
        if pair[0] is not None and pair[1] is not None:
            size = measure_size(pair[0], pair[1])
            if size is None:
                shapes = [
                    f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}"
                    for t in pair
                    if t is not None
                ]
                return f"Its input '{name}' differs already, {come}: {shapes[0]} and {shapes[1]}."
    how = f", {size}" if size is not None else ""
    return f"Its input '{name}' differs already{how}. It is {come}."


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _number(values: Values | None, name: str) -> str:
    tensor = None if values is None else values.given.get(name)
    return "unknown" if tensor is None else repr(tensor.item())


def _size_of_results(mine: Values | None, theirs: Values | None) -> Size | None:
    """Return the size of the difference of the first result that differs."""
    if mine is None or theirs is None:
        return None
    for a, b in zip(mine.returned, theirs.returned, strict=False):
        if a is not None and b is not None:
            size = measure_size(a, b)
            if size is not None and size.count:
                return size
    return None
