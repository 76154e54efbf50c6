"""Changed settings: what a resume under other arguments or variables does to the state and the function.

    resumed    as the audit resumes it                    changed   resumed with the changed settings
    fresh      from the start, with the changed settings  first     from the start, as it was (one step)

`changed` and `resumed` read the same checkpoint, so whatever differs between them where they begin follows
from the settings, and not from what the checkpoint omits. A leaf is told by where its value also occurs:

    set          changed = fresh, first ≠ fresh     the settings decide it, also in a new run
    overwritten  changed = resumed, first ≠ fresh   they decide it in a new run; here the checkpoint does
    made new     changed = first = fresh ≠ resumed  restored otherwise; under these settings lost
    other        neither
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bygones.analysis.estimators.base import Estimate
from bygones.analysis.estimators.paired_t import paired_t
from bygones.attach.isolation.environment import HASH_SEED, other_hash_seed
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter
from bygones.attach.isolation.script import Script
from bygones.attach.watched_process import run_by_slowest
from bygones.audit.continuation import Continuation, distance, same_run
from bygones.audit.resume_runs import (
    Held,
    Interruption,
    ReferenceRun,
    ResumedRun,
    ResumedState,
)
from bygones.core.digest import is_array, same_bits
from bygones.core.first_difference import first_differing_index
from bygones.core.text import format_count, join_names
from bygones.training.nested_state import write_path

Effect = Literal["set", "overwritten", "made new", "other"]
_LEFT_OUT = ("gradients",)  # drawn and made anew in each step
# Between which two runs distances are measured.
PAIRS = {
    "setting": "a new run with them, from one without",
    "uninterrupted": "the resumed run with them, from the uninterrupted one without",
    "resumed": "the resumed run with them, from the one resumed without",
    "fresh": "the resumed run with them, from a new run with them",
}


@dataclass(frozen=True)
class ChangedSource:
    """What changed settings do to a source where the resumed run begins. `leaves`: those concerned."""

    source: str
    effect: Effect
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class ChangedRuns:
    """What was found in one seed.

    `apart`: distances by pair of runs. `ignored`: whether the resumed run goes on as without the settings,
    to the bit, though a new run does not. `data`: what became of the batches, in words. `ended`: how the
    resumed run ended if it could not go on. `until`: the last step that was compared.
    """

    sources: tuple[ChangedSource, ...]
    apart: Mapping[str, float]
    ignored: bool
    data: str
    ended: str
    until: int


@dataclass(frozen=True)
class ChangedSettings:
    """A resume under other settings: the sources of the first seed, and distances over all seeds.

    `ceiling`: the distance to another seed without them; None where it was not measured.
    """

    settings: str
    sources: tuple[ChangedSource, ...]
    by_seed: Mapping[str, tuple[float, ...]]
    estimates: Mapping[str, Estimate]
    unit: str
    ceiling: float | None
    ignored: bool
    data: str
    ended: str
    until: int


@dataclass(frozen=True)
class ChangedState(ResumedState):
    """A resumed run, with the steps in which its loader started over, counted from its first step."""

    epochs: tuple[int, ...] = ()


class ChangedRun(ResumedRun):
    """A resumed run that replies a `ChangedState`."""

    def _resumed_state(self, continuation: Continuation) -> ChangedState:
        state = super()._resumed_state(continuation)
        return ChangedState(**vars(state), epochs=tuple(self.clock.record.epochs))


@dataclass
class ChangedRunner:
    """Runs the script under other settings. `folder`: where the checkpoint of the interrupted run lies."""

    whole: ReferenceRun
    resuming: Script
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    home: Path
    seed: int
    folder: Path
    on_run: Callable[[str], None]
    interpreter: FreshInterpreter | None  # of the run that is resumed without them; None: this one

    def compare(
        self, resumed: ResumedState, control: Continuation, interrupted: Interruption, end: int
    ) -> ChangedRuns:
        """Run the three runs, and compare them with the resumed and the uninterrupted one."""
        script, add = self.whole.script, self.arguments
        changed = self._run("resumed, other settings", _add(self.resuming, add), interrupted, end)
        at_start = Interruption(0, None)
        new = _add(script, add)
        fresh = self._run("from the start, other settings", new, at_start, end, anew=True)
        first = self._run("first step", script, at_start, 1, anew=True, changed=False)
        assert resumed.start is not None
        stopped = changed.start is None or not changed.continuation.losses
        ended = changed.continuation.ended if stopped else ""
        kind = "values" if self.whole.inputs is None else self.whole.inputs.kind
        runs = {"control": control, "resumed": resumed.continuation}
        runs |= {"changed": changed.continuation, "fresh": fresh.continuation}
        ends = (("setting", "fresh", "control"), ("uninterrupted", "changed", "control"))
        ends += (("resumed", "changed", "resumed"), ("fresh", "changed", "fresh"))
        apart = {name: _apart(runs[a], runs[b], kind) for name, a, b in ends}
        sources: tuple[ChangedSource, ...] = ()
        if changed.start and fresh.start and first.start:
            held = (changed.start.held, resumed.start.held, fresh.start.held, first.start.held)
            sources = tuple(_changed_sources(*held))
        start = resumed.start.step if changed.start is None else changed.start.step
        return ChangedRuns(
            sources,
            {name: value for name, value in apart.items() if value is not None},
            not ended and same_run(resumed.continuation, changed.continuation),
            _describe_data(self.whole, resumed.continuation, changed, start),
            ended,
            start + len(changed.continuation.losses),
        )

    def _run(
        self,
        name: str,
        script: Script,
        interrupted: Interruption,
        end: int,
        *,
        anew: bool = False,
        changed: bool = True,
    ) -> ChangedState:
        """Run to boundary `end`; a run that ends earlier once more, to its own last boundary."""
        reply = self._run_to(name, script, interrupted, end, anew, changed)
        steps = len(reply.continuation.losses)
        if reply.start is not None and reply.continuation.ended and steps > 1:
            if not reply.continuation.ended.startswith("raised"):
                last = reply.start.step + steps - 1
                reply = self._run_to(name, script, interrupted, last, anew, changed)
        return reply

    def _run_to(
        self,
        name: str,
        script: Script,
        interrupted: Interruption,
        end: int,
        anew: bool,
        changed: bool,
    ) -> ChangedState:
        self.on_run(f"{name}, to step {end}")
        folder = self.folder.with_name("with other settings")
        shutil.rmtree(folder, ignore_errors=True)
        if not anew:
            shutil.copytree(self.folder, folder, symlinks=True)
        given = (self.whole, interrupted, end, None, False)
        _, reply = run_by_slowest(
            lambda script, parent: ChangedRun(*given, script, self.home, self.seed, folder, parent),
            script,
            empty=anew,
            interpreter=None if anew else self.interpreter,
            environment=add_hash_seed(
                self.environment if changed else {}, other=not anew and self.interpreter is not None
            ),
        )
        return reply


def add_hash_seed(environment: Mapping[str, str], *, other: bool) -> dict[str, str]:
    """Return the variables of a new Python; if it stands for the `other` one, with that one's hash seed."""
    seed = other_hash_seed()
    if not environment or not other or seed is None:
        return {**environment}
    return {HASH_SEED: seed, **environment}


