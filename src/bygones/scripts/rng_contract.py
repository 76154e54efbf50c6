"""RNG contract of a script: its generators are memory that is carried from step to step."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from bygones.attach.isolation.script import Script
from bygones.attach.live_run import Baseline, Live
from bygones.attach.step_clock import Clock
from bygones.core.digest import same_bits
from bygones.core.values import State
from bygones.training.generators import global_generators
from bygones.training.rng_contract import describe_environment, describe_stream

_DERIVATION = (
    "each draw goes on from where the last one left its generator, so one more draw shifts all that come "
    "after it"
)
_WORKERS = {
    "name": "workers",
    "generator": "the global generators of each of a loader's worker processes",
    "derived": "seeded by torch, anew in each epoch, from a number that its global generator draws",
    "drawn": None,
    "drawn_by": "",
}


def carried_contract(live: Live, first: Baseline, script: Script, clock: Clock) -> dict[str, Any]:
    """Return the RNG contract at this boundary; a stream that moved since the first update is drawn from."""
    streams: Any = live.sources["streams"]
    before, now = first.states["streams"], streams.capture()
    rows = [
        _row(name, generator, before, now, script)
        for name, generator in streams.generators().items()
    ]
    return {
        "contract": "carried",
        "derivation": _DERIVATION,
        "looked_at": [0, clock.step],
        "streams": [*rows, *([_WORKERS] if clock.record.num_workers else [])],
        **describe_environment(live.parameters.values()),
    }


def _row(name: str, generator: Any, before: State, now: State, script: Script) -> dict[str, Any]:
    """Describe one generator; `drawn` is None if it did not exist before the first update."""
    leaf = f"{name}/state"
    moved = not same_bits(before[leaf], now[leaf]) if leaf in before else None
    is_global = name in global_generators()
    kind = _kind(generator)
    seeded = f"a seed reaches it by {script.seeded_by}" if is_global else "seeded by the script"
    return describe_stream(
        name,
        f"the global generator of {name} ({kind})" if is_global else f"a private {kind}",
        f"carried from step to step; {seeded}",
        drawn=moved,
        drawn_by="the script",
    )


def _kind(generator: Any) -> str:
    match generator:
        case torch.Generator():
            return f"torch.Generator on {generator.device}"
        case np.random.Generator():
            return f"numpy Generator, {type(generator.bit_generator).__name__}"
        case np.random.RandomState():
            return "numpy RandomState, MT19937"
        case random.Random():
            return "random.Random, MT19937"
        case _:
            return type(generator).__name__
