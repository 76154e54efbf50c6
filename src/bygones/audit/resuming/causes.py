"""Causes of a difference: the smallest set of lost sources that makes the resumed run, and what follows.

Two things may be lost at once. If the uninterrupted run, given several sources as the resumed run held them,
goes on as the resumed run does, to the bit, these explain it; what can be left out of them follows. A
variable that each step draws anew from a random stream (a batch that was fetched ahead) is no memory: that
stream is.

The searches are generators: they yield the names of arms to run, and are sent their continuations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bygones.audit.continuation import Continuation, same_run
from bygones.audit.resume_runs import ResumedState
from bygones.core.digest import same_bits
from bygones.core.first_difference import first_differing_index

TOGETHER = " + "  # between the names of arms that are tried together
BRIEF = "two steps of "  # before the names of arms that are followed for so long only
_MOST = 12  # sources that are tried together

Found = TypeVar("Found")
Process = TypeVar("Process")
Search = Generator[str, Continuation, Found]


@dataclass(frozen=True)
class Causes:
    """What explains a resumed run.

    names   the sources that together explain it; empty if no set was found, or one alone does
    arm     the run that was given all of them
    drawn   by variable that each step draws anew, the stream that it is drawn from
    all     the run that was given everything that makes a difference, and is another one than the resumed
            run nevertheless; None if it was not tried
    """

    names: tuple[str, ...] = ()
    arm: Continuation | None = None
    drawn: Mapping[str, str] = field(default_factory=dict)
    all: Continuation | None = None


def run_search(search: Search[Found], run: Callable[[str], Continuation]) -> Found:
    """Run the arms that a search asks for, and return what it finds."""
    try:
        name = next(search)
        while True:
            name = search.send(run(name))
    except StopIteration as done:
        return done.value


def run_side_by_side(
    searches: Iterable[Search[Mapping[str, Found]]],
    found: dict[str, Found],
    start: Callable[[str, int], Process],
    wait: Callable[[Process], Continuation],
    at_once: int,
) -> None:
    """Run searches, `at_once` arms at a time, and put what each finds into `found`.

    `start(name, slot)` starts an arm, in a slot below `at_once` that no other one is in. Arms are waited for
    in the order in which they were started.
    """
    free, running = list(range(at_once)), deque[tuple[Any, int, Process]]()

    def advance(search: Search[Mapping[str, Found]], slot: int, sent: Any) -> None:
        try:
            running.append((search, slot, start(search.send(sent), slot)))
        except StopIteration as done:
            found.update(done.value)
            free.append(slot)

    def advance_oldest() -> None:
        search, slot, process = running.popleft()
        advance(search, slot, wait(process))

    for search in searches:
        while not free:
            advance_oldest()
        advance(search, free.pop(), None)
    while running:
        advance_oldest()


def join_arms(how: str, names: Collection[str]) -> str:
    """Return the name of the arm in which several sources are treated alike."""
    return TOGETHER.join(f"{how} {name}" for name in names)


def find_causes(
    arms: Mapping[str, Continuation],
    differing: Collection[str],
    results: Collection[str],
    resumed: ResumedState,
    now: Mapping[str, str],
) -> Search[Causes]:
    """Find what explains the resumed run, where no source alone does.

    `arms`: those of the single sources. `differing`: the sources that the resumed run holds otherwise, and
    of these `results` are mere variables. `now`: digests of the variables at the boundary; without them
    it is not tried which of them are drawn anew.
    """
    moving = [name for name in (*differing, "order") if _moves(name, arms, resumed)]
    wanted = resumed.continuation
    if any(same_run(arms[f"resumed {name}"], wanted) for name in moving):
        return Causes()
    if len(moving) < 2:
        return Causes(all=arms[f"resumed {moving[0]}"] if moving else None)
    streams = [name for name in moving if name.startswith("streams/")]
    variables = [name for name in moving if name in results]
    drawn: Mapping[str, str] = {}
    if streams and variables and now:
        drawn = yield from _find_drawn(variables, streams, now)
    if len(moving) > _MOST:
        return Causes(drawn=drawn)
    arm = yield join_arms("resumed", moving)
    if not same_run(arm, wanted):
        return Causes(drawn=drawn, all=arm)
    names, arm = yield from _find_smallest(moving, arm, wanted)
    return Causes(names, arm, drawn)


def _find_smallest(
    moving: list[str], arm: Continuation, wanted: Continuation
) -> Search[tuple[tuple[str, ...], Continuation]]:
    """Find the smallest set that explains a run, by leaving out one source after the other.

    `arm`: the run that was given all of them.
    """
    kept = moving
    for name in reversed(moving):  # what follows comes last: variables, the order
        rest = [other for other in kept if other != name]
        if len(rest) > 1:
            without = yield join_arms("resumed", rest)
            if same_run(without, wanted):
                kept, arm = rest, without
    return tuple(kept), arm


def _find_drawn(
    variables: list[str], streams: list[str], now: Mapping[str, str]
) -> Search[dict[str, str]]:
    """Find the variables that each step draws anew, and the stream that each is drawn from.

    Such a variable has another value at each boundary; two steps later it is the same whatever it held
    before, and another one if the stream's state was another one.
    """
    control = yield f"{BRIEF}carried"
    varying = [name for name in variables if _is_new_each_time(name, now, control)]
    if not varying:
        return {}
    without = yield BRIEF + join_arms("resumed", varying)
    anew = [name for name in varying if _last(without, name) == _last(control, name)]
    drawn: dict[str, str] = {}
    for stream in streams if anew else []:
        shifted = yield BRIEF + join_arms("resumed", [stream])
        drawn |= {name: stream for name in anew if _last(shifted, name) != _last(control, name)}
    return drawn


def _is_new_each_time(name: str, now: Mapping[str, str], run: Continuation) -> bool:
    values = [now.get(name), *(held.get(name) for held in run.variables)]
    return len(values) == 3 and None not in values and len(set(values)) == len(values)


def _last(run: Continuation, name: str) -> str | None:
    return run.variables[-1].get(name) if run.variables else None


def _moves(name: str, arms: Mapping[str, Continuation], resumed: ResumedState) -> bool:
    """Test whether a source, as the resumed run held it, makes the uninterrupted run another one."""
    arm = arms.get(f"resumed {name}")
    if arm is None or arm.untried or (arm.ended and not resumed.continuation.ended):
        return False
    if name.startswith("streams/") and is_restored_later(name, arms["carried"], resumed):
        return False
    return not same_run(arms["carried"], arm)


def is_restored_later(name: str, control: Continuation, resumed: ResumedState) -> bool:
    """Test whether a stream was restored after the first fetch, and before the model was called.

    If the first batch is another one by its contents alone, the stream was needed for it. If its indices
    differ too, the order is at fault, not the stream.
    """
    if control.ranks:
        pairs = zip(control.ranks, resumed.ranks, strict=True)
        return all(_is_alike_later(name, mine, theirs) for mine, theirs in pairs)
    return _is_alike_later(name, control, resumed)


def _is_alike_later(name: str, control: Continuation, resumed: ResumedState) -> bool:
    assert resumed.start is not None
    leaf = f"{name.partition('/')[2]}/state"
    mine, theirs = control.streams_later.get(leaf), resumed.start.streams_later.get(leaf)
    other = resumed.continuation
    right = control.contents[:1] == other.contents[:1] or control.indices[:1] != other.indices[:1]
    return mine is not None and same_bits(mine, theirs) and right


def note_unexplained(failed: Collection[str], causes: Causes, resumed: ResumedState) -> list[str]:
    """Return a note if all that is lost, put in together, does not make the losses of the resumed run.

    `failed`: the lost sources, each of which was put in.
    """
    start, arm, wanted = resumed.start, causes.all, resumed.continuation
    if start is None or arm is None or arm.untried:
        return []
    size = min(len(arm.losses), len(wanted.losses))
    index = first_differing_index(arm.losses[:size], wanted.losses[:size])
    if index is None:
        return []
    several = len(failed) > 1
    return [
        f"{'These losses together do' if several else 'This loss does'} not explain the resumed run: an "
        f"uninterrupted run that is given {'them' if several else 'it'} has another loss in step "
        f"{start.step + index}. Something else is lost as well, and this cannot tell what. Restore what is "
        f"named, and audit again."
    ]
