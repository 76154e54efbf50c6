"""Curricula on handwritten digits: the order of the examples, and augmentation in two stages.

    scored      the easiest first, by a score that does not depend on the run      Curriculum
    anti        the hardest first
    self-paced  the examples whose last known loss is below a growing threshold    SelfPaced
    sorted      one class after the other                                         Blocked
    GraB        the order that balances the gradients of the last epoch           GraB
    staged      noise on the pixels from half of the run on; exchanged, in the first half

The score of an example is its loss under a nearest-mean classifier, which needs no training:

    score = cross-entropy(-|x - mean of class c|² / 2, label)

With wrong labels in part of the data, their scores are high, so a curriculum leaves them for the end.
Bengio et al. 2009 (doi:10.1145/1553374.1553380); Wu, Dyer & Neyshabur 2021 (arXiv:2012.03107), who find
that curricula help with noisy labels or a small budget alone.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bygones.analysis.signature import Signature, all_of, effect_at, is_above, is_below
from bygones.core.study_facts import facts_of
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Replace, Reseed, Roll
from bygones.training.orders import (
    AbstractOrder,
    Blocked,
    Curriculum,
    GraB,
    Reshuffle,
    SelfPaced,
)
from bygones.training.recipe import Batch, Parts, Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images

BATCH_SIZE = 32
STEPS = 440  # ten epochs
Name = Literal["reshuffle", "scored", "anti", "self-paced", "sorted", "GraB"]


def recipe(
    seed: int,
    lr: float = 0.03,
    noise: float = 0.0,
    steps: int = STEPS,
    pace: float = 0.2,
    strength: float = 0.1,
    order: Name = "reshuffle",
) -> Parts:
    """Build an MLP 64-32-10; SGD with momentum 0.9 and batches of 32, for `steps` steps.

    `lr`: learning rate. `noise`: share of the training labels that are wrong, the same for all seeds.
    `pace`: the share of the steps after which a curriculum is open to all examples; above 1, never.
    `strength`: standard deviation of the noise on the pixels in the second half. `order`: see the module.
    Needs scikit-learn (the extra `regimes`).
    """
    inputs, labels = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        data=(inputs[:NUM_TRAIN], noisy_labels(noise), torch.arange(NUM_TRAIN)),
        order=order_policy(order, noise, steps, pace),
        train_step=_train_staged,
        others={
            "stages": torch.tensor([0.0, strength]),
            "stage clock": {"step": 0, "length": max(1, steps // 2)},
        },
        probe_set=(inputs[NUM_TRAIN:], labels[NUM_TRAIN:]),
        probe_images=inputs[NUM_TRAIN:].reshape(-1, 8, 8),
    )


@cache
def noisy_labels(noise: float) -> Tensor:
    """Return the training labels, int64 [1437], of which a share `noise` is replaced by another class."""
    labels = load_digit_images()[1][:NUM_TRAIN].numpy()
    rng = np.random.default_rng(3)
    wrong = (labels + rng.integers(1, 10, size=NUM_TRAIN)) % 10
    chosen = rng.permutation(NUM_TRAIN)[: round(noise * NUM_TRAIN)]
    labels = labels.copy()
    labels[chosen] = wrong[chosen]
    return torch.from_numpy(labels)


@cache
def difficulty(noise: float) -> tuple[float, ...]:
    """Return the score of each training example: its loss under the nearest-mean classifier."""
    inputs, labels = load_digit_images()[0][:NUM_TRAIN].double(), noisy_labels(noise)
    means = torch.stack([inputs[labels == c].mean(dim=0) for c in range(10)])
    logits = -(torch.cdist(inputs, means) ** 2) / 2
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return tuple(losses.tolist())


def order_policy(name: Name, noise: float, steps: int, pace: float) -> AbstractOrder:
    """Return an order of the training examples, in phases of a run of `steps` steps."""
    size, growth = (NUM_TRAIN, BATCH_SIZE), max(1, round(pace * steps))
    match name:
        case "reshuffle":
            return Reshuffle(*size)
        case "scored":
            return Curriculum(*size, scores=difficulty(noise), growth=growth)
        case "anti":
            return Curriculum(*size, scores=tuple(-x for x in difficulty(noise)), growth=growth)
        case "self-paced":  # from 1 nat, half of what guessing costs, to 10 at the end
            return SelfPaced(*size, threshold=1.0, growth=10 ** (1 / steps))
        case "sorted":
            labels = tuple(noisy_labels(noise).tolist())
            return Blocked(*size, blocks=labels, length=max(1, steps // 10))
        case "GraB":
            return GraB(*size, dimension=64 * 32 + 32 + 32 * 10 + 10)


def _train_staged(parts: Parts, batch: Batch) -> Tensor:
    """Take one step on the batch with this stage's noise, tell the order how it went, return the loss."""
    images, labels, rows = batch
    clock = parts.others["stage clock"]
    stage = min(clock["step"] // clock["length"], 1)
    images = images + parts.others["stages"][stage] * torch.randn_like(images)
    clock["step"] += 1
    losses = nn.functional.cross_entropy(parts.model(images), labels, reduction="none")
    match parts.cursor.order.feedback:
        case "losses":
            parts.cursor.give_feedback(rows.numpy(), losses.detach().numpy())
        case "gradients":
            gradients = example_gradients(parts.model, images, labels)
            parts.cursor.give_feedback(rows.numpy(), gradients.numpy())
    loss = losses.mean()
    loss.backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    return loss


def example_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradient of each example's loss by all parameters, float32 [B, D]."""
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        outputs = functional_call(model, weights, (image[None],))
        return nn.functional.cross_entropy(outputs, label[None])

    by_name = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    return torch.cat([by_name[name].flatten(1) for name in weights], dim=1)


def study(noise: float = 0.0, steps: int = STEPS, pace: float = 0.2) -> Study:
    """Design a study of five orders and the stages, from the first step to the last: seven arms, 16 seeds.

    Each order is in force for the whole run; the stages of augmentation are exchanged, and the order is
    drawn again, at step 0.

    `noise`: share of wrong labels. `steps`: the budget, which the phases of the orders are stretched to.
    `pace`: see `recipe`.
    """
    whole = Window(0, steps)
    names: tuple[Name, ...] = ("scored", "anti", "self-paced", "sorted", "GraB")
    policies = {name: order_policy(name, noise, steps, pace) for name in names}
    return Study(
        name="curriculum",
        recipe=Recipe.of(recipe, noise=noise, steps=steps, pace=pace),
        fork_at=0,
        horizons=tuple(sorted({1, steps // 10, steps // 4, steps // 2, steps})),
        seeds=range(16),
        margins={"accuracy": 0.01},  # a percentage point
        arms=(
            *(
                Arm(name, Treatment("order", Replace({"policy": policy}), whole))
                for name, policy in policies.items()
            ),
            Arm("exchange the stages", Treatment("stages", Roll(1), Window(0, 1))),
            Arm("re-draw the order", Treatment("order", Reseed(), Window(0, 1))),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge what curricula do on clean digits, and what one class after the other does."""
    end = (facts_of(outcomes).margins or {}).get("accuracy", 0.01)
    clean = Signature(
        "curricula do not help on clean labels",
        f"the easiest first changes the accuracy by less than {end:g}",
        "Wu, Dyer & Neyshabur 2021 (arXiv:2012.03107)",
    )
    apart = Signature(
        "one class after the other is forgotten",
        "the accuracy falls by more than a half",
        "McCloskey & Cohen 1989 (doi:10.1016/S0079-7421(08)60536-8)",
    )
    return (
        clean.unless_followed(outcomes, STEPS) or _judge_clean(outcomes, clean, end),
        apart.unless_followed(outcomes, STEPS) or _judge_sorted(outcomes, apart),
    )


def _judge_clean(outcomes: xr.Dataset, clean: Signature, margin: float) -> Signature:
    change = effect_at(outcomes, "scored", STEPS, "accuracy").estimate
    within = all_of(is_above(change, -margin), is_below(change, margin))
    return clean.seen(f"accuracy {change}", within)


def _judge_sorted(outcomes: xr.Dataset, apart: Signature) -> Signature:
    change = effect_at(outcomes, "sorted", STEPS, "accuracy").estimate
    return apart.seen(f"accuracy {change}", is_below(change, -0.5))
