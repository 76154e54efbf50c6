"""What a resume check says of each source, from what the runs were seen to hold and to do.

    carried    what the uninterrupted run holds at the boundary
    restored   what the resumed run holds there
    reset      the uninterrupted run with the source made new

    PASS       restored = carried, and reset makes another run: the checkpoint holds it, and that matters
    FAIL       restored ≠ carried, and the difference makes another run
    ABSTAIN    whether it was restored makes no difference here, or the window cannot show it

All comparisons are to the bit, of data, losses, states and the function in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bygones.audit.continuation import (
    Continuation,
    differing_leaves,
    distance,
    first_unequal_loss,
    same_run,
    units,
)
from bygones.audit.resume_runs import ForkedArms, ReferenceRun, ResumedState
from bygones.core.digest import same_bits
from bygones.core.first_difference import first_differing_index

Outcome = Literal["PASS", "FAIL", "ABSTAIN"]
_RANKS: dict[str, int] = {"FAIL": 0, "PASS": 1, "ABSTAIN": 2}


@dataclass(frozen=True)
class Verdict:
    """What is said of one source, and how far the function moves, by module that is observed.

    `lost`: with the source as the resumed run held it; `fresh`: with the source made new. None where there
    was no such arm.
    """

    source: str
    outcome: Outcome
    why: str
    leaves: str = ""
    lost: Mapping[str, float] | None = None
    fresh: Mapping[str, float] | None = None
    first_loss: int | None = None  # the first step whose loss differs with the source as resumed


def judge(
    whole: ReferenceRun, resumed: ResumedState, carried: ForkedArms, end: int
) -> list[Verdict]:
    """Every source's verdict, and the order's; what fails comes first."""
    assert resumed.start is not None
    control = carried.futures["carried"]
    kind = "values" if whole.inputs is None else whole.inputs.kind
    alike = same_run(control, resumed.future)
    verdicts = []
    for name, source, leaves in units(carried.states):
        mine = {leaf: carried.states[source][leaf] for leaf in leaves}
        other = differing_leaves(name, source, mine, resumed.start.states)
        verdict = _of_source(name, source, mine, other, carried, resumed, kind, alike)
        if verdict is not None:
            verdicts.append(verdict)
    verdicts.append(_of_order(whole, resumed, carried, end, kind, verdicts))
    if not alike and not any(v.outcome == "FAIL" for v in verdicts):
        verdicts.append(_unexplained(resumed, carried, kind))
    return sorted(verdicts, key=lambda verdict: _RANKS[verdict.outcome])


def judge_again(verdicts: list[Verdict], once: ResumedState, twice: ResumedState) -> list[Verdict]:
    """What was restored the first time and is not the second: a checkpoint that a resumed run writes.

    Only sources that were restored and needed are asked about; what the loss costs is not measured again.
    """
    if twice.start is None:
        why = f"resumed a second time, the run {twice.future.ended} without a step"
        return [Verdict("something else", "FAIL", why), *verdicts]
    places = {name: (source, leaves) for name, source, leaves in units(once.again)}
    now = []
    for verdict in verdicts:
        source, leaves = places.get(verdict.source, ("", []))
        if verdict.outcome == "PASS" and source:
            mine = {leaf: once.again[source][leaf] for leaf in leaves}
            other = differing_leaves(verdict.source, source, mine, twice.start.states)
            if other is not None:
                why = (
                    "restored the first time, and not when the run is interrupted and resumed again"
                )
                named = _leaves(mine, other, whole_source=source != "streams")
                verdict = replace(verdict, outcome="FAIL", why=why, leaves=named)
        now.append(verdict)
    return sorted(now, key=lambda verdict: _RANKS[verdict.outcome])


def _of_source(
    name: str,
    source: str,
    mine: Mapping[str, Any],
    other: Mapping[str, Any] | None,
    carried: ForkedArms,
    resumed: ResumedState,
    kind: str,
    alike: bool,
) -> Verdict | None:
    """None of variables that are mere results: they neither differ nor matter, and there are many."""
    control = carried.futures["carried"]
    reset = carried.futures.get(f"reset {name}")
    lost = carried.futures.get(f"resumed {name}")
    if lost is not None and lost.ended.startswith("raised") and not resumed.future.ended:
        lost = None  # it was put where it does not fit, which tells nothing of the resumed run
    fresh = None if reset is None else distance(control, reset, kind)
    matters = reset is not None and not same_run(control, reset)
    variable = carried.kinds.get(source) == "variable"
    if other is None or alike:
        if variable and not matters:
            return None
        if source == "streams" and alike and not matters:
            why = "nothing that counts was drawn from it in this window"
            if other is not None and not _restored_later(name, carried, resumed):
                why = "not restored, which makes no difference in this window"
            return Verdict(name, "ABSTAIN", why, fresh=fresh)
        if matters:
            return Verdict(name, "PASS", "restored to the bit, and needed", fresh=fresh)
        if reset is None and name in carried.no_reset:
            return Verdict(name, "PASS", "restored to the bit")
        if name == "weights":
            return Verdict(name, "PASS", "restored to the bit")
        why = "a new one would make no difference in this window, so this cannot tell"
        if not mine:
            why = "holds nothing at this boundary"
        return Verdict(name, "ABSTAIN", why, fresh=fresh)
    leaves = _leaves(mine, other, whole_source=source != "streams")
    if source == "streams" and _restored_later(name, carried, resumed):
        return Verdict(name, "PASS", "restored before the first step calls the model", fresh=fresh)
    if lost is None or same_run(control, lost):
        if variable:
            return None
        return Verdict(
            name,
            "ABSTAIN",
            "not restored, which makes no difference in this window",
            leaves,
            None if lost is None else distance(control, lost, kind),
            fresh,
        )
    return Verdict(
        name,
        "FAIL",
        _how_lost(mine, other, reset is not None and same_run(reset, lost)),
        leaves,
        distance(control, lost, kind),
        fresh,
        first_unequal_loss(control, lost, resumed.start.step if resumed.start else 0),
    )


def _how_lost(mine: Mapping[str, Any], other: Mapping[str, Any], as_new: bool) -> str:
    if as_new:
        return "lost: the resumed run goes on with a new one"
    if not other:
        return "lost: the resumed run holds nothing"
    return "not what was carried"


def _of_order(
    whole: ReferenceRun,
    resumed: ResumedState,
    carried: ForkedArms,
    end: int,
    kind: str,
    others: list[Verdict],
) -> Verdict:
    """Whether the resumed run was shown what the uninterrupted one was, and the position it went on from."""
    assert resumed.start is not None
    begin = resumed.start.step
    control, mine = carried.futures["carried"], resumed.future
    steps = len(control.contents)
    edges = [step for step in whole.epochs if begin < step < end]
    if not any(control.contents):
        return Verdict(
            "order", "ABSTAIN", "no DataLoader delivers what is trained on, so it is not seen"
        )
    if mine.contents[:steps] == control.contents and len(mine.contents) >= steps:
        if edges:
            why = f"the same batches in all {steps} steps, across {_counted(edges, 'epoch edge')}"
            return Verdict("order", "PASS", why)
        why = f"the same batches in all {steps} steps; no epoch ends in them, so the next shuffle is untried"
        return Verdict("order", "ABSTAIN", why)
    first = first_differing_index(control.contents, mine.contents)
    if first is None:
        first = min(len(control.contents), len(mine.contents))
    for verdict in others:
        lost = carried.futures.get(f"resumed {verdict.source}")
        if (
            verdict.outcome == "FAIL"
            and lost is not None
            and lost.contents == mine.contents[:steps]
        ):
            why = f"other batches from step {begin + first} on, which follows from {verdict.source}"
            return Verdict("order", "ABSTAIN", why)
    numbered = all(index is not None for step in control.indices for index in step)
    if numbered and mine.indices[:steps] == control.indices and len(mine.indices) >= steps:
        why = (
            f"the same examples, delivered otherwise from step {begin + first} on, which follows from the "
            f"random streams"
        )
        return Verdict("order", "ABSTAIN", why)
    lost = carried.futures.get("resumed order")
    return Verdict(
        "order",
        "FAIL",
        _other_batches(whole, mine, begin, first, steps),
        lost=None if lost is None else distance(control, lost, kind),
        first_loss=None if lost is None else first_unequal_loss(control, lost, begin),
    )


def _other_batches(
    whole: ReferenceRun, mine: Continuation, begin: int, first: int, steps: int
) -> str:
    """What is shown instead, as far as it can be told."""
    where = f"from step {begin + first} on"
    if first >= len(mine.indices):
        return f"the resumed run ends after {len(mine.indices)} steps; {steps} were left ({mine.ended})"
    shown = mine.indices[first]
    if not shown or None in shown:
        return f"other batches {where}"
    before = [step for step in sorted(whole.indices) if whole.indices[step] == shown]
    if before:
        starts = [step for step in whole.epochs if step in before]
        now, then = (_place_in_epoch(whole, step) for step in (begin + first, before[0]))
        if now == then:
            return (
                f"an earlier epoch comes again: {where} it is shown what step {before[0]} was shown"
            )
        place = f"what step {before[0]} was shown"
        if starts:
            place = f"the epoch of step {starts[0]} from its beginning"
        return f"the position is lost: {where} it is shown {place}"
    return f"another order {where}"


def _place_in_epoch(whole: ReferenceRun, step: int) -> int:
    return step - max((edge for edge in whole.epochs if edge <= step), default=0)


def _unexplained(resumed: ResumedState, carried: ForkedArms, kind: str) -> Verdict:
    """The resumed run goes another way, and all that is known was restored: clues are all there is."""
    assert resumed.start is not None
    theirs = resumed.start.numbers
    clues = [
        f"{path} ({value!r}, resumed as {theirs[path]!r})"
        for path, value in sorted(carried.numbers.items())
        if path in theirs and theirs[path] != value
    ]
    control = carried.futures["carried"]
    step = first_unequal_loss(control, resumed.future, resumed.start.step)
    where = "its losses never differ" if step is None else f"its loss differs first in step {step}"
    said = f" Variables that differ: {', '.join(clues[:5])}." if clues else ""
    return Verdict(
        "something else",
        "FAIL",
        f"everything that was found is restored, and yet the resumed run is another one: {where}.{said}",
        lost=distance(control, resumed.future, kind),
        first_loss=step,
    )


# ------------------------------------------------------------------ comparing


def _restored_later(name: str, carried: ForkedArms, resumed: ResumedState) -> bool:
    """A stream that is put back only after the first batch was fetched: restored, unless the batch is wrong.

    Where other examples were fetched, it is the order that is wrong.
    """
    assert resumed.start is not None
    leaf = f"{name.partition('/')[2]}/state"
    mine = carried.futures["carried"].streams_later.get(leaf)
    theirs = resumed.start.streams_later.get(leaf)
    one, other = carried.futures["carried"], resumed.future
    right = one.contents[:1] == other.contents[:1] or one.indices[:1] != other.indices[:1]
    return mine is not None and same_bits(mine, theirs) and right


def _leaves(mine: Mapping[str, Any], other: Mapping[str, Any], *, whole_source: bool) -> str:
    """Which leaves differ, by the last piece of their names where that says enough."""
    if not whole_source:
        return ""
    names = sorted(
        leaf
        for leaf in mine.keys() | other.keys()
        if leaf not in mine or leaf not in other or not same_bits(mine[leaf], other[leaf])
    )
    if len(names) == len(mine.keys() | other.keys()) and len(names) > 1:
        return "all of it"
    ends = sorted({name.rpartition("/")[2] for name in names})
    short = [f"*/{end}" for end in ends] if len(names) > len(ends) and len(ends) <= 4 else names
    return ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")


def _counted(things: list[Any], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def with_seeds(verdicts: Mapping[int, list[Verdict]]) -> list[Verdict]:
    """One verdict a source from those of several seeds: a failure in any is one."""
    merged: dict[str, Verdict] = {}
    for verdict in (v for mine in verdicts.values() for v in mine):
        known = merged.get(verdict.source)
        if known is None or _RANKS[verdict.outcome] < _RANKS[known.outcome]:
            merged[verdict.source] = replace(verdict)
    return sorted(merged.values(), key=lambda v: _RANKS[v.outcome])
