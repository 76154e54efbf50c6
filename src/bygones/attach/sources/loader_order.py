"""Data order of a script: the DataLoader that its training steps come from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from torch.utils.data import IterableDataset
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from bygones.attach.index_override import QueuedIndices, Rule
from bygones.attach.step_clock import Clock
from bygones.attach.worker_emulation import InProcessWorkers
from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, Lifetime, Origin, State, Visibility
from bygones.training.generators import (
    generator_state,
    global_generators,
    reseed,
    set_generator_state,
)
from bygones.training.orders.cursor import NO_DETOUR
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource
from bygones.training.sources.base import refuse_reset


class LoaderOrder(AbstractSource):
    """Order of the examples: `position` (the step), `draw` (key of the sampler), `detour` (steps to show).

    The sampler is called exactly as in the control, so it consumes the same random numbers; only the
    indices it returns are overridden. A detour fetches what the control fetched in other steps. Another
    draw takes the indices from a copy of the sampler, with generators of its own, from the epoch's current
    position on. Lasts to the epoch's end.
    """

    name = "order"
    origin: Origin = "order"
    visibility: Visibility = "process"
    capabilities: frozenset[Capability] = frozenset({"order", "reseedable"})
    reset_refusal: ClassVar[str] = (
        "a loader's epoch that is under way cannot be begun again from outside. Use reseed, permute or "
        "swap-windows."
    )

    def __init__(self, clock: Clock, seed: int, shown: Mapping[int, Sequence[Any]]) -> None:
        self._clock = clock
        self._shown = shown  # index batches of each step of the control
        self._detour = NO_DETOUR
        self._key = mix(seed, "order")

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return None: a recipe's order is addressed; see `bygones.training.sources.order`."""
        return None

    def capture(self) -> State:
        return {"draw": self._key, "position": self._clock.step, "detour": self._detour.copy()}

    def restore(self, state: State) -> None:
        detour = np.asarray(state["detour"], dtype=np.int64)
        if len(detour) and not np.array_equal(detour, self._detour):
            self._detour = detour
            waiting = [index for step in detour.tolist() for index in self._shown[step]]
            self._override(QueuedIndices(waiting))
        if state["draw"] != self._key:
            self._key = state["draw"]
            self._override(_Redraw(self._key))

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)

    def lifetime(self) -> Lifetime:
        loader = self._clock.record.loader
        sampler: Any = None if loader is None else loader._index_sampler
        return Lifetime("phase", float(len(sampler))) if sampler else Lifetime("unbounded")

    def _override(self, rule: Rule) -> None:
        loader = self._clock.record.loader
        assert loader is not None
        self._clock.override.begin(loader, rule)


def can_be_rearranged(clock: Clock) -> bool:
    """Test whether training steps come from a loader that reads indexed examples in this process."""
    iterator = clock.record.loader
    if not isinstance(iterator, _SingleProcessDataLoaderIter | InProcessWorkers):
        return False
    if isinstance(iterator._dataset, IterableDataset):
        return False
    try:
        len(iterator._index_sampler)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


class _Redraw:
    """Rule: take the index batches from a copy of the sampler that draws from its own generators."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._epochs = 0
        self._indices: Iterator[Any] | None = None
        self._of: Any = None
        self._states: dict[str, Any] = {}

    def __call__(self, iterator: Any, index: Any) -> Any:
        if iterator._sampler_iter is not self._of:
            self._begin(iterator)
        try:
            with self._own_draws():
                assert self._indices is not None
                return next(self._indices)
        except StopIteration:
            return index

    def _begin(self, iterator: Any) -> None:
        """Begin an epoch: copy and reseed the sampler, and advance it to the epoch's current position."""
        done = getattr(iterator, "num_indexed", iterator._num_yielded)
        self._of = iterator._sampler_iter
        keep = {id(iterator._dataset): iterator._dataset}
        sampler = copy.deepcopy(iterator._index_sampler, keep)
        key = mix(self._key, self._epochs)
        self._epochs += 1
        self._states = {}
        with self._own_draws():
            for place, generator in enumerate(global_generators().values()):
                reseed(generator, mix(key, place))
            _reseed_within(sampler, key)
            self._indices = iter(sampler)
            for _ in range(done):
                next(self._indices, None)

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Set the global generators to the sampler's own states, and restore them afterwards."""
        generators = global_generators()
        kept = {name: generator_state(generator) for name, generator in generators.items()}
        for name, state in self._states.items():
            set_generator_state(generators[name], state)
        try:
            yield
        finally:
            self._states = {name: generator_state(g) for name, g in generators.items()}
            for name, state in kept.items():
                set_generator_state(generators[name], state)


def _reseed_within(sampler: Any, key: int) -> None:
    """Seed the generators of a sampler and of the sampler inside it, and its attribute `seed`."""
    seen = sampler
    while seen is not None:
        for name, value in list(getattr(seen, "__dict__", {}).items()):
            if generator_state(value) is not None:
                reseed(value, mix(key, name))
            elif name == "seed" and type(value) is int:
                seen.seed = mix(key, "seed") & 0x7FFFFFFF
        seen = getattr(seen, "sampler", None)
