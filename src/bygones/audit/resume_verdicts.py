"""Verdicts of a resume check: whether each source is restored, and whether that matters.

    carried    what the uninterrupted run holds at the boundary
    restored   what the resumed run holds there
    reset      the uninterrupted run with the source made new

    PASS       restored = carried, and reset makes another run: it is saved, and it is needed
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
from bygones.audit.loss_text import describe_loss, name_leaves
from bygones.audit.resume_arms import RESULTS, ForkedArms
from bygones.audit.resume_runs import ReferenceRun, ResumedState
from bygones.audit.resuming.causes import is_restored_later
from bygones.core.first_difference import first_differing_index
from bygones.core.text import format_count, join_names

Outcome = Literal["PASS", "FAIL", "ABSTAIN"]
_RANKS: dict[str, int] = {"FAIL": 0, "PASS": 1, "ABSTAIN": 2}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one source, and how far the function moves, by observed module.

    `lost`: with the source as the resumed run held it; `fresh`: with the source made new. None where there
    was no such arm. `ranks`: of a job, those in which the source is not as it was.
    """

    source: str
    outcome: Outcome
    why: str
    leaves: str = ""
    lost: Mapping[str, float] | None = None
    fresh: Mapping[str, float] | None = None
    first_loss: int | None = None  # the first step whose loss differs with the source as resumed
    ranks: tuple[int, ...] = ()


def judge(
    whole: ReferenceRun, resumed: ResumedState, carried: ForkedArms, end: int
) -> list[Verdict]:
    """Return the verdict on every source and on the order, failures first."""
    assert resumed.start is not None
    control = carried.continuations["carried"]
    kind = "values" if whole.inputs is None else whole.inputs.kind
    alike = same_run(control, resumed.continuation)
    verdicts = []
    unshown: set[str] = set()  # variables that could not be tried, and are not known to be needed
    for name, source, leaves in units(carried.states):
        mine = {leaf: carried.states[source][leaf] for leaf in leaves}
        other = carried.differing.get(name)
        piece = _Piece(name, source, mine, other, carried, resumed, kind)
        if other is None or alike:
            verdict = _of_restored(piece, alike)
        else:
            verdict = _of_unrestored(piece, other)
        if verdict is not None:
            verdicts.append(verdict)
            if piece.why_untried and piece.is_result and not piece.is_needed:
                unshown.add(name)
    verdicts = _excuse(verdicts, unshown)
    verdicts = fold_consequences(verdicts, carried, resumed.continuation)
    verdicts.append(_of_order(whole, resumed, carried, end, kind, verdicts))
    if not alike and not any(v.outcome == "FAIL" for v in verdicts):
        verdicts.append(_unexplained(resumed, carried, kind))
    return sorted(verdicts, key=lambda verdict: _RANKS[verdict.outcome])


def _excuse(verdicts: list[Verdict], unshown: set[str]) -> list[Verdict]:
    """Return the verdicts, without blame for what is not shown to matter where something else is lost."""
    if not any(v.outcome == "FAIL" and v.source not in unshown for v in verdicts):
        return verdicts
    return [replace(v, outcome="ABSTAIN") if v.source in unshown else v for v in verdicts]


def fold_consequences(
    verdicts: list[Verdict], carried: ForkedArms, resumed: Continuation
) -> list[Verdict]:
    """Return the verdicts, with one cause where one explains the others.

    If the uninterrupted run, given one source as the resumed run held it, goes on as the resumed run does, to
    the bit, then nothing else is needed to explain that run: the other differences follow. So it is with the
    smallest set of several.
    """
    verdicts = [_of_drawn(v, carried.causes.drawn) for v in verdicts]
    failed = [v.source for v in verdicts if v.outcome == "FAIL"]
    arms = carried.continuations
    for cause in failed if len(failed) > 1 else []:
        alone = arms.get(f"resumed {cause}")
        if alone is not None and not alone.untried and same_run(alone, resumed):
            return _fold(verdicts, failed, [cause])
    causes = [name for name in carried.causes.names if name in failed]
    return _fold(verdicts, failed, causes) if causes else verdicts


