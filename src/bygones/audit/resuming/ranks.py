"""Ranks of a resume check: what the processes of a job found, gathered as if it were one process.

A source is one row of the check, whichever ranks have lost it: its arm treats all of these ranks and no
other. Two runs of a job are the same if they are the same in every rank. Where states are shown, they are
those of the first rank that has lost the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bygones.audit.continuation import NOT_RUN, Continuation, States, units
from bygones.audit.resume_arms import ForkedArms
from bygones.audit.resume_runs import Interruption, ReferenceRun, ResumedState
from bygones.audit.resume_verdicts import Verdict
from bygones.core.errors import ScriptError
from bygones.core.text import join_names
from bygones.core.values import State


def of_rank(value: Any, number: int) -> Any:
    """Return a rank's own part of what a job's runs found; any other value as it is."""
    ranks = getattr(value, "ranks", ())
    return ranks[number] if ranks else value


def gather_ranks(replies: Sequence[Any]) -> Any:
    """Gather the replies of all ranks; None stands for a rank that waited for one that could not go on."""
    first = next(reply for reply in replies if reply is not None)
    for kind, gather in _GATHER.items():
        if isinstance(first, kind):
            return gather(replies)
    return replies[0]


def _gather_whole(runs: Sequence[ReferenceRun]) -> ReferenceRun:
    lead = runs[0]
    if len({run.steps for run in runs}) > 1:
        each = join_names(f"rank {n}: {run.steps}" for n, run in enumerate(runs))
        raise ScriptError(
            f"the ranks of {lead.script.path} take different numbers of steps ({each}), so there is no "
            f"boundary of the whole job. Give each rank as many batches, as a DistributedSampler does."
        )
    ranks = tuple(replace(run, inputs=lead.inputs) for run in runs)
    return replace(
        lead,
        last=min(run.last for run in runs),
        indices=_join_steps([run.indices for run in runs]),
        contents=_join_steps([run.contents for run in runs]),
        losses=tuple(zip(*(run.losses for run in runs), strict=True)),
        can_fork=all(run.can_fork for run in runs),
        ranks=ranks,
    )


def _join_steps(ranks: Sequence[Mapping[int, Any]]) -> dict[int, list[Any]]:
    """Return the batches of each step, those of one rank after those of the one before."""
    return {step: [b for rank in ranks for b in rank.get(step) or []] for step in ranks[0]}


def _gather_interruptions(runs: Sequence[Interruption]) -> Interruption:
    saved = [run.saved for run in runs if run.saved is not None]
    steps = [run.step for run in runs]
    if len(set(steps)) > 1:
        each = join_names(f"rank {n}: {step}" for n, step in enumerate(steps))
        raise ScriptError(f"the ranks of the interrupted run ended after different steps ({each}).")
    return Interruption(steps[0], max(saved, default=None))


def _gather_resumed(runs: Sequence[ResumedState | None]) -> ResumedState:
    there = {number: run for number, run in enumerate(runs) if run is not None}
    ended = {n: run.continuation.ended for n, run in there.items() if run.continuation.ended}
    continuation = gather_continuations([None if r is None else r.continuation for r in runs])
    if any(run.start is None for run in there.values()):
        return ResumedState(None, continuation)
    if len(there) < len(runs):
        number, how = next(iter(ended.items()))
        raise ScriptError(
            f"the resumed run: rank {number} {how}, and the other ranks waited for it in vain."
        )
    ranks = tuple(there.values())
    finished = [run.finished for run in ranks]
    return replace(
        ranks[0],
        continuation=continuation,
        finished=None if None in finished else all(finished),
        ranks=ranks,
    )


def gather_continuations(runs: Sequence[Continuation | None]) -> Continuation:
    """Return how a job went on. The losses of a step are those of all ranks, the outputs are rank 0's."""
    ended = [(n, run.ended) for n, run in enumerate(runs) if run is not None and run.ended]
    refused = [run.untried for run in runs if run is not None and run.untried]
    how = f"{ended[0][1]} (rank {ended[0][0]})" if ended else ""
    ranks = tuple(replace(NOT_RUN, ended=how) if run is None else run for run in runs)
    return replace(
        ranks[0],
        indices=_zip_batches([run.indices for run in ranks]),
        contents=_zip_batches([run.contents for run in ranks]),
        losses=tuple(zip(*(run.losses for run in ranks), strict=False)),
        ended=how,
        untried=refused[0] if refused else "",
        variables=tuple(
            _join_digests(held) for held in zip(*(run.variables for run in ranks), strict=False)
        ),
        ranks=ranks,
    )


