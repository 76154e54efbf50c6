"""Arms of a resume check: the whole run again, forked where the resumed run begins.

    carried   as it was           sham      all sources captured and restored
    reset     a source made new   resumed   a source as the resumed run held it

What is often without effect (a log, a counter, a random stream from which few draw) is tried together with
others of its kind, and separately only where that makes another run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.index_override import QueuedIndices
from bygones.attach.isolation.fork import Child
from bygones.attach.live_run import Live
from bygones.attach.sources.variables import closure_cell
from bygones.attach.step_clock import trains
from bygones.attach.training_loop import LoopWatch
from bygones.attach.watched_process import Ending
from bygones.audit.audited_run import AuditedRun
from bygones.audit.continuation import (
    NOT_RUN,
    Continuation,
    States,
    capture_sources,
    continuation_of,
    differing_leaves,
    ended_continuation,
    equal_states,
    fresh_leaves,
    other_leaves,
    plain_values,
    same_run,
    units,
    untried,
    variable_digests,
)
from bygones.audit.resume_runs import Held, ReferenceRun, ResumedState
from bygones.audit.resuming.causes import (
    BRIEF,
    TOGETHER,
    Causes,
    Search,
    find_causes,
    run_search,
    run_side_by_side,
)
from bygones.core.errors import DesignError, RecipeError, ScriptError
from bygones.core.values import State
from bygones.training.sources import AbstractSource

_BRIEF_STEPS = 2
_LARGE = ("weights", "moments", "gradients", "batchnorm", "buffers")
RESULTS = ("variable", "result", "display")  # kinds of sources that may be mere results
_Treatments = Mapping[str, Callable[[], None]]


@dataclass(frozen=True)
class ForkedArms:
    """State of the whole run at the same boundary, and the continuations of its arms by name.

    theirs      the state of the resumed run that it is compared with
    kinds       by source: "variable" or, if bound after the first update, "result", or, if part of a
                progress bar or a log that is written, "display"; else its origin
    no_reset    why a source cannot be made new
    differing   the pieces that the resumed run holds otherwise, as it held them
    groups      the names of arms that are tried together first
    causes      what explains the resumed run, where no source alone does
    digests     of the script's variables at the boundary; empty where no arm of two steps can be run
    epoch_ago   what the uninterrupted run held one epoch before, but for its weights and moments
    lost_in     of a job: the ranks that hold a piece otherwise in the resumed run, by its name
    """

    states: States
    numbers: Mapping[str, Any]
    theirs: Held
    kinds: Mapping[str, str]
    continuations: Mapping[str, Continuation]
    no_reset: Mapping[str, str] = field(default_factory=dict)
    differing: Mapping[str, State] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    causes: Causes = field(default_factory=Causes)
    digests: Mapping[str, str] = field(default_factory=dict)
    epoch_ago: States = field(default_factory=dict)
    lost_in: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def search_causes(self, resumed: ResumedState) -> Search[Causes]:
        """Search for what explains the resumed run; see `find_causes`."""
        results = [name for name in self.differing if self.kinds.get(name) in RESULTS]
        return find_causes(self.continuations, self.differing, results, resumed, self.digests)


def try_alone(name: str) -> Search[dict[str, Continuation]]:
    """Run one arm; return its continuation by its name."""
    return {name: (yield name)}


def try_groups(
    names: tuple[str, ...], found: Mapping[str, Continuation]
) -> Search[dict[str, Continuation]]:
    """Find which of several treatments make another run, by trying them together and halving.

    Yields the names of arms to run, and is sent their continuations; then that of "carried" is in `found`.
    Returns the continuation of each: of those that made no difference together, that of the group.
    """
    if not names:
        return {}
    together = yield TOGETHER.join(names)
    if len(names) == 1 or same_run(found["carried"], together):
        return dict.fromkeys(names, together)
    half = len(names) // 2
    first = yield from try_groups(names[:half], found)
    rest = yield from try_groups(names[half:], found)
    return {**first, **rest}


class _IsArm(Exception):
    """Raised in a forked arm, which leaves the search for arms and goes on with the script."""


class ForkingRun(AuditedRun):
    """Run the whole run again, and fork its arms at the boundary where the resumed run begins.

    `only`: for a process that cannot be forked, the one arm that this process becomes. If it is empty, the
    run only replies the names of the arms. `at_once`: how many arms run side by side.
    """

    def __init__(
        self,
        whole: ReferenceRun,
        resumed: ResumedState,
        end: int,
        only: str | None,
        at_once: int,
        *given: Any,
    ) -> None:
        assert resumed.start is not None
        self.epoch_ago = resumed.start.step - _epoch_length(whole, resumed.start.step)
        stops = {resumed.start.step, *({self.epoch_ago} if self.epoch_ago > 0 else ())}
        super().__init__(*given, stops=frozenset(stops))
        self.only, self.at_once = only, at_once
        self.whole, self.start, self.resumed, self.end = whole, resumed.start, resumed, end
        self.clock.delay = resumed.start.passes
        self.streams_later: State = {}
        self.held_then: States = {}
        self.theirs = resumed.start.held
        self.candidates: list[Held] = []  # what the resumed run held at the head of the loop
        self.heads = list(whole.heads.get(resumed.start.step, ()))
        self.watch = LoopWatch(whole.loops, self._at_head)
        self.variables: tuple[dict[str, str], ...] | None = None  # of an arm of two steps

    def on_update(self, step: int) -> None:
        if step == self.start.step and self.heads and not self.is_arm:
            self.watch.start()

    def _at_head(self, level: int) -> None:
        """Stop at the last head of the outermost loop that is executed before the boundary.

        The resumed run is then compared at the head of the same loop. Inside an accumulation window the
        first head after the backward passes is taken.
        """
        if not self.clock.is_due:
            return
        outermost = min(self.heads)
        if self.start.passes == 0:
            passed = self.heads.pop(0)
            if passed != outermost or outermost in self.heads:
                return
        self.watch.stop()
        mine = self.start.held.states.get("weights", {})
        candidates = [
            held
            for held in self.start.at_heads.get(level, ())
            if equal_states(held.states.get("weights", {}), mine)
        ]
        if candidates:
            self.candidates = candidates
            self.clock.call_back()

    def at_boundary(self, step: int) -> None:
        if self.is_arm:
            self._reply_as_arm(step)
            return
        if step == self.epoch_ago != self.start.step:
            live = self.find_live(self.whole.expected)
            self.held_then = capture_sources(live, but={*_LARGE, *aliases_in(live)})
            return
        if self.only is None:
            self.check_fork()
        self._check_past(step)
        live = self.find_live(self.whole.expected)
        self.watch.stop()
        held = capture_sources(live, but=aliases_in(live))
        if self.candidates:
            self.theirs = min(self.candidates, key=lambda other: _count_differing(held, other))
        no_reset: dict[str, str] = {}
        differing: dict[str, State] = {}
        arms = dict(self._arms(live, held, no_reset, differing))
        groups = self._groups(live, arms)
        kinds = {
            name: self._kind_of(source, live.displays) for name, source in live.sources.items()
        }
        try:
            continuations = self._run_arms(arms, groups)
            found = ForkedArms(
                held,
                plain_values(live),
                self.theirs,
                kinds,
                continuations,
                no_reset,
                differing,
                groups,
                digests=variable_digests(live),
                epoch_ago=self.held_then,
            )
            if self.only is None:
                search = found.search_causes(self.resumed)
                folder = self.folder / "arm"
                causes = run_search(
                    search, lambda name: self.continuation_from(self._fork(name, folder, arms))
                )
                found = replace(found, causes=causes)
        except _IsArm:
            return
        self.parent.reply_and_exit(found)

    def _reply_as_arm(self, step: int) -> None:
        """Reply at the last boundary; an arm that is followed briefly keeps its variables before."""
        live = self.find_live(self.whole.expected)
        if self.variables is not None:
            self.variables += (variable_digests(live),)
            if step != self.start.step + _BRIEF_STEPS:
                return
        start, inputs = self.start, self.whole.inputs
        continuation = continuation_of(self, live, inputs, start.step, start.passes)
        self.parent.reply_and_exit(
            replace(continuation, streams_later=self.streams_later, variables=self.variables or ())
        )

    def _groups(self, live: Live, arms: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the arms of what is often without effect: those made new, and those as resumed.

        These are mere results, and random streams other than torch's, from which few scripts draw.
        """
        results = {name for name, source in live.sources.items() if source.is_result}

        def is_quiet(name: str) -> bool:
            return name in results or (name.startswith("streams/") and name != "streams/torch")

        return tuple(
            tuple(arm for arm in arms if arm.startswith(how) and is_quiet(arm.removeprefix(how)))
            for how in ("reset ", "resumed ")
        )

    def _run_arms(
        self, arms: _Treatments, groups: tuple[tuple[str, ...], ...]
    ) -> dict[str, Continuation]:
        """Return the continuations of all arms. Raises `_IsArm` in an arm, which goes on with the script."""
        alone = [name for name in arms if not any(name in group for group in groups)]
        if self.only == "":
            return dict.fromkeys(alone, NOT_RUN)
        if self.only is not None:
            self.is_arm = True
            self._become(self.only, arms)
            raise _IsArm
        found: dict[str, Continuation] = {}
        searches = [try_alone(name) for name in alone]
        searches += [try_groups(group, found) for group in groups]
        run_side_by_side(
            searches,
            found,
            lambda name, slot: self._fork(name, self.folder / f"arm{slot}", arms),
            self.continuation_from,
            self.at_once,
        )
        return found

    def _fork(self, name: str, folder: Path, arms: _Treatments) -> Child:
        """Fork an arm. Raises `_IsArm` in it."""
        child = self.fork_arm(folder)
        if child is None:
            self._become(name, arms)
            raise _IsArm
        return child

    def _become(self, name: str, arms: _Treatments) -> None:
        """Turn this process into an arm, or into several that are tried together."""
        self.clock.delay = 0
        self.clock.stop_only_at(self.end)
        if name.startswith(BRIEF):
            name = name.removeprefix(BRIEF)
            self.clock.stops = frozenset(self.start.step + n for n in range(1, _BRIEF_STEPS + 1))
            self.variables = ()
        if name == "carried":
            # The streams at the first call of the model are compared in this arm only.
            self._module_hook = register_module_forward_pre_hook(self._before_module)
        try:
            for one in [name] if name in arms else name.split(TOGETHER):
                if self.rank is None or one in arms:  # an arm of a job may treat some ranks only
                    arms[one]()
        except (RecipeError, KeyError) as error:
            if self.rank is not None:
                self.rank.note_failure()
            self.parent.reply_and_exit(untried(str(error)))

    def _kind_of(self, source: AbstractSource, displays: Collection[str]) -> str:
        assert self.baseline is not None
        if not source.is_result:
            return source.origin
        paths = [place.path for place in source.locations.values()]
        if all(path.startswith(tuple(f"{shown}." for shown in displays)) for path in paths):
            return "display"
        return "variable" if any(path in self.baseline.data for path in paths) else "result"

    def finish(self, ending: Ending) -> NoReturn:
        if self.is_arm:
            ended = ended_continuation(self, str(ending), self.start.step, self.start.passes)
            self.parent.reply_and_exit(ended)
        where = f"step {self.start.step}, where the resumed run begins"
        self.parent.reply_and_exit(self.ended_early(ending, where))

    def _check_past(self, step: int) -> None:
        """Raise unless data and losses so far are those of the whole run."""
        record, whole = self.clock.record, self.whole
        if record.losses != list(whole.losses[:step]) or any(
            record.batches.contents.get(s) != whole.contents.get(s) for s in range(step)
        ):
            raise ScriptError(
                f"{self.script} does not repeat itself with seed {self.seed}, so a resumed run cannot be "
                f"told from another one. Something in it is not decided by its seed."
            )

    def _arms(
        self,
        live: Live,
        held: States,
        no_reset: dict[str, str],
        differing: dict[str, State],
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield each arm's name and treatment; see `treatments_of`."""
        yield from treatments_of(live, held, self.theirs, no_reset, differing)
        order = self._order_as_resumed()
        if order is not None:
            yield "resumed order", order

    def _before_module(self, module: nn.Module, *_: Any) -> None:
        if trains(module):
            self._module_hook.remove()
            self.streams_later = self.find_live().sources["streams"].capture()

    def _order_as_resumed(self) -> Callable[[], None] | None:
        """Return what makes this run fetch the resumed run's batches; None if they are the same."""
        mine = [self.whole.indices.get(s) or [] for s in range(self.start.step, self.end)]
        mine[0] = mine[0][self.start.passes :]
        theirs = list(self.resumed.continuation.indices)
        if not theirs or mine[: len(theirs)] == theirs[: len(mine)]:
            return None
        queue = [index for step in theirs for index in step]
        loader = self.clock.record.loader
        if loader is None or any(index is None for index in queue):
            return None
        return lambda: self.clock.override.begin(loader, QueuedIndices(queue))


def treatments_of(
    live: Live,
    held: States,
    theirs: Held,
    no_reset: dict[str, str],
    differing: dict[str, State],
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each arm's name and treatment.

    Notes why a source cannot be reset, and what the resumed run holds otherwise.
    """
    yield "carried", lambda: None
    yield "sham", lambda: _restore_all(live, held)
    for name, source, leaves in units(held):
        mine = {leaf: held[source][leaf] for leaf in leaves}
        memory = live.sources[source]
        try:
            fresh = fresh_leaves(live, source, leaves)
        except (DesignError, RecipeError) as error:
            no_reset[name] = str(error)
            fresh = None
        if fresh is not None and not equal_states(fresh, mine):
            yield f"reset {name}", partial(_put_in, memory.restore, memory, mine, fresh)
        resumed = differing_leaves(name, source, mine, theirs.states, theirs.roots)
        if resumed is not None:
            differing[name] = resumed
            yield f"resumed {name}", partial(_put_in, memory.imitate, memory, mine, resumed)


def _put_in(
    write: Callable[[State], None], memory: AbstractSource, mine: State, leaves: State
) -> None:
    """Write leaves of a source in place of `mine`; its others stay as they are now."""
    write({**other_leaves(memory.capture(), mine), **leaves})


def _epoch_length(whole: ReferenceRun, step: int) -> int:
    """Return the number of steps of the last epoch that ended by this step; 0 if none did."""
    begun = [edge for edge in whole.epochs if edge <= step]
    return begun[-1] - begun[-2] if len(begun) > 1 else 0


def _count_differing(held: States, theirs: Held) -> int:
    """Count the pieces of memory that another run holds otherwise."""
    return sum(
        differing_leaves(
            name, source, {leaf: held[source][leaf] for leaf in leaves}, theirs.states, theirs.roots
        )
        is not None
        for name, source, leaves in units(held)
    )


def aliases_in(live: Live) -> set[str]:
    """Return the names of variables whose value is that of an earlier one, under another name."""
    seen: set[int] = set()
    aliases: set[str] = set()
    for name, source in live.sources.items():
        places = source.locations.values()
        values = {id(p.value) for p in places if not _is_shared(p.value)}
        values |= {id(cell) for p in places if (cell := closure_cell(p)) is not None}
        if values and values <= seen:
            aliases.add(name)
        seen |= values
    return aliases


def _is_shared(value: Any) -> bool:
    """Test for a value that Python may use for several variables without their being connected."""
    return value is None or isinstance(value, bool | int | float | str | bytes | tuple)


def _restore_all(live: Live, states: States) -> None:
    for source, state in states.items():
        live.sources[source].restore(state)
