"""Continuation: how a run goes on from a boundary, and whether two runs go on alike to the bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bygones.analysis.metrics.rms import root_mean_square
from bygones.analysis.metrics.tv import total_variation
from bygones.attach.live_run import Live
from bygones.attach.observed_models import observe_models
from bygones.attach.probe_inputs import Inputs
from bygones.attach.sources.carried_streams import but_keys
from bygones.attach.watched_process import WatchedProcess
from bygones.core.digest import is_array, same_bits
from bygones.core.first_difference import first_differing_index
from bygones.core.hash_chain import fast_digest
from bygones.core.values import State
from bygones.training.sources import SOURCES

States = Mapping[str, State]


@dataclass(frozen=True)
class Continuation:
    """How a run went on from a boundary, up to the last boundary that is compared.

    outputs         of the trained module (""), then of each average of it, at the last boundary
    states          digest of each source at the last boundary
    indices         index batches of each step
    contents        hashes of the batches of each step
    losses          loss of each step
    ended           how the run ended before the last boundary, in words; else empty
    untried         why the arm could not be tried, in words; else empty
    roots           the variables of the script at the last boundary
    streams_later   the random streams at the first step's call of the model
    variables       of an arm of two steps: digests of the script's variables after each of them
    ranks           of a job: how each process went on
    """

    outputs: Mapping[str, np.ndarray]
    states: Mapping[str, str]
    indices: tuple[Any, ...]
    contents: tuple[Any, ...]
    losses: tuple[float, ...]
    ended: str = ""
    untried: str = ""
    roots: frozenset[str] = frozenset()
    streams_later: State = field(default_factory=dict)
    variables: tuple[Mapping[str, str], ...] = ()
    ranks: tuple[Continuation, ...] = ()


NOT_RUN = Continuation({}, {}, (), (), (), "was not run")
KILLED = Continuation({}, {}, (), (), (), "was killed")


def untried(why: str) -> Continuation:
    """Return the continuation of an arm that could not be tried; `why` in words."""
    return Continuation({}, {}, (), (), (), untried=why)


def continuation_of(
    process: WatchedProcess, live: Live, inputs: Inputs | None, since: int, passes: int = 0
) -> Continuation:
    """Return the continuation of this run since a step, up to now."""
    states = {
        name: fast_digest(but_keys(source.capture()))
        for name, source in live.sources.items()
        if name != "order" and not source.is_result
    }
    outputs = {} if inputs is None else outputs_of(live, inputs)
    return Continuation(outputs, states, *steps_since(process, since, passes), roots=live.roots)


def ended_continuation(
    process: WatchedProcess, how: str, since: int, passes: int = 0
) -> Continuation:
    """Return the continuation of a run that ended before the last boundary; `how` in words."""
    return Continuation({}, {}, *steps_since(process, since, passes), how)


def steps_since(
    process: WatchedProcess, since: int, passes: int = 0
) -> tuple[Any, Any, tuple[float, ...]]:
    """Return indices, contents and losses of the steps since a boundary, `passes` backward passes left out.

    A boundary inside an accumulation window makes the first loss a partial one; it is set to 0.
    """
    record, steps = process.clock.record, range(since, process.clock.step)
    indices = [record.batches.indices.get(step) or [] for step in steps]
    contents = [record.batches.contents.get(step) or [] for step in steps]
    losses = record.losses[since:]
    if passes and steps:
        indices[0], contents[0], losses[0] = indices[0][passes:], contents[0][passes:], 0.0
    return tuple(indices), tuple(contents), tuple(losses)


def outputs_of(live: Live, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return the outputs of the trained module (""), and of each model that is kept beside it."""
    label, _, name = inputs.module.partition("/")
    if label not in live.trained and len(live.trained) == 1:  # its path differs in this run
        (label,) = live.trained
        inputs = replace(inputs, module=f"{label}/{name}")
    return observe_models(inputs, live)


def trained_tensors(optimizers: list[Any]) -> frozenset[str]:
    """Return a digest of each tensor that optimizers update; equal ones are numbered."""
    tensors: list[Tensor] = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    seen: Counter[str] = Counter()
    found = set()
    for tensor in tensors:
        value = fast_digest(tensor)
        seen[value] += 1
        found.add(f"{value}/{seen[value]}")
    return frozenset(found)


def trained_shapes(states: States) -> frozenset[tuple[int, ...]]:
    """Return the shapes of the trained arrays, of all of them in one vector, and of modules' buffers."""
    names = ("weights", "batchnorm", "buffers")
    held = [v for name in names for v in states.get(name, {}).values() if is_array(v)]
    whole = sum(int(np.prod(value.shape)) for value in states.get("weights", {}).values())
    return frozenset({(whole,), *(tuple(value.shape) for value in held if value.ndim > 0)})


def variable_digests(live: Live) -> dict[str, str]:
    """Return a digest of each of the script's variables and attributes that are no other source."""
    return {
        name: fast_digest(source.capture())
        for name, source in live.sources.items()
        if source.is_result
    }


def optimizer_arrays(optimizers: list[Any]) -> frozenset[str]:
    """Return a digest of each array in the states of optimizers, numbers excepted."""
    held = [v for o in optimizers for state in o.state.values() for v in state.values()]
    return frozenset(fast_digest(value) for value in held if is_array(value) and value.ndim > 0)


def capture_sources(live: Live, but: Collection[str] = ()) -> dict[str, State]:
    """Capture every source but some, and but the order, which is compared by its batches."""
    states: dict[str, State] = {}
    for name, source in live.sources.items():
        if name != "order" and name not in but:
            states[name] = source.capture()
    return states


