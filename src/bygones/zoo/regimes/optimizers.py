"""One task, many optimizers: the first update after a full reset, against the one with its state carried on.

    carried = w(t + 1) - w(t)                      with the optimizer's state as it is
    reset   = w(t + 1) - w(t)                      with the state of a new optimizer, on the same batch
    size    = |reset| / |carried|,   turn = cosine of the angle between them

What a reset does depends on how an optimizer sets the length of its steps. Where the state accumulates
gradients (heavy ball), the first step is short. Where it divides by their size (Adam), that of a new one is
the largest it ever takes. Where the length is nearly fixed (Lion's signs, Muon's orthogonal matrices), the
direction is lost above all; and plain SGD has nothing to lose. The network has no biases, since Muon takes
matrices alone. torch's own, schedule-free (arXiv:2405.15682) and those of pytorch-optimizer (extra
`optimizers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.analysis.signature import Signature
from bygones.core.catalogue import unknown_name
from bygones.core.errors import RecipeError
from bygones.core.extras import import_extra
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reset, Scale, Transplant
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Batch, Parts, Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images

# Package, class and settings by name. The learning rates are common ones, not tuned.
OPTIMIZERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SGD": ("torch.optim", "SGD", {"lr": 0.1}),
    "heavy ball": ("torch.optim", "SGD", {"lr": 0.05, "momentum": 0.9}),
    "Nesterov": ("torch.optim", "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "Adam": ("torch.optim", "Adam", {"lr": 2e-3}),
    "AdamW": ("torch.optim", "AdamW", {"lr": 2e-3}),
    "Adamax": ("torch.optim", "Adamax", {"lr": 2e-3}),
    "NAdam": ("torch.optim", "NAdam", {"lr": 2e-3}),
    "RAdam": ("torch.optim", "RAdam", {"lr": 2e-3}),
    "RMSprop": ("torch.optim", "RMSprop", {"lr": 1e-3}),
    "Adagrad": ("torch.optim", "Adagrad", {"lr": 0.02}),
    "Adadelta": ("torch.optim", "Adadelta", {"lr": 1.0}),
    "Adafactor": ("torch.optim", "Adafactor", {"lr": 0.02}),
    "Rprop": ("torch.optim", "Rprop", {"lr": 1e-3}),
    "ASGD": ("torch.optim", "ASGD", {"lr": 0.1}),
    "Muon": ("torch.optim", "Muon", {"lr": 0.02, "weight_decay": 0.0}),
    "schedule-free SGD": ("schedulefree", "SGDScheduleFree", {"lr": 0.5}),
    "schedule-free AdamW": ("schedulefree", "AdamWScheduleFree", {"lr": 5e-3}),
    "Lion": ("pytorch_optimizer", "Lion", {"lr": 5e-4}),
    "SOAP": ("pytorch_optimizer", "SOAP", {"lr": 2e-3, "precondition_frequency": 10}),
    "AdaBelief": ("pytorch_optimizer", "AdaBelief", {"lr": 2e-3}),
    "Adan": ("pytorch_optimizer", "Adan", {"lr": 2e-3}),
    "Prodigy": ("pytorch_optimizer", "Prodigy", {"lr": 1.0}),
}


def recipe(seed: int, optimizer: str = "AdamW") -> Parts:
    """Build an MLP 64-64-10 without biases; batches of 64, and one of `OPTIMIZERS`.

    Needs scikit-learn (the extra `regimes`), and for optimizers that are not torch's the extra `optimizers`.
    Raises `UnknownName` for another optimizer, and `RecipeError` where its package is missing.
    """
    inputs, labels = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 10, bias=False))
    return Parts(
        model=model,
        optimizer=build_optimizer(optimizer)(model.parameters()),
        data=(inputs[:NUM_TRAIN], labels[:NUM_TRAIN]),
        order=Reshuffle(num_examples=NUM_TRAIN, batch_size=64),
        train_step=_step,
        probe_set=(inputs[NUM_TRAIN:], labels[NUM_TRAIN:]),
        probe_images=inputs[NUM_TRAIN:].reshape(-1, 8, 8),
    )


def build_optimizer(name: str) -> Callable[[Any], Optimizer]:
    """Return the constructor of an optimizer by its name here, with its settings."""
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    package, kind, settings = OPTIMIZERS[name]
    found = getattr(import_extra(package, f"the optimizer {name}"), kind, None)
    if found is None:
        raise RecipeError(f"{package}, as it is installed, has no {kind}. Install a newer one.")
    return lambda parameters: found(parameters, **settings)


def _step(parts: Parts, batch: Batch) -> Tensor:
    """Take the default step; schedule-free optimizers are set to training first."""
    inputs, labels = batch
    loss = parts.loss(parts.model(inputs), labels)
    loss.backward()
    for optimizer in parts.optimizers.values():
        switch = getattr(optimizer, "train", None)
        if switch is not None:
            switch()
        optimizer.step()
        optimizer.zero_grad()
    return loss


@dataclass(frozen=True)
class FirstUpdate:
    """The first update after a full reset against the carried one: ratio of lengths, and cosine.

    `turn` is nan where a new optimizer does not move at first (SOAP begins by measuring alone).
    """

    size: float
    turn: float


def first_update(optimizer: str, seed: int = 0, at: int = 200) -> FirstUpdate:
    """Train to step `at`, and take the next step twice: as it goes on, and with all optimizer state new.

    >>> first_update("SGD", at=3)
    FirstUpdate(size=1.0, turn=1.0)
    """
    run, moved = Run(Recipe.of(recipe, optimizer=optimizer), seed), []
    run.advance(at)
    fork, before = run.snapshot(), _flatten(run)
    resets: tuple[Sequence[Treatment], ...] = (
        (),
        (Treatment("moments", Reset(), Window(at, at + 1)),),
    )
    for treatments in resets:
        run.restore(fork)
        run.advance(at + 1, treatments)
        moved.append(_flatten(run) - before)
    carried, reset = moved
    sizes = carried.norm() * reset.norm()
    return FirstUpdate(
        round(float(reset.norm() / carried.norm()), 9), round(float(carried @ reset / sizes), 9)
    )


def _flatten(run: Run) -> Tensor:
    return nn.utils.parameters_to_vector(run.parts.model.parameters()).detach().double()


def study(optimizer: str = "AdamW") -> Study:
    """Design a study of one optimizer's state: reset, halved, of another seed; four arms, 16 seeds.

    Every arm acts once, at step 200; a nudge of the weights is there for comparison.
    """
    at = Window(200, 201)
    return Study(
        name="optimizers",
        recipe=Recipe.of(recipe, optimizer=optimizer),
        fork_at=200,
        horizons=(0, 1, 2, 5, 10, 20, 50, 100, 200),
        seeds=range(16),
        margins={"accuracy": 0.005},
        arms=(
            Arm("reset the state", Treatment("moments", Reset(), at)),
            Arm("halve the state", Treatment("moments", Scale(0.5), at)),
            Arm("another seed's state", Treatment("moments", Transplant(), at)),
            Arm("nudge weights 1e-3", Treatment("weights", Nudge(1e-3), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Name what a reset does to the first update, which other runs than the study's show."""
    first = Signature(
        "Adam's first update after a reset is longer than the carried one, heavy ball's shorter",
        "by the first update of each: lr · sign g, and one gradient instead of ten",
        "Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1",
    )
    return (first.seen("not in this study; trained by tests/zoo/test_optimizers.py", None),)
