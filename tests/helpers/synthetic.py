"""Outcomes made up on the spot, with effects of known size in them. No training, no torch.

Shapes: R seeds, A arms, H probe steps, N inputs, C classes, T train steps.

Every arm is `control + amplitude(seed, step) · direction`, where a direction is centred over the
classes and has root mean square 1 over inputs and classes. So the planted size *is* the logit RMS
(for `kind="values"` the RMS), to the rounding of the stored numbers, and `planted` returns it.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

FORK_AT = 300
STEPS = (300, 301, 310, 330, 380, 460, 600)
BATCHNORM_FOLD = -1.0 / np.log(0.9)  # e-fold of BatchNorm's buffers at momentum 0.1

# name -> (role, null_of, source, intervention, phrase)
ARMS = {
    "control": ("control", None, None, None, "carrying everything on"),
    "sham": ("sham", None, "moments", "carry", "doing nothing at step 300"),
    "reset-moments": ("treated", None, "moments", "reset", "resetting moments at step 300"),
    "reset-batchnorm": ("treated", None, "batchnorm", "reset", "resetting batchnorm at step 300"),
    "swap-order": ("treated", None, "order", "swap_windows", "swapping order at steps 300–339"),
    "reset-moments-null": (
        "null",
        "reset-moments",
        "moments",
        "matched_null",
        "kicking moments at random at step 300",
    ),
    "reset-batchnorm-null": (
        "null",
        "reset-batchnorm",
        "batchnorm",
        "matched_null",
        "kicking batchnorm at random at step 300",
    ),
    "swap-order-null": (
        "null",
        "swap-order",
        "order",
        "matched_null",
        "shuffling order anew at steps 300–339",
    ),
}


def shape_of_effect(arm: str, horizon: np.ndarray) -> np.ndarray:
    """What is planted, averaged over seeds: a logit RMS at each horizon (steps since the fork)."""
    after = horizon > 0  # a source that only acts through later steps cannot act at the fork
    moments = 0.15 * np.exp(-horizon / 400.0) * after
    batchnorm = 0.8 * np.exp(-horizon / BATCHNORM_FOLD)
    order = 0.05 * (1.0 - np.exp(-horizon / 50.0))
    return {
        "reset-moments": moments,
        "reset-moments-null": 0.4 * moments,
        "reset-batchnorm": batchnorm,
        "reset-batchnorm-null": 0.5 * batchnorm,
        "swap-order": order,
        "swap-order-null": order,  # cannot be told from its null, on purpose
    }.get(arm, np.zeros_like(horizon, dtype=float))


def planted(arm: str, num_seeds: int = 8, seed: int = 0, steps=STEPS) -> np.ndarray:
    """The planted size of each seed's effect, shape (R, H): the shape times a factor a seed."""
    rng = np.random.default_rng([seed, 1, sorted(ARMS).index(arm)])
    factor = np.exp(0.1 * rng.standard_normal(num_seeds))
    return factor[:, None] * shape_of_effect(arm, np.asarray(steps) - FORK_AT)[None, :]


