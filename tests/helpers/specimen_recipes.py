"""Tiny recipes, one for each kind of memory: a few dozen numbers each, a few steps long.

`trained` is put together from settings, `assorted` names one memory of every kind that `others`
takes, and the rest have one peculiarity each. Every memory in them changes what is trained, so a
fork that lacks it must come out different.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from bygones.core.values import Lifetime
from bygones.training.orders import (
    AbstractOrder,
    Curriculum,
    GraB,
    Reshuffle,
    SelfPaced,
    Sequential,
    ShuffleOnce,
    WithReplacement,
)
from bygones.training.recipe import Memory, Parts, Recipe, supervised

NUM_EXAMPLES, BATCH_SIZE, NUM_INPUTS, NUM_CLASSES = 12, 4, 4, 3
QUEUE_SIZE = 8

ORDERS: dict[str, AbstractOrder] = {
    "reshuffle": Reshuffle(NUM_EXAMPLES, BATCH_SIZE),
    "shuffle-once": ShuffleOnce(NUM_EXAMPLES, BATCH_SIZE),
    "with-replacement": WithReplacement(NUM_EXAMPLES, BATCH_SIZE),
    "sequential": Sequential(NUM_EXAMPLES, BATCH_SIZE),
    "curriculum": Curriculum(
        NUM_EXAMPLES, BATCH_SIZE, scores=tuple(float(-i) for i in range(NUM_EXAMPLES)), growth=6
    ),
}

_optim = torch.optim
OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "sgd": lambda p: _optim.SGD(p, lr=0.1),
    "heavy-ball": lambda p: _optim.SGD(p, lr=0.1, momentum=0.9),
    "dampened": lambda p: _optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: _optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: _optim.Adam(p, lr=0.01),
    "adamw": lambda p: _optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw-amsgrad": lambda p: _optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamax": lambda p: _optim.Adamax(p, lr=0.01),
    "nadam": lambda p: _optim.NAdam(p, lr=0.01),
    "radam": lambda p: _optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: _optim.RMSprop(p, lr=0.01),
    "rmsprop-centered": lambda p: _optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: _optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1, lr_decay=0.1),
    "adadelta": lambda p: _optim.Adadelta(p, lr=1.0),
    "adafactor": lambda p: _optim.Adafactor(p, lr=0.05),
    "rprop": lambda p: _optim.Rprop(p, lr=0.01),
    "asgd": lambda p: _optim.ASGD(p, lr=0.1, t0=2.0),
    "lbfgs": lambda p: _optim.LBFGS(p, lr=0.1, max_iter=2, history_size=3),
}

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "warm-restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=40),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, milestones=[2, 6, 6, 9], gamma=0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.8),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, total_iters=15, power=2.0),
    "linear": lambda o: lr_scheduler.LinearLR(o, total_iters=15),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=3),
            lr_scheduler.CosineAnnealingLR(o, T_max=9),
            lr_scheduler.MultiStepLR(o, milestones=[1, 2]),
        ],
        milestones=[3, 8],
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, total_iters=4), lr_scheduler.ExponentialLR(o, gamma=0.9)]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5, threshold=0.2),
}

AVERAGES: dict[str, Callable[[nn.Module], AveragedModel]] = {
    "ema": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    "ema-buffers": lambda m: AveragedModel(
        m, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True
    ),
    "swa": lambda m: AveragedModel(m, multi_avg_fn=get_swa_multi_avg_fn()),
    "swa-default": AveragedModel,
}


def examples() -> tuple[Tensor, Tensor]:
    """The same for every seed: inputs [NUM_EXAMPLES, NUM_INPUTS], labels [NUM_EXAMPLES]."""
    inputs = np.random.default_rng(5).standard_normal((NUM_EXAMPLES, NUM_INPUTS))
    return torch.tensor(inputs, dtype=torch.float32), torch.arange(NUM_EXAMPLES) % NUM_CLASSES


def mlp(norm: bool = True, dropout: float = 0.2) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(NUM_INPUTS, 5)]
    layers += [nn.BatchNorm1d(5)] if norm else []
    layers += [nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, NUM_CLASSES)]
    return nn.Sequential(*layers)


def trained(
    seed: int,
    optimizer: str = "heavy-ball",
    scheduler: str = "",
    averages: str = "",
    order: str = "reshuffle",
    dtype: str = "float32",
    norm: bool = True,
    dropout: float = 0.2,
    lr: float | None = None,
    augmented: bool = True,
) -> Parts:
    """An ordinary classifier with an ordinary loop; the settings choose its parts by name."""
    model = mlp(norm, dropout).to(getattr(torch, dtype))
    inputs, labels = examples()
    inputs = inputs.to(getattr(torch, dtype))
    trainer = OPTIMIZERS[optimizer](model.parameters())
    if lr is not None:
        trainer.param_groups[0]["lr"] = lr
    step = {"lbfgs": closure_step}.get(optimizer, supervised)
    return Parts(
        model=model,
        optimizer=trainer,
        data=(inputs, labels),
        order=ORDERS[order],
        scheduler=SCHEDULERS[scheduler](trainer) if scheduler else None,
        averages=AVERAGES[averages](model) if averages else None,
        augment=noise if augmented else None,
        train_step=plateau_step if scheduler == "plateau" else step,
        probe_set=(inputs, labels),
    )


def noise(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, labels = batch
    drawn = torch.randn(inputs.shape, generator=generator).to(inputs.dtype)
    return inputs + 0.1 * drawn, labels


def closure_step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A step for optimizers that evaluate the loss themselves."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parts.loss(parts.model(batch[0]), batch[1])
        loss.backward()
        return loss

    (optimizer,) = parts.optimizers.values()
    loss = optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType]
    optimizer.zero_grad()
    assert isinstance(loss, Tensor)
    return loss.detach()


def plateau_step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A step whose schedule follows the loss, as with ReduceLROnPlateau."""
    loss = parts.loss(parts.model(batch[0]), batch[1])
    loss.backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    assert parts.scheduler is not None
    parts.schedulers[""].step(loss.item())  # pyright: ignore[reportArgumentType]
    return loss


