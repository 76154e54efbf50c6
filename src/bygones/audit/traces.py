"""Traces of an observer: what differs in a run before and after it, and how to put each difference back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from bygones.attach.live_run import Live
from bygones.audit.continuation import States, units
from bygones.core.digest import same_bits
from bygones.core.text import join_names
from bygones.core.values import State
from bygones.training.sources import AbstractSource

MODES = "the modules' mode"
_LEAVES_NAMED = 3


@dataclass(frozen=True)
class Trace:
    """A source that an observer changed, whether that alters the run, and from which loss on.

    `leaves`: its parts that changed, by name. `untried`: why no twin could show whether it alters the run.
    """

    source: str
    alters: bool
    first_loss: int | None = None
    leaves: tuple[str, ...] = ()
    untried: str = ""

    def __str__(self) -> str:
        named = join_names(self.leaves, limit=_LEAVES_NAMED)
        what = f"{self.source} ({named})" if named and named != self.source else self.source
        if self.untried:
            return (
                f"changes {what}; whether this alters the run was not tried, since {self.untried}"
            )
        if not self.alters:
            return f"changes {what}, without consequence here"
        when = "" if self.first_loss is None else f", from the loss of step {self.first_loss} on"
        return f"changes {what}, and the run is another one for it{when}"


@dataclass(frozen=True)
class Observer:
    """A stretch of code that observes the run: its place, its number of calls, and what it changed.

    `feeds`: whether training goes on from what it computes, so that it is a part of training.
    """

    place: str
    step: int  # the step after which it was first called
    calls: int
    traces: tuple[Trace, ...] = ()
    feeds: bool = False

    @property
    def alters(self) -> bool:
        return not self.feeds and any(trace.alters for trace in self.traces)

    def __str__(self) -> str:
        if self.feeds:
            return f"{self.place} is a part of training: later losses depend on what it computes."
        if not self.traces:
            return f"{self.place} leaves the run as it was ({self.calls} looked at)."
        return f"{self.place} {'; '.join(str(trace) for trace in self.traces)}."

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "alters": self.alters}


@dataclass(frozen=True)
class Look:
    """A run at one moment: its sources, their states, and the mode of each trained module."""

    live: Live
    states: States
    modes: tuple[tuple[nn.Module, bool], ...]

    def source(self, name: str) -> AbstractSource | None:
        return self.live.sources[name] if name in self.live.sources else None


@dataclass(frozen=True)
class Change:
    """A piece of memory that differs between two moments.

    `leaves`: those that differ, and `names` what the script calls them. `before`: the piece as it was.
    """

    name: str
    leaves: tuple[str, ...]
    names: tuple[str, ...]
    before: State
    earlier: AbstractSource | None
    later: AbstractSource | None

    def put_back(self) -> None:
        """Set the piece to what it was before; the rest of its source is left alone."""
        source = self.later or self.earlier
        assert source is not None
        kept = source.capture() if self.later is not None else {}
        gone = {leaf for leaf in self.leaves if leaf not in self.before}
        kept = {leaf: value for leaf, value in kept.items() if leaf not in gone}
        missing = {
            leaf: self.before[leaf] for leaf in self.leaves if leaf in self.before.keys() - kept
        }
        if not source.locations:
            source.restore({**kept, **self.before})
            return
        source.imitate({**kept, **{k: v for k, v in self.before.items() if k in kept}})
        if missing and self.earlier is not None:
            # Put back where it lay: a variable that holds None now, say.
            self.earlier.restore(missing)

    def parts(self) -> list[Change]:
        """Split a change of several of the script's variables into one for each of them."""
        source = self.later or self.earlier
        if source is None or not source.locations or len(self.leaves) < 2:
            return [self]
        return [
            Change(
                self.name,
                (leaf,),
                (name,),
                {leaf: self.before[leaf]} if leaf in self.before else {},
                self.earlier,
                self.later,
            )
            for leaf, name in zip(self.leaves, self.names, strict=True)
        ]


def look_at(live: Live, states: States) -> Look:
    """Return the moment's states together with the modes of the trained modules."""
    modes = tuple((m, m.training) for root in live.trained.values() for m in root.modules())
    return Look(live, states, modes)


def changed_modes(before: Look) -> list[tuple[nn.Module, bool]]:
    """Return the modules that are in another mode now, with the one that they were in."""
    return [(module, mode) for module, mode in before.modes if module.training != mode]


def put_modes_back(modules: list[tuple[nn.Module, bool]]) -> None:
    for module, mode in modules:
        module.training = mode


def changes_between(before: Look, after: Look) -> Iterator[Change]:
    """Yield each piece of memory that differs between two moments, the modules' modes excepted."""
    pieces: dict[str, tuple[str, list[str]]] = {}
    for states in (before.states, after.states):
        for name, source, leaves in units(states):
            known = pieces.setdefault(name, (source, []))[1]
            known += [leaf for leaf in leaves if leaf not in known]
    for name, (source, leaves) in pieces.items():
        earlier, later = before.source(source), after.source(source)
        was, now = _held(before, source, later), after.states.get(source, {})
        locations = {**getattr(earlier, "locations", {}), **getattr(later, "locations", {})}
        differing = [
            leaf
            for leaf in leaves
            if not _is_mode(locations.get(leaf))
            and _differs(was, now, leaf, is_variable=bool(locations), is_new=earlier is None)
        ]
        if differing:
            names = tuple(getattr(locations.get(leaf), "path", leaf) for leaf in differing)
            piece = {leaf: was[leaf] for leaf in leaves if leaf in was}
            named = () if source == "streams" else names
            yield Change(name, tuple(differing), named, piece, earlier, later)


def _held(before: Look, source: str, later: AbstractSource | None) -> Mapping[str, Any]:
    """Return a source's state before. One that was not memory then was as before the first update."""
    known = before.states.get(source, {})
    unchanged = later is not None and (later.locations or source not in before.states)
    return {**(later.baseline if later is not None and unchanged else {}), **known}


def _differs(was: State, now: State, leaf: str, *, is_variable: bool, is_new: bool) -> bool:
    if leaf in was and leaf in now:
        return not same_bits(was[leaf], now[leaf])
    if leaf in was:
        return True
    return not is_variable and not is_new  # such as moments of a parameter that had none


def _is_mode(location: Any) -> bool:
    """Test for a module's attribute `training`, which is compared as its mode."""
    return isinstance(getattr(location, "owner", None), nn.Module) and (
        location.step == ".training"
    )
