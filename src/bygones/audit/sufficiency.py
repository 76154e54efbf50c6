"""Is the inventory of a script's memory complete? Move all of it into another seed's run and compare.

    donor      seed a ──────────┬──────────▶ end           everything that was found is copied here
                                ▼
    recipient  seed b ──────────┼──▶ all of it put in      has to go on as the donor does, to the bit
                                ├──▶ all but one source    and does not, where that source is needed

What decides the order is moved as what the donor shows next. The weights are a source like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from bygones.attach.isolation.fork import Parent, fork, scratch_folder, why_not_fork
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import KnownMemory
from bygones.attach.sources.carried_streams import but_keys
from bygones.attach.watched_process import CannotFork, WatchedProcess, in_child
from bygones.audit.continuation import (
    Continuation,
    States,
    capture_sources,
    continuation_of,
    same_continuation,
    shown_since,
    trained_tensors,
    units,
)
from bygones.core.digest import digest
from bygones.core.errors import DesignError, RecipeError, ScriptError
from bygones.core.first_difference import first_differing_index
from bygones.core.hash_chain import fast_digest
from bygones.scripts.plan import ScriptPlan


@dataclass(frozen=True)
class Sufficiency:
    """Whether all sources together make another seed's run the donor's, and which are needed for it."""

    script: str
    at: int
    until: int
    seeds: tuple[int, int]
    sufficient: bool
    needed: tuple[str, ...]
    inert: tuple[str, ...]
    missing: str = ""  # where the run that was given everything parts from the donor's, in words

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        one, other = self.seeds
        if not self.sufficient:
            return (
                f"The inventory of {self.script} is not complete: at step {self.at} everything that was "
                f"found in the run of seed {one} was put into that of seed {other}, and yet "
                f"{self.missing}. Some memory is in none of the sources."
            )
        rest = f" Without consequence here: {', '.join(self.inert)}." if self.inert else ""
        return (
            f"The inventory of {self.script} is complete: at step {self.at} everything that was found in the "
            f"run of seed {one} was put into that of seed {other}, which went on as the donor did, to the "
            f"bit, up to step {self.until}. Needed for that: {', '.join(self.needed)}.{rest}"
        )


def check_sufficiency(
    script: Script, home: Path, seeds: tuple[int, int], at: int, until: int
) -> Sufficiency:
    """Moves all memory of one seed's run into another's at a boundary; then again without each source."""
    check_script(script)
    if not 1 <= at < until:
        raise DesignError(f"memory is moved at a step between 1 and --until; got {at} and {until}.")
    warm()
    with scratch_folder() as folder:
        donor = in_child(
            lambda parent: _Donor(at, until, script, home, seeds[0], folder / "donor", parent)
        )
        if isinstance(donor, int):  # the optimizer to count by
            return check_sufficiency(replace(script, clock=donor), home, seeds, at, until)
        futures: dict[str, Continuation] = in_child(
            lambda parent: _Recipient(
                donor, at, until, script, home, seeds[1], folder / "recipient", parent
            )
        )
    everything = futures.pop("")
    alike = {name: same_continuation(donor.future, future) for name, future in futures.items()}
    complete = same_continuation(donor.future, everything)
    return Sufficiency(
        script=str(script),
        at=at,
        until=until,
        seeds=seeds,
        sufficient=complete,
        needed=tuple(name for name, same in alike.items() if not same) if complete else (),
        inert=tuple(name for name, same in alike.items() if same) if complete else (),
        missing="" if complete else _where(donor.future, everything, at),
    )


@dataclass(frozen=True)
class _Given:
    """What the donor hands over: all that it held, and what came of it."""

    states: States
    expected: KnownMemory
    weights: frozenset[str]
    future: Continuation


class _Donor(WatchedProcess):
    def __init__(self, at: int, until: int, *given: Any) -> None:
        super().__init__(*given)
        self.at, self.until = at, until
        self.clock.stops = frozenset({at, until})

    def at_boundary(self, step: int) -> None:
        if step == self.at:
            turn = self.clock.slowest_optimizer()
            if turn != self.script.clock:
                self.parent.reply_and_exit(turn)
            live = self.live(None)
            self.expected = KnownMemory(frozenset(live.sources), live.changed)
            self.states = capture_sources(self.live(self.expected))
            self.weights = trained_tensors(self.clock.seen)
            return
        future = continuation_of(self, self.live(self.expected), None, self.at)
        self.parent.reply_and_exit(_Given(self.states, self.expected, self.weights, future))

    def ended(self, how: str) -> NoReturn:
        where = f"step {self.until}, up to which runs are compared"
        self.parent.reply_and_exit(self.too_soon(how, where))


class _Recipient(WatchedProcess):
    def __init__(self, donor: _Given, at: int, until: int, *given: Any) -> None:
        super().__init__(*given)
        self.donor, self.at, self.until = donor, at, until
        self.clock.stops = frozenset({at})

    def at_boundary(self, step: int) -> None:
        live = self.live(self.donor.expected)
        if self.arm is not None:
            self.arm.reply_and_exit(continuation_of(self, live, None, self.at))
        why = why_not_fork()
        if why is not None:
            raise CannotFork(f"{self.script} cannot be forked, since {why}.")
        if trained_tensors(self.clock.seen) == self.donor.weights:
            raise ScriptError(
                f"both seeds train the same run: the seed, handed over by {self.script.seeded_by}, does not "
                f"reach {self.script.path}. Put {{seed}} into its arguments, or name an environment variable "
                f"that it reads with --seed-env."
            )
        futures: dict[str, Continuation] = {}
        states = capture_sources(live)
        pieces = [(name, source, leaves) for name, source, leaves in units(self.donor.states)]
        differing = [
            name
            for name, source, leaves in pieces
            if any(
                fast_digest(self.donor.states[source][leaf])
                != fast_digest(states.get(source, {}).get(leaf))
                for leaf in leaves
            )
        ]
        for left_out in ["", *differing, *(["order"] if self._shows() else [])]:
            side = fork(flush=False)
            if isinstance(side, Parent):
                self.goes_on_as_arm(side, self.until)
                for source, state in self.donor.states.items():
                    given = self._given(source, state, states.get(source, {}), left_out)
                    with suppress(RecipeError, KeyError):
                        live.sources[source].restore(given)
                if left_out != "order":
                    self._show()
                return
            said = side.wait()
            futures[left_out] = (
                said
                if isinstance(said, Continuation)
                else Continuation({}, {}, (), (), (), "was killed")
            )
        self.parent.reply_and_exit(futures)

    def _given(
        self, source: str, state: Mapping[str, Any], own: Mapping[str, Any], left_out: str
    ) -> dict[str, Any]:
        """The donor's state of a source, but for the piece that is left out, which stays its own."""
        if left_out == source:
            return dict(own)
        stream = left_out.partition("/")[2] if left_out.startswith(f"{source}/") else ""
        kept = {leaf: value for leaf, value in own.items() if stream and leaf == f"{stream}/state"}
        return {**but_keys(state), **kept}

    def _shows(self) -> list[Any]:
        """What the donor shows next, batch by batch, as far as a loader numbers it."""
        waiting = [index for step in self.donor.future.indices for index in step]
        usable = self.clock.loader is not None and all(index is not None for index in waiting)
        return waiting if usable else []

    def _show(self) -> None:
        waiting = self._shows()
        if waiting:
            assert self.clock.loader is not None
            self.clock.replace_on = self.clock.loader._dataset
            self.clock.replace = lambda _, index: waiting.pop(0) if waiting else index

    def ended(self, how: str) -> NoReturn:
        if self.arm is not None:
            self.arm.reply_and_exit(Continuation({}, {}, *shown_since(self, self.at), how))
        where = f"step {self.at}, where it was to take over the other's memory"
        self.parent.reply_and_exit(self.too_soon(how, where))


