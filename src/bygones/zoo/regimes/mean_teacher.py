"""Mean teacher on handwritten digits: fifty labels, and a slow copy of the student as a second teacher.

    loss = cross-entropy(student(x + noise), y on the labelled images)
           + w(t)·mean |softmax(student(u + noise)) - softmax(teacher(u + noise'))|²
    teacher <- d·teacher + (1 - d)·student,   d = min(1 - 1/(t + 1), decay)
    w(t) = weight·exp(-5·(1 - min(1, t/ramp))²)

u: unlabelled images. t: the counter of the teacher's updates, which is memory too: a new one lets the teacher
follow the student at once and begins the ramp again. decay 0 makes the teacher the student itself (the Pi
model); decay 1 with a used counter freezes it. Tarvainen & Valpola 2017 (arXiv:1703.01780), sections 2 and 3.
"""

from __future__ import annotations

import copy
import math

import torch
import xarray as xr
from torch import Tensor, nn

from bygones.analysis.signature import Signature, all_of, effect_at, is_below
from bygones.core.values import Lifetime, Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Hold, Replace, Reset, Transplant
from bygones.training.orders import Reshuffle
from bygones.training.probes import Logits
from bygones.training.recipe import Batch, Memory, Parts
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, draw_view, load_digit_images

BATCH_SIZE = 64
LABELS_PER_CLASS = 5


def recipe(
    seed: int,
    lr: float = 0.1,
    decay: float = 0.95,
    weight: float = 10.0,
    ramp: int = 100,
    frozen: bool = False,
) -> Parts:
    """Build student and teacher 64-128-10; SGD with momentum 0.9, 50 labelled and 64 other images a step.

    `lr`: learning rate. `decay`: d of the teacher. `weight`: of the consistency loss, reached after `ramp`
    steps. `frozen`: the teacher stays as it was built. Needs scikit-learn (the extra `regimes`).
    """
    inputs, labels = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    labelled = torch.cat(
        [torch.nonzero(labels[:NUM_TRAIN] == c)[:LABELS_PER_CLASS, 0] for c in range(10)]
    )
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        data=(inputs[:NUM_TRAIN],),
        order=Reshuffle(num_examples=NUM_TRAIN, batch_size=BATCH_SIZE),
        augment=_Views(inputs[labelled]),
        train_step=_Step(labels[labelled]),
        others={
            "teacher": Memory(
                copy.deepcopy(model).requires_grad_(False),
                origin="averaging",
                visibility="state_dict",
                lifetime=Lifetime.decaying(1.0 if frozen else decay),
                fresh=lambda parts: parts.model,  # a new one is a copy of the student
            ),
            "updates": {"count": 0},
            "consistency": {
                "decay": 1.0 if frozen else decay,
                "weight": weight,
                "ramp": ramp,
                "frozen": frozen,
            },
        },
        probe_set=(inputs[NUM_TRAIN:], labels[NUM_TRAIN:]),
        probe_images=inputs[NUM_TRAIN:].reshape(-1, 8, 8),
    )


class _Views:
    """Draw what student and teacher see: the labelled images, and two views of the unlabelled ones."""

    def __init__(self, labelled: Tensor) -> None:
        self.labelled = labelled

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        seen = (self.labelled, batch[0], batch[0])
        return tuple(draw_view(images, generator) for images in seen)


class _Step:
    """The training step, with the labels of the labelled images."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __call__(self, parts: Parts, batch: Batch) -> Tensor:
        labelled, one, other = batch
        teacher, updates = parts.others["teacher"].value, parts.others["updates"]
        settings = parts.others["consistency"]
        outputs = parts.model(torch.cat([labelled, one]))
        with torch.no_grad():
            target = teacher(other).softmax(dim=1)
        apart = (outputs[len(labelled) :].softmax(dim=1) - target).square().sum(dim=1).mean()
        ramped = min(1.0, updates["count"] / settings["ramp"])
        supervised = nn.functional.cross_entropy(outputs[: len(labelled)], self.labels)
        loss = supervised + settings["weight"] * math.exp(-5 * (1 - ramped) ** 2) * apart
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        decay = min(1 - 1 / (updates["count"] + 1), settings["decay"])
        if not settings["frozen"]:
            with torch.no_grad():
                for slow, now in zip(teacher.parameters(), parts.model.parameters(), strict=True):
                    slow.lerp_(now, 1 - decay)
        updates["count"] += 1
        return loss


def study() -> Study:
    """Design a study of the teacher, its counter and its decay: six arms, 16 seeds, teacher seen as well.

    Every arm acts once, at step 200, but for the held teacher and the decay of 0: these last 20 steps.
    """
    at = Window(200, 201)
    return Study(
        name="mean_teacher",
        recipe=recipe,
        fork_at=200,
        horizons=(0, 1, 5, 20, 50, 100, 200),
        seeds=range(16),
        probe=Logits(also=("teacher",)),
        margins={"accuracy": 0.01},
        arms=(
            Arm("reset teacher", Treatment("teacher", Reset(), at)),
            Arm("reset teacher's counter", Treatment("updates", Reset(), at)),
            Arm("hold teacher for 20 steps", Treatment("teacher", Hold(), Window(200, 220))),
            Arm(
                "decay 0 for 20 steps",
                Treatment("consistency", Replace({"decay": 0.0}), Window(200, 220)),
            ),
            Arm("another seed's teacher", Treatment("teacher", Transplant(), at)),
            Arm("reset momentum", Treatment("moments", Reset(), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether a teacher without memory, and one that stands still, cost the student accuracy."""
    between = Signature(
        "a decay between none and frozen is best",
        "the student loses accuracy in 20 steps with decay 0, and in 20 steps with the teacher held "
        "(tests/zoo/test_mean_teacher.py trains with either from the start)",
        "Tarvainen & Valpola 2017 (arXiv:1703.01780), figure 4",
    )
    return (between.unless_followed(outcomes, 20) or _judge_between(outcomes, between),)


def _judge_between(outcomes: xr.Dataset, between: Signature) -> Signature:
    none, held = (
        effect_at(outcomes, arm, 20, "accuracy").estimate
        for arm in ("decay 0 for 20 steps", "hold teacher for 20 steps")
    )
    return between.seen(
        f"accuracy {none} with decay 0, {held} with the teacher held",
        all_of(is_below(none, 0.0), is_below(held, 0.0)),
    )