def two_optimizers(seed: int) -> Parts:
    """Two optimizers by name, the second with two groups and a temperature outside the model."""
    model = mlp(norm=False)
    temperature = nn.Parameter(torch.ones(1))
    bias = nn.Parameter(torch.zeros(NUM_CLASSES))
    body, head = model[0], model[-1]

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = parts.loss(parts.model(batch[0]) * temperature + bias, batch[1])
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return Parts(
        model=model,
        optimizer={
            "body": torch.optim.Adam(body.parameters(), lr=0.01),
            "head": torch.optim.SGD(
                [
                    {"params": head.parameters()},
                    {"params": [temperature], "lr": 0.02},
                    {"params": [bias], "lr": 0.03},
                ],
                lr=0.1,
                momentum=0.9,
            ),
        },
        data=examples(),
        order=ORDERS["reshuffle"],
        others={"temperature": temperature, "bias": bias},
        train_step=step,
        probe_set=examples(),
    )


def accumulating(seed: int, every: int = 3) -> Parts:
    """An update every third step: in between, the gradients lie across the boundary."""
    model = mlp()
    counter = {"batches": 0}

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = parts.loss(parts.model(batch[0]), batch[1])
        (loss / every).backward()
        counter["batches"] += 1
        if counter["batches"] % every == 0:
            for optimizer in parts.optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
        return loss

    return Parts(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        data=examples(),
        order=ORDERS["reshuffle"],
        others={"counter": counter},
        train_step=step,
        probe_set=examples(),
    )


class Buffered(nn.Module):
    """A model with a buffer of each sort: persistent, hidden, integer, and one that is reassigned."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(dropout=0.0)
        self.register_buffer("center", torch.zeros(NUM_CLASSES))
        self.register_buffer("hidden", torch.zeros(NUM_CLASSES), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("reassigned", torch.ones(NUM_CLASSES))
        self.center: Tensor
        self.hidden: Tensor
        self.calls: Tensor
        self.reassigned: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs)
        if self.training:
            with torch.no_grad():
                self.center.mul_(0.9).add_(outputs.mean(0), alpha=0.1)
                self.hidden.copy_(outputs[0])
                self.calls += 1
                self.reassigned = 0.5 * self.reassigned + outputs.std(0)
        wave = torch.sin(self.calls.float())
        return outputs - self.center + 0.1 * self.hidden + 0.1 * self.reassigned * wave


def buffered(seed: int) -> Parts:
    model = Buffered()
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        data=examples(),
        order=ORDERS["reshuffle"],
        probe_set=examples(),
    )


class Meter:
    """An object with a state_dict: a number, a tensor, nested containers."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.track = torch.zeros(2)
        self.seen: dict[Any, Any] = {"last": [], 3: (1, 2.5), ".dotted": {}}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "track": self.track, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.track, self.seen = state["mean"], state["track"], state["seen"]

    def update(self, loss: float) -> float:
        self.mean = 0.7 * self.mean + 0.3 * loss
        self.track = self.track.roll(1) + self.mean
        self.seen["last"] = [*self.seen["last"], loss][-2:]
        return float(self.track.sum()) + sum(self.seen["last"])