def _fold(verdicts: list[Verdict], failed: list[str], causes: list[str]) -> list[Verdict]:
    """Return the verdicts, with the failures that follow from the causes as no failures."""
    rest = [name for name in failed if name not in causes]
    if not rest:
        return verdicts
    verb = "follows" if len(rest) == 1 else "follow"
    others = {name: [other for other in causes if other != name] for name in causes}
    said = []
    for verdict in verdicts:
        if verdict.source in rest:
            why = f"follows from {_listed(causes)}"
            verdict = replace(verdict, outcome="ABSTAIN", why=why)
        elif verdict.source in causes:
            source = " and ".join(["it", *others[verdict.source]])
            why = f"{verdict.why}; {join_names(rest, limit=6)} {verb} from {source}"
            verdict = replace(verdict, why=why)
        said.append(verdict)
    return said


def _of_drawn(verdict: Verdict, drawn: Mapping[str, str]) -> Verdict:
    """Return the verdict, for a variable that each step draws anew without blame: the stream has it."""
    if verdict.outcome != "FAIL" or verdict.source not in drawn:
        return verdict
    why = f"drawn anew in each step from {drawn[verdict.source]}, which is not restored"
    return replace(verdict, outcome="ABSTAIN", why=why)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def judge_again(
    verdicts: list[Verdict], resumed: ResumedState, once: ResumedState, twice: ResumedState
) -> list[Verdict]:
    """Return the verdicts after a second resumption, from the checkpoint that the resumed run wrote.

    `once`: the resumed run at that checkpoint; `twice`: resumed from it. Sources that passed are judged
    again, and so is what follows, in a row of its own. How far the function moves is not measured again.
    """
    row = "second resume"
    if twice.start is None:
        why = f"resumed a second time, the run {twice.continuation.ended} without a step"
        return [Verdict(row, "FAIL", why), *verdicts]
    places = {name: (source, leaves) for name, source, leaves in units(once.again)}
    now, lost = [], []
    for verdict in verdicts:
        source, leaves = places.get(verdict.source, ("", []))
        if verdict.outcome == "PASS" and source:
            mine = {leaf: once.again[source][leaf] for leaf in leaves}
            held = twice.start.held
            other = differing_leaves(verdict.source, source, mine, held.states, held.roots)
            if other is not None:
                why = (
                    "restored the first time, and not when the run is interrupted and resumed again"
                )
                named = name_leaves(mine, other, whole_source=source != "streams")
                verdict = replace(verdict, outcome="FAIL", why=why, leaves=named)
                lost.append(verdict.source)
        now.append(verdict)
    known = [v.source for v in verdicts if v.outcome == "FAIL"]
    now.append(_of_second_run(row, resumed, twice, lost, known))
    return sorted(now, key=lambda verdict: _RANKS[verdict.outcome])


def _of_second_run(
    row: str, resumed: ResumedState, twice: ResumedState, lost: list[str], known: list[str]
) -> Verdict:
    """Judge how the run goes on that was resumed twice, against the one that was resumed once.

    `lost`: what is lost the second time only; `known`: what is lost the first time already.
    """
    assert resumed.start is not None
    assert twice.start is not None
    begin, passes = twice.start.step, twice.start.passes
    first = _from_step(resumed.continuation, begin - resumed.start.step, passes)
    if same_run(first, twice.continuation):
        why = f"resumed again from step {begin}, it goes on as the run that was resumed once, to the bit"
        return Verdict(row, "PASS", why)
    data = first_differing_index(first.contents, twice.continuation.contents)
    loss = first_unequal_loss(first, twice.continuation, begin)
    if data is not None:
        seen = f"it is shown other batches from step {begin + data} on"
    elif loss is not None:
        seen = f"its loss differs first in step {loss}"
    else:
        seen = f"it {twice.continuation.ended or 'ends otherwise'}"
    why = f"resumed again from step {begin}, {seen}"
    if lost:
        return Verdict(row, "ABSTAIN", f"{why}, which follows from {join_names(lost, limit=4)}")
    if known:
        return Verdict(row, "ABSTAIN", f"{why}, which may follow from {join_names(known, limit=4)}")
    return Verdict(row, "FAIL", why, first_loss=loss)


