"""A regime map of handwritten digits: `bygones dynamics map docs/examples/digits_regimes.py:tanh`."""

import torch
from torch import nn

import bygones
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images


def recipe(seed: int, lr: float = 0.05, relu: bool = False) -> bygones.Parts:
    """Build an MLP 64-32-10 without normalization; SGD with momentum, batches of 64."""
    inputs, targets = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU() if relu else nn.Tanh(), nn.Linear(32, 10))
    return bygones.Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        data=(inputs[:NUM_TRAIN], targets[:NUM_TRAIN]),
        order=bygones.Reshuffle(num_examples=NUM_TRAIN, batch_size=64),
        probe_set=(inputs[NUM_TRAIN:], targets[NUM_TRAIN:]),
    )


def tanh() -> bygones.Study:
    """A reset of momentum after 100 steps."""
    reset = bygones.Arm(
        "reset momentum", bygones.Treatment("moments", bygones.Reset(), bygones.Window(100, 101))
    )
    return bygones.Study(
        recipe, [reset], fork_at=100, horizons=(10, 40, 150), seeds=range(8), name="digits, tanh"
    )


def relu() -> bygones.Study:
    """The same with ReLU."""
    one = tanh()
    return bygones.Study(
        bygones.Recipe.of(recipe, relu=True), one.arms, 100, one.horizons, one.seeds, "digits, ReLU"
    )