def plain_values(live: Live) -> dict[str, Any]:
    """Return the plain values of the script's variables by path: hints at unexplained differences."""
    return {
        place.path: place.value
        for source in live.sources.values()
        for place in source.locations.values()
        if isinstance(place.value, bool | int | float | str)
    }


def units(states: States) -> list[tuple[str, str, list[str]]]:
    """Split states into the pieces that are checked: (name, source, leaves). Each stream is one."""
    found: list[tuple[str, str, list[str]]] = []
    for source, state in states.items():
        if source == "streams":
            for stream in sorted({leaf.rpartition("/")[0] for leaf in state}):
                found.append((f"streams/{stream}", source, [f"{stream}/state"]))
        else:
            found.append((source, source, list(state)))
    return found


def differing_leaves(
    name: str, source: str, mine: State, theirs: States, roots: Collection[str]
) -> State | None:
    """Return the leaves of a piece in the other run; None if they are equal.

    A source that the other run lacks has lost all of its leaves, and so none are returned. `roots`: the
    variables of the other run's script. A source that lies in a variable which the other run does not have
    is a name left over from an earlier step, and counts as equal.
    """
    if source not in theirs:
        return {} if mine and _should_be_there(source, roots) else None
    other = theirs[source]
    if source == "streams":
        leaf = next(iter(mine))
        if leaf not in other:
            return {} if _should_be_there(name.partition("/")[2], roots) else None
        other = {leaf: other[leaf]}
    other = _as_named(mine, other)
    return None if equal_states(mine, other) else other


def _should_be_there(name: str, roots: Collection[str]) -> bool:
    """Test whether a source is torch's own, or lies in a variable that the script has."""
    own = name.rstrip("_") in {*SOURCES, "averages", "scaler", "streams"}
    return own or any(
        name == root or (name.startswith(root) and name[len(root)] in ".[_ ") for root in roots
    )


def _as_named(mine: State, theirs: State) -> State:
    """Return another run's leaves by this run's names, where they are the same under other names.

    They are matched by position, if all of them have the same shapes and types.
    """
    if mine.keys() == theirs.keys() or len(mine) != len(theirs):
        return theirs
    pairs = list(zip(mine.values(), theirs.values(), strict=True))
    alike = all(is_array(a) and is_array(b) and _kind(a) == _kind(b) for a, b in pairs)
    return dict(zip(mine, theirs.values(), strict=True)) if alike else theirs


def _kind(array: Any) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), tuple(array.shape)


def other_leaves(state: State, mine: State) -> dict[str, Any]:
    return {leaf: value for leaf, value in state.items() if leaf not in mine}


def fresh_leaves(live: Live, source: str, leaves: list[str]) -> dict[str, Any]:
    fresh = live.sources[source].fresh()
    return {k: v for k, v in fresh.items() if source != "streams" or k in leaves}


def equal_states(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[leaf], other[leaf]) for leaf in one)


def same_continuation(one: Continuation, other: Continuation, but: str = "") -> bool:
    """Test two continuations for equality to the bit: data, losses, states (except source `but`), outputs.

    Sources in a variable that only one of them has are ignored (a checkpoint still held after it was
    written), and so are functions (of a model that nothing uses). Those of a job are compared rank by rank.
    """
    if one.ranks and len(one.ranks) == len(other.ranks):
        pairs = zip(one.ranks, other.ranks, strict=True)
        return all(same_continuation(mine, theirs, but) for mine, theirs in pairs)
    size = min(len(one.losses), len(other.losses))
    return (
        one.ended == other.ended
        and all(_same_at_end(one, other, n) for n in one.states.keys() | other.states if n != but)
        and one.contents[:size] == other.contents[:size]
        and one.losses[:size] == other.losses[:size]
        and one.untried == other.untried
        and all(
            np.array_equal(one.outputs[name], other.outputs[name], equal_nan=True)
            for name in one.outputs.keys() & other.outputs
        )
    )


def _same_at_end(one: Continuation, other: Continuation, source: str) -> bool:
    """Test whether a source ended alike in two runs, or lies in a variable that one of them lacks."""
    if source in one.states and source in other.states:
        return one.states[source] == other.states[source]
    lacking = other if source in one.states else one
    return bool(lacking.ended) or not _should_be_there(source, lacking.roots)


def same_run(one: Continuation, other: Continuation) -> bool:
    """Test two continuations for equality to the bit, the states of random streams excepted.

    A stream matters by the use of its draws. A new loader draws a base seed that it may not use, so a
    resumed run has another state of torch's stream, and yet is the same run.
    """
    return same_continuation(one, other, but="streams")


def distance(one: Continuation, other: Continuation, kind: str) -> dict[str, float] | None:
    """Return the distance of two functions by module: TV of probabilities, else RMS of outputs."""
    if not one.outputs or not other.outputs:
        return None
    return {
        name: function_distance(one.outputs[name], other.outputs[name], kind)
        for name in one.outputs
        if name in other.outputs
    }


def function_distance(one: np.ndarray, other: np.ndarray, kind: str) -> float:
    if kind == "logits":
        one, other = (
            torch.softmax(torch.as_tensor(logits, dtype=torch.float64), -1).numpy()
            for logits in (one, other)
        )
        return float(total_variation(one, other))
    return float(root_mean_square(one, other))


def first_unequal_loss(one: Continuation, other: Continuation, begin: int) -> int | None:
    """Return the first step after boundary `begin` whose loss differs; None where all are equal."""
    index = first_differing_index(one.losses, other.losses)
    return None if index is None else begin + index