def _from_step(run: Continuation, first: int, passes: int) -> Continuation:
    """Return a continuation from a later step on, `passes` backward passes of which are left out."""
    contents, losses = list(run.contents[first:]), list(run.losses[first:])
    if passes and contents:
        contents[0], losses[0] = contents[0][passes:], 0.0
    return replace(run, indices=run.indices[first:], contents=tuple(contents), losses=tuple(losses))


@dataclass(frozen=True)
class _Piece:
    """One piece of memory, and the runs that show whether it was restored and whether that matters.

    `mine`: its leaves in the uninterrupted run; `other`: those of the resumed run, None if they are equal.
    """

    name: str
    source: str
    mine: Mapping[str, Any]
    other: Mapping[str, Any] | None
    arms: ForkedArms
    resumed: ResumedState
    kind: str

    @property
    def control(self) -> Continuation:
        return self.arms.continuations["carried"]

    @property
    def reset(self) -> Continuation | None:
        """The run with the piece made new."""
        return self.arms.continuations.get(f"reset {self.name}")

    @property
    def lost(self) -> Continuation | None:
        """The run with the piece as the resumed run held it."""
        lost = self.arms.continuations.get(f"resumed {self.name}")
        return None if self.why_untried else lost

    @property
    def why_untried(self) -> str:
        """Why the piece could not be put in as the resumed run held it; empty if it was."""
        lost = self.arms.continuations.get(f"resumed {self.name}")
        if lost is None:
            return ""
        if lost.ended.startswith("raised") and not self.resumed.continuation.ended:
            return f"with it the uninterrupted run {lost.ended}"
        return lost.untried

    @property
    def is_needed(self) -> bool:
        """Whether a new one makes another run."""
        return self.reset is not None and not same_run(self.control, self.reset)

    @property
    def is_result(self) -> bool:
        return self.arms.kinds.get(self.source) in RESULTS

    @property
    def is_left_over(self) -> bool:
        """Whether it is a variable that did not exist before the first update, or part of a display."""
        return self.arms.kinds.get(self.source) in ("result", "display")

    @property
    def is_display(self) -> bool:
        return self.arms.kinds.get(self.source) == "display"

    @property
    def is_restored_later(self) -> bool:
        """Whether it is a random stream that is put back before the first step calls the model."""
        return self.source == "streams" and is_restored_later(self.name, self.control, self.resumed)

    @property
    def epoch_ago(self) -> Mapping[str, Any]:
        """What the uninterrupted run held there one epoch before; empty if that is not known."""
        return self.arms.epoch_ago.get(self.source, {})

    def apart(self, run: Continuation | None) -> dict[str, float] | None:
        """Return how far the function of a run is from the control's, by module."""
        return None if run is None else distance(self.control, run, self.kind)


def _of_restored(piece: _Piece, alike: bool) -> Verdict | None:
    """Judge a piece that is equal in both runs, or any piece if the two runs are `alike`.

    None for mere results that are not needed: they would only lengthen the list.
    """
    name, fresh = piece.name, piece.apart(piece.reset)
    if piece.other is not None and not piece.is_restored_later:
        return _of_no_difference(piece)
    if piece.is_result and not piece.is_needed:
        return None
    if piece.source == "streams" and alike and not piece.is_needed:
        why = "nothing that counts was drawn from it in this window"
        return Verdict(name, "ABSTAIN", why, fresh=fresh)
    if piece.is_needed:
        return Verdict(name, "PASS", "restored to the bit, and needed", fresh=fresh)
    if name == "weights" or (piece.reset is None and name in piece.arms.no_reset):
        return Verdict(name, "PASS", "restored to the bit")
    why = "a new one would make no difference in this window, so this cannot tell"
    if not piece.mine:
        why = "holds nothing at this boundary"
    return Verdict(name, "ABSTAIN", why, fresh=fresh)