def _add(script: Script, arguments: tuple[str, ...]) -> Script:
    return replace(script, arguments=(*script.arguments, *arguments))


def _apart(one: Continuation, other: Continuation, kind: str) -> float | None:
    """Return the distance of the trained functions; None where one of them was not observed."""
    mine, theirs = one.outputs.get(""), other.outputs.get("")
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return None
    return (distance(one, other, kind) or {}).get("")


def _changed_sources(
    changed: Held, resumed: Held, fresh: Held, first: Held
) -> Iterator[ChangedSource]:
    """Yield what the settings do to each source, by effect; see the head of this file."""
    for source, mine in changed.states.items():
        found: dict[Effect, list[str]] = {}
        others = [held.states.get(source, {}) for held in (resumed, fresh, first)]
        for leaf in mine.keys() | others[0].keys() if source not in _LEFT_OUT else ():
            effect = _effect(mine.get(leaf), *(state.get(leaf) for state in others))
            if effect is not None and not (effect == "overwritten" and source == "streams"):
                found.setdefault(effect, []).append(leaf)
        for effect, leaves in found.items():
            yield ChangedSource(source, effect, tuple(map(write_path, sorted(leaves))))


def _effect(changed: Any, resumed: Any, fresh: Any, first: Any) -> Effect | None:
    decides = not same_bits(fresh, first)
    if same_bits(changed, resumed):
        # Arrays are meant to be restored; a number that the settings decide may be meant to be another.
        kept = decides and not is_array(changed) and not same_bits(changed, fresh)
        return "overwritten" if kept else None
    if same_bits(changed, fresh):
        return "set" if decides else "made new"
    return "other"


