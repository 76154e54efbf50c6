"""Fine-tuning a pre-trained transformer on few examples: is a word good or bad?

    y = W·x + B·(A·x)          W: pre-trained and frozen;  A, B: of rank 4 and trained;  B = 0 at first

all-MiniLM-L6-v2 reads a word; its lower five layers are frozen and evaluated once, and the six matrices of
its last layer get low-rank updates, with a new linear head on the mean of the tokens. AdamW, a learning
rate that falls in a straight line, 256 words, 4 epochs. The study forks at step 0, so that its arms start
from another initialization (A and the head), in another order, or with other dropout masks.
Hu et al. 2022 (arXiv:2106.09685); Dodge et al. 2020 (arXiv:2002.06305); Zhang et al. 2021 (arXiv:2006.05987).
Needs the extra `finetune`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from bygones.analysis.effects import estimator_of, per_seed
from bygones.analysis.signature import (
    Signature,
    all_of,
    effect_at,
    is_above,
    is_below,
    is_share_above,
    score_per_seed,
    share_of,
)
from bygones.core.study_facts import facts_of
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reseed, Reset, Scale, Transplant
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment
from bygones.zoo.rated_words import HEADS, WIDTH, load_last_layer, load_rated_words

NUM_TRAIN, NUM_PROBES = 256, 256
STEPS = 64
NO_CORRECTION = 1e6  # a count of steps at which both bias corrections are 1


class LowRank(nn.Module):
    """A frozen linear layer with a trained update of low rank: x [..., in] -> W·x + b + B·(A·x) [..., out].

    W and b are no buffers: they never change, and snapshots of them would hold nothing.
    """

    def __init__(self, weight: Tensor, bias: Tensor, rank: int) -> None:
        super().__init__()
        self.frozen = (weight, bias)
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (one.to(x.device) for one in self.frozen)
        return nn.functional.linear(x, weight, bias) + (x @ self.down.T) @ self.up.T


class Tuned(nn.Module):
    """The last layer with low-rank updates, and a head: x [B, T, WIDTH], 0 where no token is -> [B, 2]."""

    def __init__(self, rank: int, dropout: float) -> None:
        super().__init__()
        of = load_last_layer()

        def update(name: str) -> LowRank:
            return LowRank(of[f"{name}.weight"], of[f"{name}.bias"], rank)

        self.query, self.key, self.value = (
            update(f"attention.self.{name}") for name in ("query", "key", "value")
        )
        self.out = update("attention.output.dense")
        self.inner, self.outer = update("intermediate.dense"), update("output.dense")
        self.norms = [
            (of[f"{name}.LayerNorm.weight"], of[f"{name}.LayerNorm.bias"])
            for name in ("attention.output", "output")
        ]
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, 2)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        empty = (x == 0).all(dim=-1)  # [B, T]
        q, k, v = (
            update(x).view(B, T, HEADS, D // HEADS) for update in (self.query, self.key, self.value)
        )
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(D // HEADS)
        weights = scores.masked_fill(empty[:, None, None, :], -math.inf).softmax(-1)
        mixed = torch.einsum("bhts,bshd->bthd", self.drop(weights), v).reshape(B, T, D)
        x = self._add(x, self.out(mixed), 0)
        x = self._add(x, self.outer(nn.functional.gelu(self.inner(x))), 1)
        there = (~empty)[..., None].to(x.dtype)
        return self.head(self.drop((x * there).sum(1) / there.sum(1)))

    def _add(self, x: Tensor, more: Tensor, norm: int) -> Tensor:
        weight, bias = (one.to(x.device) for one in self.norms[norm])
        return nn.functional.layer_norm(x + self.drop(more), (WIDTH,), weight, bias, eps=1e-12)


def recipe(
    seed: int,
    lr: float = 6e-3,
    steps: int = STEPS,
    rank: int = 4,
    dropout: float = 0.1,
    batch_size: int = 16,
) -> Parts:
    """Build the last layer of a pre-trained transformer with updates of `rank`, and a head; AdamW.

    `lr`: first learning rate. `steps`: in which it falls to 0. `dropout`: probability. `batch_size`: of 256
    words; 256 other ones are the probe set. Needs the extra `finetune`.
    """
    words = load_rated_words(NUM_TRAIN + NUM_PROBES)
    model = Tuned(rank, dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    return Parts(
        model=model,
        optimizer=optimizer,
        data=(words.inputs[:NUM_TRAIN], words.labels[:NUM_TRAIN]),
        order=Reshuffle(NUM_TRAIN, batch_size),
        scheduler=torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps),
        probe_set=(words.inputs[NUM_TRAIN:], words.labels[NUM_TRAIN:]),
    )


def study() -> Study:
    """Design a study of a fine-tuning from its first step: eight arms, 16 seeds.

    Initialization, head, order, dropout and a nudge: at step 0. The bias corrections: from step 1 on, when
    there are moments. Moments and schedule begin anew at step 16, after the first epoch.
    """
    start, later = Window(0, 1), Window(16, 17)
    return Study(
        name="finetune",
        recipe=recipe,
        fork_at=0,
        horizons=(0, 1, 2, 4, 8, 16, 32, STEPS),
        seeds=range(16),
        margins={"accuracy": 0.01},
        arms=(
            Arm("another initialization", Treatment("weights", Transplant(), start)),
            Arm("another head", Treatment("weights", Transplant(), start, leaves="head.*")),
            Arm("re-draw the order", Treatment("order", Reseed(), start)),
            Arm("re-draw dropout", Treatment("streams", Reseed(), start, leaves="dropout")),
            Arm("nudge weights 1e-3", Treatment("weights", Nudge(1e-3), start)),
            Arm(
                "no bias correction",
                Treatment("moments", Scale(NO_CORRECTION), Window(1, 2), leaves="*/step"),
            ),
            Arm("reset the moments at step 16", Treatment("moments", Reset(), later)),
            Arm("restart the schedule at step 16", Treatment("scheduler", Reset(), later)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether init and order matter alike, and what a missing bias correction does to the spread."""
    alike = Signature(
        "initialization and order both matter, and are of one size",
        "either alone moves the function more than half as far as another seed, which has both, and neither "
        "twice as far as the other",
        "Dodge et al. 2020 (arXiv:2002.06305)",
    )
    unstable = Signature(
        "missing bias correction makes small fine-tunings unstable",
        "the accuracies of the seeds are further from their median (Brown & Forsythe 1974), and lower",
        "Zhang et al. 2021 (arXiv:2006.05987), Mosbach et al. 2021 (arXiv:2006.04884)",
    )
    return (
        alike.unless_followed(outcomes, STEPS) or _judge_sizes(outcomes, alike),
        unstable.unless_followed(outcomes, STEPS) or _judge_spread(outcomes, unstable),
    )