def _zip_batches(ranks: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple([b for rank in step for b in rank] for step in zip(*ranks, strict=False))


def _join_digests(ranks: Sequence[Mapping[str, str]]) -> dict[str, str]:
    names = _union(ranks)
    return {name: " ".join(rank.get(name, "none") for rank in ranks) for name in names}


def _union(several: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for some in several for name in some))


def _gather_arms(ranks: Sequence[ForkedArms]) -> ForkedArms:
    names = _union([unit[0] for unit in units(rank.states)] for rank in ranks)
    lost = {n: tuple(i for i, rank in enumerate(ranks) if n in rank.differing) for n in names}
    arms = _union(rank.continuations for rank in ranks)
    chosen = {name: next(iter(lost[name]), _first_with(name, ranks)) for name in names}
    return replace(
        ranks[0],
        states=_pick([rank.states for rank in ranks], chosen),
        kinds={k: v for rank in reversed(ranks) for k, v in rank.kinds.items()},
        continuations=dict.fromkeys(arms, NOT_RUN),
        no_reset={k: v for rank in reversed(ranks) for k, v in rank.no_reset.items()},
        differing={n: ranks[found[0]].differing[n] for n, found in lost.items() if found},
        groups=tuple(tuple(_union(some)) for some in zip(*(r.groups for r in ranks), strict=True)),
        digests=_join_digests([rank.digests for rank in ranks]),
        epoch_ago=_pick([rank.epoch_ago for rank in ranks], chosen),
        lost_in={name: found for name, found in lost.items() if found},
    )


def _first_with(name: str, ranks: Sequence[ForkedArms]) -> int:
    return next(i for i, r in enumerate(ranks) if any(name == unit[0] for unit in units(r.states)))


def _pick(held: Sequence[States], chosen: Mapping[str, int]) -> dict[str, State]:
    """Return the states of the chosen rank of each piece of memory; each stream is one of its own."""
    found: dict[str, dict[str, Any]] = {}
    for name, number in chosen.items():
        source, _, stream = name.partition("/") if name.startswith("streams/") else (name, "", "")
        state = held[number].get(source)
        if state is not None:
            own = {k: v for k, v in state.items() if not stream or k.rpartition("/")[0] == stream}
            found.setdefault(source, {}).update(own)
    return dict(found)


def name_ranks(
    verdicts: Sequence[Verdict], whole: ReferenceRun, resumed: ResumedState, arms: ForkedArms
) -> list[Verdict]:
    """Return the verdicts, each with the ranks in which the source is not as it was."""
    if not whole.ranks:
        return list(verdicts)
    control = arms.continuations["carried"]
    pairs = zip(control.ranks, resumed.continuation.ranks, strict=True)
    other = tuple(n for n, (mine, theirs) in enumerate(pairs) if _other_batches(mine, theirs))
    lost = {**arms.lost_in, "order": other}
    return [replace(verdict, ranks=lost.get(verdict.source, ())) for verdict in verdicts]


def _other_batches(mine: Continuation, theirs: Continuation) -> bool:
    return mine.contents != theirs.contents[: len(mine.contents)]


_GATHER: Mapping[type, Callable[[Any], Any]] = {
    ReferenceRun: _gather_whole,
    Interruption: _gather_interruptions,
    ResumedState: _gather_resumed,
    Continuation: gather_continuations,
    ForkedArms: _gather_arms,
}