def _describe_data(
    whole: ReferenceRun, resumed: Continuation, changed: ChangedState, start: int
) -> str:
    """Say whether the batches are others, and which examples of the epoch under way come again or never."""
    index = first_differing_index(resumed.contents, changed.continuation.contents)
    if not any(changed.continuation.contents):
        return "no DataLoader delivers what is trained on, so the batches are not seen"
    if index is None:
        return "the same batches as without them"
    text = f"other batches than without them, from step {start + index} on"
    rest = _rest_of_epoch(whole, changed, start)
    if rest is None:
        return text
    again, never, total = rest
    examples = format_count(total, "example")
    return f"{text}; of the epoch's {examples}, {again} are shown again and {never} never"


def _rest_of_epoch(
    whole: ReferenceRun, changed: ChangedState, start: int
) -> tuple[int, int, int] | None:
    """Return how many examples of the epoch under way come again, how many never, and how many it has.

    None where the loader does not number its examples, or the uninterrupted run's epoch is not complete.
    """
    edges = [*whole.epochs, whole.steps]
    begins = max((edge for edge in edges if edge <= start), default=0)
    ends = min((edge for edge in edges if edge > start), default=None)
    if ends is None:
        return None
    epoch = _examples(whole.indices.get(step) for step in range(begins, ends))
    before = _examples(whole.indices.get(step) for step in range(begins, start))
    edge = next((step for step in changed.epochs if step > 0), None)
    rest = _examples(changed.continuation.indices[:edge])
    if epoch is None or before is None or rest is None:
        return None
    return len(set(rest) & set(before)), len(set(epoch) - set(before) - set(rest)), len(epoch)


def _examples(steps: Any) -> list[int] | None:
    """Return the numbers of the examples of some steps; None where they are not known."""
    found: list[int] = []
    for batches in steps:
        for index in batches or ():
            if index is None or not isinstance(index, list | tuple):
                return None
            if not all(isinstance(number, int | np.integer) for number in index):
                return None
            found += map(int, index)
    return found or None


def gather_changed(
    settings: str, found: Sequence[ChangedRuns], ceilings: Sequence[float], kinds: set[str]
) -> ChangedSettings | None:
    """Return what was found over all seeds; None if no seed was compared."""
    if not found:
        return None
    one = found[0]
    by_seed = {
        name: tuple(runs.apart[name] for runs in found if name in runs.apart) for name in PAIRS
    }
    by_seed = {name: values for name, values in by_seed.items() if values}
    estimates = {n: paired_t(np.asarray(v)) for n, v in by_seed.items() if len(v) > 1}
    return ChangedSettings(
        settings,
        one.sources,
        by_seed,
        estimates,
        "TV" if kinds == {"logits"} else "RMS",
        float(np.mean(ceilings)) if ceilings else None,
        all(runs.ignored for runs in found),
        one.data,
        one.ended,
        one.until,
    )


_EFFECTS: dict[Effect, str] = {
    "set": "is set by them, as in a new run",
    "overwritten": "keeps the checkpoint's value, though a new run would have another",
    "made new": "is as in a new run: restored without them, and not with them",
    "other": "is another one with them",
}


def describe_changed(found: ChangedSettings) -> Iterator[str]:
    """Yield sentences on a resume under other settings."""
    yield f"Resumed with other settings ({found.settings}), by design and not by omission:"
    if found.ended:
        yield f"  The resumed run {found.ended}."
        return
    if found.ignored:
        yield "  They change nothing: the resumed run goes on as without them, to the bit."
    for changed in found.sources:
        leaves = join_names(changed.leaves, limit=3)
        name = changed.source if changed.leaves == ("value",) else f"{changed.source} ({leaves})"
        yield f"  {name} {_EFFECTS[changed.effect]}."
    yield f"  Data: {found.data}."
    for name, values in found.by_seed.items():
        size = f"{found.unit} {sum(values) / len(values):.2g}"
        if name in found.estimates:
            estimate = found.estimates[name]
            size += (
                f" [{estimate.low:.2g}, {estimate.high:.2g}] ({len(values)} seed pairs, paired t)"
            )
        else:
            size += " (one seed pair, no interval)"
        yield f"  Distance of {PAIRS[name]}: {size}."
    if found.ceiling is not None:
        yield f"  Distance to another seed, without them: {found.unit} {found.ceiling:.2g}."