def _judge_sizes(outcomes: xr.Dataset, alike: Signature) -> Signature:
    arms, facts = ("another initialization", "re-draw the order"), facts_of(outcomes)
    init, order = (effect_at(outcomes, arm, STEPS) for arm in arms)
    by_init, by_order = (per_seed(outcomes, "tv", arm).sel(step=STEPS).values for arm in arms)
    doublings = estimator_of(facts)(np.log2(by_init / by_order))
    ratio, low, high = (2.0**x for x in (doublings.value, doublings.low, doublings.high))
    return alike.seen(
        f"{share_of(init)} of another seed by the initialization, {share_of(order)} by the order; the first "
        f"is {ratio:.2f} [{low:.2f}, {high:.2f}] times the second",
        all_of(
            *(is_share_above(one, 0.5) for one in (init, order)),
            is_above(doublings, -1.0),
            is_below(doublings, 1.0),
        ),
    )


def _judge_spread(outcomes: xr.Dataset, unstable: Signature) -> Signature:
    scores = [
        score_per_seed(outcomes, arm, STEPS, "accuracy")
        for arm in ("no bias correction", "control")
    ]
    apart, kept = (np.abs(one - np.median(one)) for one in scores)
    wider = estimator_of(facts_of(outcomes))(apart - kept)
    change = effect_at(outcomes, "no bias correction", STEPS, "accuracy").estimate
    least, usual = (f"{one.min():.2f} to {one.max():.2f}" for one in scores)
    return unstable.seen(
        f"{wider} further from it, accuracy {change} ({least} instead of {usual})",
        all_of(is_above(wider, 0.0), is_below(change, 0.0)),
    )