def _of_no_difference(piece: _Piece) -> Verdict | None:
    """Return the verdict on a piece that the resumed run holds otherwise, without consequence here."""
    if piece.is_left_over:
        return None
    leaves = name_leaves(piece.mine, piece.other or {}, whole_source=piece.source != "streams")
    why = "not restored, which makes no difference in this window"
    lost, fresh = piece.apart(piece.lost), piece.apart(piece.reset)
    return Verdict(piece.name, "ABSTAIN", why, leaves, lost, fresh)


def _of_unrestored(piece: _Piece, other: Mapping[str, Any]) -> Verdict | None:
    """Judge a piece that the resumed run holds otherwise. None for mere results without consequence."""
    name, fresh, lost = piece.name, piece.apart(piece.reset), piece.lost
    leaves = name_leaves(piece.mine, other, whole_source=piece.source != "streams")
    if piece.is_restored_later:
        return Verdict(name, "PASS", "restored before the first step calls the model", fresh=fresh)
    if piece.why_untried:
        return _of_untried(piece, leaves)
    if lost is None or same_run(piece.control, lost):
        return _of_no_difference(piece)
    start = piece.resumed.start
    as_new = piece.reset is not None and same_run(piece.reset, lost)
    return Verdict(
        name,
        "FAIL",
        describe_loss(piece.mine, other, as_new=as_new, earlier=piece.epoch_ago),
        leaves,
        piece.apart(lost),
        fresh,
        first_unequal_loss(piece.control, lost, start.step if start else 0),
    )


def _of_untried(piece: _Piece, leaves: str) -> Verdict | None:
    """Judge a piece that differs, but could not be put in: lost, unless a new one makes no difference.

    A display counts only if a new one makes a difference: it holds bars and rows of its own.
    """
    if (piece.reset is not None or piece.is_display) and not piece.is_needed:
        return _of_no_difference(piece)
    why = f"not restored; what that costs could not be tried: {piece.why_untried}"
    return Verdict(piece.name, "FAIL", why, leaves, fresh=piece.apart(piece.reset))


def _of_order(
    whole: ReferenceRun,
    resumed: ResumedState,
    carried: ForkedArms,
    end: int,
    kind: str,
    others: list[Verdict],
) -> Verdict:
    """Judge the data order: whether the resumed run trained on the same batches."""
    assert resumed.start is not None
    begin = resumed.start.step
    control, mine = carried.continuations["carried"], resumed.continuation
    steps = len(control.contents)
    edges = [step for step in whole.epochs if begin < step < end]
    if not any(control.contents):
        return Verdict(
            "order", "ABSTAIN", "no DataLoader delivers what is trained on, so it is not seen"
        )
    if mine.contents[:steps] == control.contents and len(mine.contents) >= steps:
        if edges:
            why = f"the same batches in all {steps} steps, across {format_count(len(edges), 'epoch edge')}"
            return Verdict("order", "PASS", why)
        why = f"the same batches in all {steps} steps; no epoch ends in them, so the next shuffle is untried"
        return Verdict("order", "ABSTAIN", why)
    first = first_differing_index(control.contents, mine.contents)
    if first is None:
        first = min(len(control.contents), len(mine.contents))
    for verdict in others:
        lost = carried.continuations.get(f"resumed {verdict.source}")
        if (
            verdict.outcome == "FAIL"
            and lost is not None
            and lost.contents == mine.contents[:steps]
        ):
            why = f"other batches from step {begin + first} on, which follows from {verdict.source}"
            return Verdict("order", "ABSTAIN", why)
    causes = carried.causes
    if causes.arm is not None and "order" not in causes.names:
        why = f"other batches from step {begin + first} on, which follows from {_listed([*causes.names])}"
        return Verdict("order", "ABSTAIN", why)
    numbered = all(index is not None for step in control.indices for index in step)
    if numbered and mine.indices[:steps] == control.indices and len(mine.indices) >= steps:
        why = (
            f"the same examples, delivered otherwise from step {begin + first} on, which follows from the "
            f"random streams"
        )
        return Verdict("order", "ABSTAIN", why)
    lost = carried.continuations.get("resumed order")
    if lost is not None and same_run(control, lost):
        why = f"other batches from step {begin + first} on, and not since the examples come in another order"
        return Verdict("order", "ABSTAIN", why)
    return Verdict(
        "order",
        "FAIL",
        _other_batches(*_of_first_rank(whole, control, mine), begin, steps),
        lost=None if lost is None else distance(control, lost, kind),
        first_loss=None if lost is None else first_unequal_loss(control, lost, begin),
    )


