"""Arms of a resume check: the whole run again, forked where the resumed run begins.

    carried   as it was           sham      all sources captured and restored
    reset     a source made new   resumed   a source as the resumed run held it

What may be a mere result (a log, a counter) is tried together with others of its kind, and separately only
where that makes another run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bygones.attach.index_override import QueuedIndices
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
)
from bygones.audit.resume_runs import Held, ReferenceRun, ResumedState
from bygones.core.errors import DesignError, RecipeError, ScriptError
from bygones.core.values import State
from bygones.training.sources import AbstractSource

_TOGETHER = " + "  # between the names of arms that are tried together


@dataclass(frozen=True)
class ForkedArms:
    """State of the whole run at the same boundary, and the continuations of its arms by name.

    theirs      the state of the resumed run that it is compared with
    kinds       by source: "variable" or, if bound after the first update, "result"; else its origin
    no_reset    why a source cannot be made new
    differing   the pieces that the resumed run holds otherwise, as it held them
    groups      the names of arms that are tried together first
    """

    states: States
    numbers: Mapping[str, Any]
    theirs: Held
    kinds: Mapping[str, str]
    continuations: Mapping[str, Continuation]
    no_reset: Mapping[str, str] = field(default_factory=dict)
    differing: Mapping[str, State] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()


def try_groups(
    names: tuple[str, ...], control: Continuation
) -> Generator[str, Continuation, dict[str, Continuation]]:
    """Find which of several treatments make another run, by trying them together and halving.

    Yields the names of arms to run, and is sent their continuations. Returns the continuation of each: of
    those that made no difference together, that of the group.
    """
    if not names:
        return {}
    together = yield _TOGETHER.join(names)
    if len(names) == 1 or same_run(control, together):
        return dict.fromkeys(names, together)
    half = len(names) // 2
    first = yield from try_groups(names[:half], control)
    rest = yield from try_groups(names[half:], control)
    return {**first, **rest}


def run_groups(
    groups: Iterable[tuple[str, ...]], control: Continuation, run: Callable[[str], Continuation]
) -> dict[str, Continuation]:
    """Run the arms of each group as `try_groups` asks for them; return the continuation of each name."""
    found: dict[str, Continuation] = {}
    for group in groups:
        search = try_groups(group, control)
        try:
            name = next(search)
            while True:
                name = search.send(run(name))
        except StopIteration as done:
            found |= done.value
    return found


class ForkingRun(AuditedRun):
    """Run the whole run again, and fork its arms at the boundary where the resumed run begins.

    `only`: for a process that cannot be forked, the one arm that this process becomes. If it is empty, the
    run only replies the names of the arms.
    """

    def __init__(
        self, whole: ReferenceRun, resumed: ResumedState, end: int, only: str | None, *given: Any
    ) -> None:
        assert resumed.start is not None
        super().__init__(*given, stops=frozenset({resumed.start.step}))
        self.only = only
        self.whole, self.start, self.resumed, self.end = whole, resumed.start, resumed, end
        self.clock.delay = resumed.start.passes
        self.streams_later: State = {}
        self.theirs = resumed.start.held
        self.candidates: list[Held] = []  # what the resumed run held at the head of the loop
        self.heads = list(whole.heads.get(resumed.start.step, ()))
        self.watch = LoopWatch(whole.loops, self._at_head)

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
            live = self.find_live(self.whole.expected)
            start, inputs = self.start, self.whole.inputs
            continuation = continuation_of(self, live, inputs, start.step, start.passes)
            self.parent.reply_and_exit(replace(continuation, streams_later=self.streams_later))
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
        continuations = self._run_arms(arms, groups)
        if continuations is None:
            return
        kinds = {name: self._kind_of(source) for name, source in live.sources.items()}
        numbers, theirs = plain_values(live), self.theirs
        self.parent.reply_and_exit(
            ForkedArms(held, numbers, theirs, kinds, continuations, no_reset, differing, groups)
        )

    def _groups(self, live: Live, arms: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the arms of what may be mere results: those made new, and those as resumed."""
        results = [name for name, source in live.sources.items() if source.is_result]
        named = [tuple(f"{how} {name}" for name in results) for how in ("reset", "resumed")]
        return tuple(tuple(name for name in names if name in arms) for names in named)

    def _run_arms(
        self, arms: Mapping[str, Callable[[], None]], groups: tuple[tuple[str, ...], ...]
    ) -> dict[str, Continuation] | None:
        """Return the continuations of all arms; None in an arm itself, which goes on with the script."""
        if self.only is not None:
            if self.only:
                self.is_arm = True
                self.clock.stop_only_at(self.end)
                self._become(self.only, arms)
                return None
            return dict.fromkeys((n for n in arms if not any(n in g for g in groups)), NOT_RUN)
        found: dict[str, Continuation] = {}
        for name in arms:
            if not any(name in group for group in groups):
                continuation = self._fork(name, arms)
                if continuation is None:
                    return None
                found[name] = continuation
        for group in groups:
            search = try_groups(group, found["carried"])
            try:
                name = next(search)
                while True:
                    continuation = self._fork(name, arms)
                    if continuation is None:
                        return None
                    name = search.send(continuation)
            except StopIteration as done:
                found |= done.value
        return found

    def _fork(self, name: str, arms: Mapping[str, Callable[[], None]]) -> Continuation | None:
        continuation = self.fork_continuation(self.end)
        if continuation is None:
            self._become(name, arms)
        return continuation

    def _become(self, name: str, arms: Mapping[str, Callable[[], None]]) -> None:
        """Turn this process into an arm, or into several that are tried together."""
        self.clock.delay = 0
        if name == "carried":
            # The streams at the first call of the model are compared in this arm only.
            self._module_hook = register_module_forward_pre_hook(self._before_module)
        try:
            for one in [name] if name in arms else name.split(_TOGETHER):
                arms[one]()
        except (RecipeError, KeyError) as error:
            self.parent.reply_and_exit(untried(str(error)))

    def _kind_of(self, source: AbstractSource) -> str:
        assert self.baseline is not None
        if not source.is_result:
            return source.origin
        first = self.baseline.data
        return "variable" if any(p.path in first for p in source.locations.values()) else "result"

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
        others = other_leaves(held[source], mine)
        memory = live.sources[source]
        try:
            fresh = fresh_leaves(live, source, leaves)
        except (DesignError, RecipeError) as error:
            no_reset[name] = str(error)
            fresh = None
        if fresh is not None and not equal_states(fresh, mine):
            yield f"reset {name}", partial(memory.restore, {**others, **fresh})
        resumed = differing_leaves(name, source, mine, theirs.states, theirs.roots)
        if resumed is not None:
            differing[name] = resumed
            yield f"resumed {name}", partial(memory.imitate, {**others, **resumed})


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
