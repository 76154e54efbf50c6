"""Inventory completeness: move all memory of one seed's run into another's, and compare them.

    donor      seed a ──────────┬──────────▶ end           all sources are captured here
                                ▼
    recipient  seed b ──────────┼──▶ all of them restored   must continue as the donor does
                                ├──▶ all but one source     must not, if that source is needed

All comparisons are to the bit. The order is moved as the donor's next index batches. The weights are a
source like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from bygones.attach.index_override import QueuedIndices
from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm
from bygones.attach.live_run import KnownMemory
from bygones.attach.sources.carried_streams import but_keys
from bygones.attach.watched_process import Ending, run_by_slowest, run_in_child
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    Continuation,
    States,
    capture_sources,
    continuation_of,
    ended_continuation,
    same_continuation,
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
    """Whether all sources together make another run continue as the donor, and which are needed for it."""

    script: str
    at: int
    until: int
    seeds: tuple[int, int]
    sufficient: bool
    needed: tuple[str, ...]
    inert: tuple[str, ...]
    missing: str = ""  # the first difference to the donor, in words

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
    """Move all memory of one seed's run into another's at boundary `at`; then again without each source."""
    check_script(script)
    if not 1 <= at < until:
        raise DesignError(
            f"memory is moved at step 1 or later, and before the last one compared; got {at} and {until}."
        )
    warm()
    with scratch_folder() as folder:
        script, donor = run_by_slowest(
            lambda script, parent: _DonorRun(
                at, until, script, home, seeds[0], folder / "donor", parent
            ),
            script,
        )
        continuations: dict[str, Continuation] = run_in_child(
            lambda parent: _RecipientRun(
                donor, at, until, script, home, seeds[1], folder / "recipient", parent
            )
        )
    everything = continuations.pop("")
    alike = {
        name: same_continuation(donor.continuation, continuation)
        for name, continuation in continuations.items()
    }
    complete = same_continuation(donor.continuation, everything)
    return Sufficiency(
        script=str(script),
        at=at,
        until=until,
        seeds=seeds,
        sufficient=complete,
        needed=tuple(name for name, same in alike.items() if not same) if complete else (),
        inert=tuple(name for name, same in alike.items() if same) if complete else (),
        missing="" if complete else _difference(donor.continuation, everything, at),
    )


@dataclass(frozen=True)
class _DonorReply:
    """The donor's state at the boundary, and its continuation."""

    states: States
    expected: KnownMemory
    weights: frozenset[str]
    continuation: Continuation


class _DonorRun(AuditedRun):
    def __init__(self, at: int, until: int, *given: Any) -> None:
        super().__init__(*given, stops=frozenset({at, until}))
        self.at, self.until = at, until

    def at_boundary(self, step: int) -> None:
        if step == self.at:
            self.check_optimizer()
            live = self.find_live()
            self.expected = live.known
            self.states = capture_sources(self.find_live(self.expected))
            self.weights = trained_tensors(self.clock.optimizers)
            return
        continuation = continuation_of(self, self.find_live(self.expected), None, self.at)
        self.parent.reply_and_exit(
            _DonorReply(self.states, self.expected, self.weights, continuation)
        )

    def finish(self, ending: Ending) -> NoReturn:
        where = f"step {self.until}, up to which runs are compared"
        self.parent.reply_and_exit(self.ended_early(ending, where))


class _RecipientRun(AuditedRun):
    def __init__(self, donor: _DonorReply, at: int, until: int, *given: Any) -> None:
        super().__init__(*given, stops=frozenset({at}))
        self.donor, self.at, self.until = donor, at, until

    def at_boundary(self, step: int) -> None:
        live = self.find_live(self.donor.expected)
        if self.is_arm:
            self.parent.reply_and_exit(continuation_of(self, live, None, self.at))
        self.check_fork()
        if trained_tensors(self.clock.optimizers) == self.donor.weights:
            raise ScriptError(
                f"both seeds train the same run: the seed, handed over by {self.script.seeded_by}, does not "
                f"reach {self.script.path}. Put {{seed}} into its arguments, or name an environment variable "
                f"that it reads with --seed-env."
            )
        continuations: dict[str, Continuation] = {}
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
        for left_out in ["", *differing, *(["order"] if self._donor_indices() else [])]:
            continuation = self.fork_continuation(self.until)
            if continuation is None:
                for source, state in self.donor.states.items():
                    given = self._state_to_give(source, state, states.get(source, {}), left_out)
                    with suppress(RecipeError, KeyError):
                        live.sources[source].restore(given)
                if left_out != "order":
                    self._override_order()
                return
            continuations[left_out] = continuation
        self.parent.reply_and_exit(continuations)

    def _state_to_give(
        self, source: str, state: Mapping[str, Any], own: Mapping[str, Any], left_out: str
    ) -> dict[str, Any]:
        """Return the donor's state of a source, with the recipient's own leaves for `left_out`."""
        if left_out == source:
            return dict(own)
        stream = left_out.partition("/")[2] if left_out.startswith(f"{source}/") else ""
        kept = {leaf: value for leaf, value in own.items() if stream and leaf == f"{stream}/state"}
        return {**but_keys(state), **kept}

    def _donor_indices(self) -> list[Any]:
        """Return the donor's next index batches; empty if a loader does not number them."""
        waiting = [index for step in self.donor.continuation.indices for index in step]
        has_loader = self.clock.record.loader is not None
        usable = has_loader and all(index is not None for index in waiting)
        return waiting if usable else []

    def _override_order(self) -> None:
        waiting, loader = self._donor_indices(), self.clock.record.loader
        if waiting:
            assert loader is not None
            self.clock.override.begin(loader, QueuedIndices(waiting))

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            self.parent.reply_and_exit(ended_continuation(self, str(ending), self.at))
        where = f"step {self.at}, where it was to take over the other's memory"
        self.parent.reply_and_exit(self.ended_early(ending, where))


def _difference(one: Continuation, other: Continuation, at: int) -> str:
    """Say the first difference of two continuations."""
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


_STEPS_COMPARED = 20  # steps after the move


def study_sufficiency(planned: ScriptPlan) -> dict[str, Any]:
    """Check a study's inventory on its first two seeds, at its fork. The result is kept in the store.

    Optional: a fork copies the whole process, so arms are sound without it. The check shows whether memory
    exists that was neither treated nor found.
    """
    job, study = planned.job, planned.job.study
    one, other = study.seeds[:2]
    until = min(study.end, study.fork_at + _STEPS_COMPARED)
    address = digest(
        ["bygones.sufficiency", job.addresses.recipe, job.addresses.contract, one, other, until]
    )
    known = job.store.records(address).get("sufficiency")
    if known is None:
        found = check_sufficiency(job.script, job.home, (one, other), study.fork_at, until)
        known = {**found.to_dict(), "said": str(found)}
        job.store.write_record(address, "sufficiency", known)
    return {"sufficiency": known}
