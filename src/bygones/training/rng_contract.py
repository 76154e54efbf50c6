"""The RNG contract of a run, written down: which streams there are, how each is derived, which draw.

    {"contract": "addressed", "derivation": …, "looked_at": [step, step],
     "streams": [{"name", "generator", "derived", "drawn", "drawn_by"}, …],
     "dtypes": […], "threads": …, "deterministic": …, "environment": {…}}

`drawn` is seen, not declared: a generator that is not where it was put has been drawn from. What draws
only now and then may not have done so in the steps that were `looked_at`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from bygones.core.digest import same_bits
from bygones.training.generators import (
    global_states,
    preserve_global_generators,
    seed_global_generators,
)
from bygones.training.recipe import Batch, build
from bygones.training.run import Run

NUM_STEPS = 3

# What libraries read when they are loaded, and what decides bits.
_VARIABLES = (
    "PYTHONHASHSEED",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_CBWR",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
)
_DERIVATION = (
    "the first 64 bits of SHA-256 over an address: key = (seed, role), and at a place (key, step or "
    "epoch); what was drawn before does not count (bygones.core.keyed_rng/1)"
)
_GLOBALS = {"dropout": "torch", "numpy": "numpy", "python": "python"}


def addressed_contract(run: Run) -> dict[str, Any]:
    """The RNG contract of a recipe's run. Trains a few steps to see what draws, and goes back."""
    kept, start = run.snapshot(), run.step
    drawn: set[str] = set()
    with _augmenting(run, drawn):
        # At a boundary the global generators stand where the step before it left them.
        run.advance(start + NUM_STEPS + 1, at_boundary=lambda here: _look(here, start, drawn))
    run.restore(kept)
    return {
        "contract": "addressed",
        "derivation": _DERIVATION,
        "looked_at": [start, start + NUM_STEPS],
        "streams": [_init(run), _order(run), _augmentation(run, drawn), *_of_steps(run, drawn)],
        **surroundings(run.parts.model.parameters()),
    }


def surroundings(parameters: Iterable[Tensor]) -> dict[str, Any]:
    """What besides generators decides bits: types, threads, settings, environment (None: not set)."""
    return {
        "dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
    }


def stream(
    name: str, generator: str, derived: str, *, drawn: bool | None, drawn_by: str
) -> dict[str, Any]:
    """One stream of the document. `drawn` is None where it could not be seen."""
    return {
        "name": name,
        "generator": generator,
        "derived": derived,
        "drawn": drawn,
        "drawn_by": drawn_by if drawn else "",
    }


def _look(run: Run, start: int, drawn: set[str]) -> None:
    """Notes which global generators are not where they were put before the last step."""
    if run.step == start or run.diverged_at is not None:
        return
    left = global_states()
    with preserve_global_generators():
        seed_global_generators(run.parts.keys, run.step - 1)
        put = global_states()
    drawn |= {role for role, name in _GLOBALS.items() if left[name] != put[name]}


@contextmanager
def _augmenting(run: Run, drawn: set[str]) -> Iterator[None]:
    """Sees whether `augment` draws from the generator that it is given."""
    augment = run.parts.augment
    if augment is None:
        yield
        return

    def watched(batch: Batch, generator: torch.Generator) -> Batch:
        before = generator.get_state()
        try:
            return augment(batch, generator)
        finally:
            if not same_bits(before, generator.get_state()):
                drawn.add("augmentation")

    run.parts.augment = watched
    try:
        yield
    finally:
        run.parts.augment = augment


def _init(run: Run) -> dict[str, Any]:
    sources = set(run.parts.built_from)
    # What is imported on the way may draw once, and is no part of the recipe.
    if sources - {"torch"}:
        sources &= set(build(run.recipe, run.seed).built_from)
    return stream(
        "init",
        "the global generators of python, numpy and torch, while the recipe builds its parts",
        "(key of init, 0)",
        drawn=bool(sources),
        drawn_by=f"the recipe, from {_listed(sources)}",
    )


def _order(run: Run) -> dict[str, Any]:
    """An order is arithmetic on its key, so whether it draws shows in what another key would give."""
    order, key = run.parts.order, run.parts.cursor.key
    positions = range(min(order.steps_per_epoch, 8))
    drawn = any(not same_bits(order.rows(key, p), order.rows(key + 1, p)) for p in positions)
    return stream(
        "order",
        "a numpy Philox generator of its own, for each draw",
        "(key of order, epoch or position)",
        drawn=drawn,
        drawn_by=type(order).__name__,
    )


def _augmentation(run: Run, drawn: set[str]) -> dict[str, Any]:
    name = getattr(run.parts.augment, "__qualname__", type(run.parts.augment).__name__)
    return stream(
        "augmentation",
        "a torch generator of its own, handed to augment",
        "(key of augmentation, step)",
        drawn="augmentation" in drawn,
        drawn_by=name,
    )


def _of_steps(run: Run, drawn: set[str]) -> Iterator[dict[str, Any]]:
    """The global generators, which are put at their addresses before each step."""
    layers = [m for m in run.parts.model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    kinds = _listed({type(layer).__name__ for layer in layers})
    can = f" (the model has {kinds})" if layers else ""
    for role, name in _GLOBALS.items():
        bits = "" if role == "python" else ", of which it takes 32 bits"
        yield stream(
            role,
            f"{name}'s global generator within a step",
            f"(key of {role}, step){bits}",
            drawn=role in drawn,
            drawn_by=f"the training step{can if role == 'dropout' else ''}",
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