def _where(one: Continuation, other: Continuation, at: int) -> str:
    """The first thing in which two runs differ, in words."""
    if other.ended:
        return f"it {other.ended}"
    data = first_differing_index(one.contents, other.contents)
    if data is not None:
        return f"it was shown other data than the donor in step {at + data}"
    loss = first_differing_index(one.losses, other.losses)
    if loss is not None:
        return f"its loss is another one than the donor's in step {at + loss}"
    names = [name for name in one.states if one.states[name] != other.states.get(name)]
    return f"it ended with other values in {', '.join(names)}"


_MOVED_ON = 20  # steps that a run goes on with another's memory


def study_sufficiency(planned: ScriptPlan) -> dict[str, Any]:
    """Whether all memory was found, asked of the study's first two seeds at its fork; kept in the store.

    Not asked of every study: a fork copies the whole process, so arms are sound without it. It says
    whether what was not treated, and not found, could be something.
    """
    job, study = planned.job, planned.job.study
    one, other = study.seeds[:2]
    until = min(study.end, study.fork_at + _MOVED_ON)
    address = digest(
        ["bygones.sufficiency", job.addresses.recipe, job.addresses.contract, one, other, until]
    )
    known = job.store.records(address).get("sufficiency")
    if known is None:
        found = check_sufficiency(job.script, job.home, (one, other), study.fork_at, until)
        known = {**found.to_dict(), "said": str(found)}
        job.store.write_record(address, "sufficiency", known)
    return {"sufficiency": known}
