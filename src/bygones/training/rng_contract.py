"""RNG contract document: the random streams of a run, how each is derived, and which are drawn from.

    {"contract": "addressed", "derivation": …, "looked_at": [step, step],
     "streams": [{"name", "generator", "derived", "drawn", "drawn_by"}, …],
     "dtypes": […], "threads": …, "deterministic": …, "environment": {…}}

`drawn` is measured: a generator whose state differs from the one it was seeded with was drawn from. The
steps `looked_at` are few, so a stream that is drawn from only occasionally can be missed.
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

# Environment variables that libraries read when they are loaded and that can change bits.
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
    """Describe the RNG contract of a recipe's run.

    Trains NUM_STEPS + 1 steps to measure which streams are drawn from, then restores the run.
    """
    kept, start = run.snapshot(), run.step
    drawn: set[str] = set()
    with _watching_augmentation(run, drawn):
        # At a boundary the global generators are in the state that the step before it left.
        run.advance(start + NUM_STEPS + 1, at_boundary=lambda here: _note_draws(here, start, drawn))
    run.restore(kept)
    return {
        "contract": "addressed",
        "derivation": _DERIVATION,
        "looked_at": [start, start + NUM_STEPS],
        "streams": [
            _describe_init(run),
            _describe_order(run),
            _describe_augmentation(run, drawn),
            *_describe_globals(run, drawn),
        ],
        **describe_environment(run.parts.model.parameters()),
    }


def describe_environment(parameters: Iterable[Tensor]) -> dict[str, Any]:
    """Describe what else decides bits: dtypes, threads, settings, environment variables (None: not set)."""
    return {
        "dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
    }


def describe_stream(
    name: str, generator: str, derived: str, *, drawn: bool | None, drawn_by: str
) -> dict[str, Any]:
    """Build one stream of the document; `drawn` is None where it cannot be measured."""
    return {
        "name": name,
        "generator": generator,
        "derived": derived,
        "drawn": drawn,
        "drawn_by": drawn_by if drawn else "",
    }


def _note_draws(run: Run, start: int, drawn: set[str]) -> None:
    """Add to `drawn` the roles whose generators changed since they were seeded for the last step."""
    if run.step == start or run.diverged_at is not None:
        return
    after = global_states()
    with preserve_global_generators():
        seed_global_generators(run.parts.keys, run.step - 1)
        before = global_states()
    drawn |= {role for role, name in _GLOBALS.items() if after[name] != before[name]}


@contextmanager
def _watching_augmentation(run: Run, drawn: set[str]) -> Iterator[None]:
    """Add "augmentation" to `drawn` if `augment` draws from its generator within the block."""
    augment = run.parts.augment
    if augment is None:
        yield
        return

    def augment_and_compare(batch: Batch, generator: torch.Generator) -> Batch:
        before = generator.get_state()
        try:
            return augment(batch, generator)
        finally:
            if not same_bits(before, generator.get_state()):
                drawn.add("augmentation")

    run.parts.augment = augment_and_compare
    try:
        yield
    finally:
        run.parts.augment = augment


def _describe_init(run: Run) -> dict[str, Any]:
    sources = set(run.parts.built_from)
    # A library may draw once when the recipe first imports it. Build again to leave such draws out.
    if sources - {"torch"}:
        sources &= set(build(run.recipe, run.seed).built_from)
    return describe_stream(
        "init",
        "the global generators of python, numpy and torch, while the recipe builds its parts",
        "(key of init, 0)",
        drawn=bool(sources),
        drawn_by=f"the recipe, from {', '.join(sorted(sources))}",
    )


def _describe_order(run: Run) -> dict[str, Any]:
    """Describe the order's stream. An order is a function of its key, so compare it with another key."""
    order, key = run.parts.order, run.parts.cursor.key
    positions = range(min(order.steps_per_epoch, 8))
    drawn = any(not same_bits(order.rows(key, p), order.rows(key + 1, p)) for p in positions)
    return describe_stream(
        "order",
        "a numpy Philox generator of its own, for each draw",
        "(key of order, epoch or position)",
        drawn=drawn,
        drawn_by=type(order).__name__,
    )


def _describe_augmentation(run: Run, drawn: set[str]) -> dict[str, Any]:
    name = getattr(run.parts.augment, "__qualname__", type(run.parts.augment).__name__)
    return describe_stream(
        "augmentation",
        "a torch generator of its own, handed to augment",
        "(key of augmentation, step)",
        drawn="augmentation" in drawn,
        drawn_by=name,
    )


def _describe_globals(run: Run, drawn: set[str]) -> Iterator[dict[str, Any]]:
    """Describe the streams of the global generators, which are seeded anew before each step."""
    layers = [m for m in run.parts.model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
    can = f" (the model has {kinds})" if layers else ""
    for role, name in _GLOBALS.items():
        bits = "" if role == "python" else ", of which it takes 32 bits"
        yield describe_stream(
            role,
            f"{name}'s global generator within a step",
            f"(key of {role}, step){bits}",
            drawn=role in drawn,
            drawn_by=f"the training step{can if role == 'dropout' else ''}",
        )