def _of_first_rank(
    whole: ReferenceRun, control: Continuation, mine: Continuation
) -> tuple[ReferenceRun, Continuation, int]:
    """Return both runs (of a job, of the first rank with other batches), and the first step that differs."""
    pairs = [(whole, control, mine)]
    if whole.ranks:
        pairs = [*zip(whole.ranks, control.ranks, mine.ranks, strict=True)]
    for own, expected, seen in pairs:
        first = first_differing_index(expected.contents, seen.contents)
        if first is not None or len(seen.contents) < len(expected.contents):
            return own, seen, len(seen.contents) if first is None else first
    return whole, mine, len(mine.contents)


def _other_batches(
    whole: ReferenceRun, mine: Continuation, first: int, begin: int, steps: int
) -> str:
    """Say which batches the resumed run trained on instead."""
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
            behind = sum(before[0] < edge <= begin + first for edge in whole.epochs)
            what = "an epoch behind" if behind == 1 else "an earlier epoch comes again"
            return f"{what}: {where} it is shown what step {before[0]} was shown"
        place = f"what step {before[0]} was shown"
        if starts:
            place = f"the epoch of step {starts[0]} from its beginning"
        return f"the position is lost: {where} it is shown {place}"
    return f"another order {where}"


def _place_in_epoch(whole: ReferenceRun, step: int) -> int:
    return step - max((edge for edge in whole.epochs if edge <= step), default=0)


def _unexplained(resumed: ResumedState, carried: ForkedArms, kind: str) -> Verdict:
    """Return the verdict on a run that differs although all known memory was restored."""
    assert resumed.start is not None
    theirs = carried.theirs.numbers
    hints = [
        f"{path} ({value!r}, resumed as {theirs[path]!r})"
        for path, value in sorted(carried.numbers.items())
        if path in theirs and theirs[path] != value
    ]
    control = carried.continuations["carried"]
    step = first_unequal_loss(control, resumed.continuation, resumed.start.step)
    where = "its losses never differ" if step is None else f"its loss differs first in step {step}"
    hint = f" Variables that differ: {', '.join(hints[:5])}." if hints else ""
    return Verdict(
        "something else",
        "FAIL",
        f"everything that was found is restored, and yet the resumed run is another one: {where}.{hint}",
        lost=distance(control, resumed.continuation, kind),
        first_loss=step,
    )


def with_seeds(verdicts: Mapping[int, list[Verdict]]) -> list[Verdict]:
    """Merge the verdicts of several seeds: the worst one of each source counts."""
    merged: dict[str, Verdict] = {}
    for verdict in (v for mine in verdicts.values() for v in mine):
        known = merged.get(verdict.source)
        if known is None or _RANKS[verdict.outcome] < _RANKS[known.outcome]:
            merged[verdict.source] = replace(verdict)
    return sorted(merged.values(), key=lambda v: _RANKS[v.outcome])