def assorted(seed: int) -> Parts:
    """One of everything that `others` takes; each multiplies the loss, so each one matters."""
    model = mlp(norm=False, dropout=0.0)
    teacher = mlp(dropout=0.0)
    queue = torch.randn(QUEUE_SIZE, NUM_CLASSES)
    pointer = {"at": 0, "history": [0.0], "nested": {"sum": 0.0}}
    nested = pointer["nested"]
    history = np.zeros(3, dtype=np.float32)
    counts: defaultdict[str, int] = defaultdict(int)
    single = {"value": np.float32(0.1), "array": np.ones(2)}
    array_inside = single["array"]
    torch_rng = torch.Generator().manual_seed(torch.randint(1 << 30, ()).item())  # pyright: ignore
    numpy_rng = np.random.default_rng(np.random.randint(1 << 30))
    legacy_rng = np.random.RandomState(np.random.randint(1 << 30))
    python_rng = random.Random(random.random())
    meter = Meter()

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        outputs = parts.model(inputs)
        with torch.no_grad():
            target = teacher(inputs)
            for slow, fast in zip(teacher.parameters(), model.parameters(), strict=False):
                if slow.shape == fast.shape:
                    slow.mul_(0.8).add_(fast, alpha=0.2)
            at = pointer["at"]
            weight = 1.0 + 0.1 * torch.tanh(queue[at]).sum().item()
            queue[at : at + 1] = outputs[:1]
            pointer["at"] = (at + 1) % QUEUE_SIZE
        nested["sum"] = 0.9 * nested["sum"] + 0.01 * weight
        pointer["history"].append(weight)
        del pointer["history"][:-2]
        history[:] = np.roll(history, 1)
        history[0] = weight
        counts[f"class {int(labels[0])}"] += 1
        single["value"] = np.float32(single["value"] * np.float32(1.1) + np.float32(0.01)) % 1
        array_inside[:] += 0.1
        drawn = (
            torch.rand((), generator=torch_rng).item()
            + numpy_rng.random()
            + legacy_rng.random_sample()
            + python_rng.random()
            + float(history.mean())
            + nested["sum"]
            + sum(pointer["history"])
            + 0.1 * counts["class 0"]
            + float(single["value"])
            + float(array_inside.sum())
        )
        loss = parts.loss(outputs, labels) * weight + 0.1 * ((outputs - target) ** 2).mean()
        loss = loss * (1 + 0.01 * drawn) * (1 + 0.01 * meter.mean)
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        meter.update(loss.item())
        return loss

    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        data=examples(),
        order=ORDERS["reshuffle"],
        others={
            "teacher": Memory(teacher, origin="averaging", lifetime=Lifetime.decaying(0.8)),
            "queue": Memory(
                queue,
                lifetime=Lifetime("exact", QUEUE_SIZE),
                fresh=lambda parts: torch.zeros(QUEUE_SIZE, NUM_CLASSES),
            ),
            "pointer": pointer,
            "history": history,
            "counts": counts,
            "single": single,
            "torch-rng": torch_rng,
            "numpy-rng": numpy_rng,
            "legacy-rng": legacy_rng,
            "python-rng": python_rng,
            "meter": meter,
        },
        train_step=step,
        probe_set=examples(),
    )


def contrastive(seed: int, momentum: float = 0.8, named: bool = True) -> Parts:
    """Momentum contrast: a slow key encoder, and a queue of its past keys as negatives.

    The training step is the recipe's own. With `named=False` the queue is kept where no source looks.
    """
    encoder = nn.Sequential(nn.Linear(NUM_INPUTS, 6), nn.Tanh(), nn.Linear(6, 3))
    slow = nn.Sequential(nn.Linear(NUM_INPUTS, 6), nn.Tanh(), nn.Linear(6, 3))
    slow.load_state_dict(encoder.state_dict())
    slow.requires_grad_(False)
    keys = nn.functional.normalize(torch.randn(QUEUE_SIZE, 3), dim=1)
    pointer = {"at": 0}

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs = batch[0]
        one = inputs + 0.05 * torch.randn(inputs.shape)
        other = inputs + 0.05 * torch.randn(inputs.shape)
        query = nn.functional.normalize(parts.model(one), dim=1)
        with torch.no_grad():
            for late, now in zip(slow.parameters(), parts.model.parameters(), strict=True):
                late.mul_(momentum).add_(now, alpha=1 - momentum)
            key = nn.functional.normalize(slow(other), dim=1)
        agreement = (query * key).sum(1, keepdim=True)
        logits = torch.cat([agreement, query @ keys.T], dim=1) / 0.2
        loss = nn.functional.cross_entropy(logits, torch.zeros(len(inputs), dtype=torch.long))
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        at = pointer["at"]
        keys[at : at + len(key)] = key
        pointer["at"] = (at + len(key)) % QUEUE_SIZE
        return loss

    lifetime = Lifetime("exact", QUEUE_SIZE / BATCH_SIZE)
    others: dict[str, Any] = {
        "key encoder": Memory(slow, origin="averaging", lifetime=Lifetime.decaying(momentum)),
        "pointer": pointer,
    }
    if named:
        others["queue"] = Memory(keys, lifetime=lifetime)
    return Parts(
        model=encoder,
        optimizer=torch.optim.SGD(encoder.parameters(), lr=0.05, momentum=0.9),
        data=examples(),
        order=ORDERS["reshuffle"],
        others=others,
        train_step=step,
        probe_set=examples(),
    )


