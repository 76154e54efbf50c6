"""Character-level language model: a small causal transformer under AdamW, a cosine schedule and clipping.

Data: sentences of a made-up language (`made_up_text`), the same on every machine. A name that opens a
sentence comes again at its end and brackets are closed in order, so that a character depends on those long
before it.
"""

from __future__ import annotations

import math
import random
from functools import cache

import torch
import xarray as xr
from torch import Tensor, nn

from bygones.analysis.contrast import contrast
from bygones.analysis.signature import Signature, all_of, effect_at, is_above
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reseed, Reset, Scale
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment

CONTEXT = 32
NUM_TRAIN, NUM_PROBES = 2048, 48  # windows of CONTEXT characters
ALPHABET = "\nabcdefghijklmnopqrstuvwxyz .,()"
_NAMES = ("ada", "bela", "cato", "dora", "emil", "fenja", "goran", "hedda")
_VERBS = ("sees", "calls", "finds", "loses", "asks", "leads")
_THINGS = ("a lamp", "the road", "an old map", "the river", "a quiet bird", "the key")


def made_up_text(num_characters: int, seed: int = 0) -> str:
    """Draw sentences like `ada (who calls the key (a lamp)) sees the road, says ada.`

    `random.Random.random` gives the same numbers in every version of Python.
    """
    rng = random.Random(seed)

    def one_of(words: tuple[str, ...]) -> str:
        return words[int(rng.random() ** 1.5 * len(words))]  # the first ones more often

    def thing(depth: int) -> str:
        more = rng.random() < 0.4 and depth < 3
        return f"{one_of(_THINGS)} ({thing(depth + 1)})" if more else one_of(_THINGS)

    text: list[str] = []
    length = 0
    while length < num_characters:
        name = one_of(_NAMES)
        aside = f" (who {one_of(_VERBS)} {thing(1)})" if rng.random() < 0.5 else ""
        text.append(f"{name}{aside} {one_of(_VERBS)} {thing(0)}, says {name}.\n")
        length += len(text[-1])
    return "".join(text)[:num_characters]


class Block(nn.Module):
    """Causal self-attention and an MLP, each after a LayerNorm and added: x [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.register_buffer(
            "future", torch.ones(CONTEXT, CONTEXT).triu(1).bool(), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, D // self.heads).unbind(2)
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(D // self.heads)
        weights = scores.masked_fill(self.future[:T, :T], -math.inf).softmax(-1)  # type: ignore[index]
        x = x + self.out(torch.einsum("bhts,bshd->bthd", weights, v).reshape(B, T, D))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A decoder: characters [B, T] -> logits of each next character, [B·T, len(ALPHABET)]."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(ALPHABET)))

    def forward(self, characters: Tensor) -> Tensor:
        x = self.characters(characters) + self.positions[: characters.shape[1]]
        return self.head(self.blocks(x)).flatten(0, 1)


def next_character_loss(logits: Tensor, following: Tensor) -> Tensor:
    """Cross-entropy of every position: logits [B·T, C], the following characters [B, T] -> []."""
    return nn.functional.cross_entropy(logits, following.flatten())


def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Take one step: gradients clipped to norm 1, AdamW, one step of the schedule."""
    inputs, following = batch
    loss = parts.loss(parts.model(inputs), following)
    loss.backward()
    nn.utils.clip_grad_norm_(parts.model.parameters(), 1.0)
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    for scheduler in parts.schedulers.values():
        scheduler.step()
    return loss


def recipe(
    seed: int, lr: float = 3e-3, steps: int = 1200, width: int = 32, layers: int = 2, heads: int = 2
) -> Parts:
    """Build a transformer of `layers` blocks with AdamW (betas .9, .999) and a cosine schedule.

    `lr`: first learning rate. `steps`: length of the schedule. `width`: of the residual stream. Batches of
    32 windows of 32 characters; every position of a window is a prediction, in training and in the probe.
    """
    model = Transformer(width, layers, heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    inputs, following = windows()
    return Parts(
        model=model,
        optimizer=optimizer,
        data=(inputs[:NUM_TRAIN], following[:NUM_TRAIN]),
        order=Reshuffle(NUM_TRAIN, 32),
        loss=next_character_loss,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
        train_step=step,
        probe_set=(inputs[NUM_TRAIN:], following[NUM_TRAIN:].flatten()),
    )


def study() -> Study:
    """Design a study of what AdamW carries: seven arms, 8 seeds.

    Every arm acts once, at step 400 of a schedule of 1,200: state dropped or zeroed in parts, the schedule
    begun anew, another order from there on, and a nudge for comparison.
    """
    at = Window(400, 401)
    return Study(
        name="charlm",
        recipe=recipe,
        fork_at=400,
        horizons=(0, 1, 3, 10, 30, 100, 400),
        seeds=range(8),
        arms=(
            Arm("drop the optimizer state", Treatment("moments", Reset(), at)),
            Arm("zero m and v", Treatment("moments", Scale(0.0), at, leaves="*/exp_avg*")),
            Arm("zero v", Treatment("moments", Scale(0.0), at, leaves="*/exp_avg_sq")),
            Arm("zero m", Treatment("moments", Scale(0.0), at, leaves="*/exp_avg")),
            Arm("restart the schedule", Treatment("scheduler", Reset(), at)),
            Arm("re-draw the order", Treatment("order", Reseed(), at)),
            Arm("nudge weights 1e-3", Treatment("weights", Nudge(1e-3), at)),
        ),
    )


@cache
def windows() -> tuple[Tensor, Tensor]:
    """Cut the text into windows: inputs and following characters, int64 [NUM_TRAIN + NUM_PROBES, CONTEXT]."""
    number = NUM_TRAIN + NUM_PROBES
    text = made_up_text(number * CONTEXT + 1)
    codes = torch.tensor([ALPHABET.index(character) for character in text])
    return codes[:-1].view(number, CONTEXT), codes[1:].view(number, CONTEXT)


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge the order of AdamW's first updates after a treatment, and whether dropped state costs loss."""
    updates = Signature(
        "first updates after a reset are ordered by the bias corrections",
        "lr · sign g with all state new, 3.16 times that with the step kept, 31.6 lr · m̂/|g| with only v "
        "zeroed, so that one step on they move the function in this order (tests/zoo/test_charlm.py holds "
        "the updates themselves to half a percent)",
        "Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1",
    )
    dropped = Signature(
        "dropped optimizer state raises the loss",
        "the loss is higher one step on; that the gradient's norm falls is not observed",
        "",
    )
    return (
        updates.unless_followed(outcomes, 1) or _judge_updates(outcomes, updates),
        dropped.unless_followed(outcomes, 1) or _judge_dropped(outcomes, dropped),
    )


def _judge_updates(outcomes: xr.Dataset, updates: Signature) -> Signature:
    arms = ("drop the optimizer state", "zero m and v", "zero v")
    moved = [str(effect_at(outcomes, arm, 1).estimate) for arm in arms]
    step = int(outcomes["step"].values[0]) + 1
    larger = [
        contrast(outcomes, (arm, "control"), (other, "control"), step=step).estimate
        for arm, other in zip(arms[1:], arms, strict=False)
    ]
    return updates.seen(
        "TV " + ", ".join(f"{size} ({arm})" for size, arm in zip(moved, arms, strict=True)),
        all_of(*(is_above(apart, 0.0) for apart in larger)),
    )


def _judge_dropped(outcomes: xr.Dataset, dropped: Signature) -> Signature:
    loss = effect_at(outcomes, "drop the optimizer state", 1, "nll").estimate
    return dropped.seen(f"{loss} nats", is_above(loss, 0.0))