def make_outcomes(
    num_seeds: int = 8,
    num_inputs: int = 64,
    num_classes: int = 5,
    seed: int = 0,
    kind: str = "logits",
    diverged: tuple[tuple[str, int, int], ...] = (),
    steps: tuple[int, ...] = STEPS,
    more_arms: int = 0,
    image_size: int | None = None,
) -> xr.Dataset:
    """Outcomes of a study that never ran.

    `kind` is "logits" or "values" (a run whose function is a plain number per input and output).
    `diverged` lists (arm, seed index, step): that cell is NaN from that step on.
    `more_arms` adds treated arms that repeat reset-moments, to try larger studies.
    `image_size` adds an `images` of so many pixels a side for each input.
    """
    rng = np.random.default_rng([seed, 0])
    arms = dict(ARMS)
    for extra in range(more_arms):
        arms[f"reset-moments-{extra}"] = ARMS["reset-moments"]
    R, N, C, T = num_seeds, num_inputs, num_classes, max(steps)

    labels = rng.integers(C, size=N)
    truth = np.eye(C)[labels]
    shared = 2.5 * truth + rng.standard_normal((N, C))  # what every seed learns
    own = 0.5 * rng.standard_normal((R, 1, N, C))  # what only this seed learns: the ceiling
    drift = 0.002 * rng.standard_normal((R, 1, N, C)) * (np.asarray(steps) - FORK_AT)[:, None, None]
    control = shared + own + drift  # (R, H, N, C)

    outputs = np.repeat(control[:, None], len(arms), axis=1)  # (R, A, H, N, C)
    for a, arm in enumerate(arms):
        base = arm if arm in ARMS else "reset-moments"
        towards = -2.0 * truth if base == "reset-batchnorm" else 0.0  # this one costs accuracy
        direction = towards + rng.standard_normal((R, 1, N, C))
        direction = direction - direction.mean(axis=-1, keepdims=True)
        direction = direction / np.sqrt((direction**2).mean(axis=(-2, -1), keepdims=True))
        amplitude = planted(base, R, seed, steps)[:, :, None, None]
        outputs[:, a] = outputs[:, a] + amplitude * direction

    loss = 0.1 + 2.0 * np.exp(-np.arange(T) / 80.0) + 0.05 * rng.standard_normal((R, 1, T))
    train_loss = np.repeat(np.abs(loss), len(arms), axis=1)
    for a, arm in enumerate(arms):
        if "batchnorm" not in arm:  # BatchNorm's buffers do not feed back into training
            size = shape_of_effect(arm if arm in ARMS else "reset-moments", np.arange(T) - FORK_AT)
            noise = rng.standard_normal((R, T))
            train_loss[:, a] += np.where(np.arange(T) > FORK_AT, 0.1 * size * noise, 0.0)

    diverged_at = np.full((R, len(arms)), np.nan)
    for arm, which, step in diverged:
        a = list(arms).index(arm)
        diverged_at[which, a] = step
        outputs[which, a, np.asarray(steps) >= step] = np.nan
        train_loss[which, a, step:] = np.nan

    cell = ("seed", "arm", "step", "input", "class")
    data: dict = {
        "train_loss": (("seed", "arm", "train_step"), train_loss.astype(np.float32)),
        "diverged_at": (("seed", "arm"), diverged_at),
    }
    if kind == "logits":
        data["logits"] = (cell, outputs.astype(np.float32))
        data["labels"] = ("input", labels.astype(np.int64))
    else:
        data["values"] = (cell, outputs)
    if image_size is not None:
        pictures = np.random.default_rng([seed, 2]).random((N, image_size, image_size))
        data["images"] = (("input", "height", "width"), pictures)
    coords = {
        "seed": np.arange(R),
        "arm": list(arms),
        "step": np.asarray(steps),
        "train_step": np.arange(T),
    }
    return xr.Dataset(data, coords=coords, attrs=_attributes(arms, R))


_LIFETIMES = {
    "moments": ("e-fold 9.491 steps (half-life 6.579)", float(BATCHNORM_FOLD)),
    "batchnorm": ("e-fold 9.491 steps (half-life 6.579)", float(BATCHNORM_FOLD)),
    "order": ("at most 40 steps (to the end of its phase)", 40.0),
    "weights": ("unbounded", None),
}


def _attributes(arms: dict, num_seeds: int) -> dict:
    described = []
    for name, (role, null_of, source, intervention, phrase) in arms.items():
        treatments = []
        if source is not None:
            lifetime, steps = _LIFETIMES[source]
            treatments.append(
                {
                    "source": source,
                    "intervention": intervention,
                    "window": [FORK_AT, FORK_AT + (40 if source == "order" else 1)],
                    "leaves": "*",
                    "lifetime": lifetime,
                    "lifetime_steps": steps,
                }
            )
        described.append(
            {
                "name": name,
                "role": role,
                "null_of": null_of,
                "noun": "a random kick as large" if role == "null" else None,
                "treatments": treatments,
                "sentence": phrase,
            }
        )
    origins = {
        "weights": ("path", "state_dict", 6, 43_048),
        "moments": ("optimizer", "state_dict", 6, 43_048),
        "batchnorm": ("normalisation", "state_dict", 3, 520),
        "order": ("order", "process", 1, 8),
    }
    return {
        "study": "made-up",
        "recipe": "tests.helpers.synthetic:make_outcomes",
        "fork_at": FORK_AT,
        "contract": {"device": "cpu", "threads": 1, "torch": "none", "numpy": np.__version__},
        "num_steps": {"naive": 1200, "shared": 700},
        "arms": described,
        "sources": [
            {
                "name": name,
                "origin": origin,
                "visibility": visibility,
                "lifetime": _LIFETIMES[name][0],
                "leaves": leaves,
                "bytes": size,
            }
            for name, (origin, visibility, leaves, size) in origins.items()
        ],
        "digests": {"study": "5a" * 32, "recipe": "7e" * 32},
        "orders": {
            "policy": "reshuffled each epoch",
            "policy_hash": "0d" * 32,
            "realised": {str(seed): f"{seed:02x}" * 32 for seed in range(num_seeds)},
        },
        "findings": [
            "window shorter than lifetime: the reset of moments at step 300 is 1 step long, "
            "their e-fold is 9.491 steps"
        ],
        "certificate": {
            "passed": True,
            "boundaries": [1, 7, 8, 23],
            "until": 40,
            "needed": ["weights", "moments", "order"],
            "inert": ["batchnorm"],
        },
    }