def paced(seed: int, order: str = "self-paced") -> Parts:
    """A run whose order depends on the losses, or on the gradients by the bias of the last layer."""
    inputs, labels = examples()
    model = mlp(norm=False, dropout=0.0)
    policies: dict[str, AbstractOrder] = {
        "self-paced": SelfPaced(NUM_EXAMPLES, BATCH_SIZE, threshold=0.5, growth=1.1),
        "grab": GraB(NUM_EXAMPLES, BATCH_SIZE, dimension=NUM_CLASSES),
        "reshuffle": Reshuffle(NUM_EXAMPLES, BATCH_SIZE),
    }
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        data=(inputs, labels, torch.arange(NUM_EXAMPLES)),
        order=policies[order],
        train_step=paced_step,
        probe_set=(inputs, labels),
    )


def paced_step(parts: Parts, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    inputs, labels, rows = batch
    outputs = parts.model(inputs)
    losses = nn.functional.cross_entropy(outputs, labels, reduction="none")
    values = losses.detach()
    if parts.cursor.order.feedback == "gradients":
        values = outputs.detach().softmax(dim=1) - nn.functional.one_hot(labels, NUM_CLASSES)
    parts.cursor.give_feedback(rows.numpy(), values.numpy())
    losses.mean().backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    return losses.mean()


def every_recipe() -> dict[str, Recipe]:
    """All of the above that a fork check must pass, by a readable name."""
    made: dict[str, Recipe] = {}
    for name in OPTIMIZERS:
        made[f"optimizer {name}"] = Recipe.of(trained, optimizer=name)
    for name in SCHEDULERS:
        kind = "heavy-ball" if name in ("one-cycle", "cyclic") else "sgd"
        made[f"schedule {name}"] = Recipe.of(trained, optimizer=kind, scheduler=name)
    for name in AVERAGES:
        made[f"averages {name}"] = Recipe.of(trained, averages=name)
    for name in ORDERS:
        made[f"order {name}"] = Recipe.of(trained, order=name)
    made["bfloat16"] = Recipe.of(trained, dtype="bfloat16", optimizer="adam", augmented=False)
    made["wide moments"] = Recipe.of(wide_moments)
    made["order grab"] = Recipe.of(paced, order="grab")
    for function in (two_optimizers, accumulating, buffered, assorted, contrastive, paced):
        made[function.__name__] = Recipe.of(function)
    return made


class WideMomentum(Optimizer):
    """Heavy ball that keeps a float32 buffer whatever the parameter's type, begun at the gradient."""

    def __init__(self, params: Iterable[Tensor], lr: float, decay: float) -> None:
        super().__init__(params, {"lr": lr})
        self.decay = decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad.float()
                state = self.state[parameter]
                if "exp_avg" not in state:
                    state["exp_avg"] = gradient.clone()
                else:
                    state["exp_avg"].mul_(self.decay).add_(gradient, alpha=1 - self.decay)
                parameter.sub_((group["lr"] * state["exp_avg"]).to(parameter.dtype))


def wide_moments(seed: int) -> Parts:
    """bfloat16 parameters whose optimizer remembers in float32, as mixed precision does."""
    model = mlp(dropout=0.0).to(torch.bfloat16)
    inputs, labels = examples()
    inputs = inputs.to(torch.bfloat16)
    return Parts(
        model=model,
        optimizer=WideMomentum(model.parameters(), lr=0.1, decay=0.9),
        data=(inputs, labels),
        order=ORDERS["reshuffle"],
        probe_set=(inputs, labels),
    )
