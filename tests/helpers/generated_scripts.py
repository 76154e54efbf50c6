"""Generated training scripts: random combinations of what people write, complete or with one piece lost.

    optimizer × scheduler × average × accumulation × how batches are made × flat or a trainer object

Each script saves a checkpoint every few steps and can be resumed from it. `losing` leaves one piece of state
out of what is loaded; with "" the checkpoint is complete, and the resumed run is the uninterrupted one to the
bit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

OPTIMIZERS = {
    "sgd": "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
    "adam": "torch.optim.Adam(model.parameters(), lr=0.02)",
    "adamw": "torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.01)",
    "rmsprop": "torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.5)",
}
SCHEDULERS = {
    "none": "",
    "step": "torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)",
    "cosine": "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)",
}


@dataclass(frozen=True)
class Recipe:
    """What a script consists of. `pieces`: what its checkpoint must hold for the run to go on as it was."""

    optimizer: str
    scheduler: str
    average: bool
    accumulate: int
    loader: bool  # a DataLoader with a generator of its own, else batches cut by hand
    dropout: bool
    as_object: bool
    save_every: int
    at: int

    @property
    def pieces(self) -> dict[str, str]:
        """By piece, what the name of the lost source begins with."""
        owner = "trainer." if self.as_object else ""
        named = {"optimizer": "moments"}
        if self.scheduler != "none":
            named["scheduler"] = "scheduler"
        if self.average:
            named["average"] = f"{owner}average"
        if self.dropout:
            named["torch_state"] = "streams/torch"
        if not self.loader and self._is_within_epoch:
            named["cursor"] = f"{owner}cursor"
        return named

    @property
    def _is_within_epoch(self) -> bool:
        """Whether the checkpoint is saved within an epoch of ten batches: at its edge nothing is lost."""
        saved = self.at - self.at % self.save_every
        return saved * self.accumulate % 10 != 0

    def script(self, losing: str = "") -> str:
        """Return the source of the script."""
        own = "self." if self.as_object else ""
        setup = self._setup(own)
        step = self._step(own)
        save = self._save(own)
        load = self._load(own, losing)
        if self.as_object:
            body = (
                "class Trainer:\n    def __init__(self):\n" + _indent(setup, 2)
                + "\n    def step(self):\n" + _indent(step, 2)
                + "\n    def save(self):\n" + _indent(save, 2)
                + "\n    def load(self, held):\n" + _indent(load, 2)
                + "\n\ntrainer = Trainer()\nif args.resume:\n"
                "    trainer.load(torch.load(args.resume, weights_only=False))\n"
                "while trainer.done < 44:\n    trainer.step()\n"
                f"    if trainer.done % {self.save_every} == 0:\n        trainer.save()\n"
            )  # fmt: skip
        else:
            body = (
                setup + "\nif args.resume:\n    held = torch.load(args.resume, weights_only=False)\n"
                + _indent(load, 1) + "\nwhile done < 44:\n" + _indent(step, 1)
                + f"\n    if done % {self.save_every} == 0:\n" + _indent(save, 2) + "\n"
            )  # fmt: skip
        return _HEAD + body

    def _setup(self, own: str) -> str:
        rate = "nn.Dropout(0.2)" if self.dropout else "nn.Identity()"
        lines = [
            f"model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), {rate}, nn.Linear(10, 2))",
            f"optimizer = {OPTIMIZERS[self.optimizer]}",
        ]
        kept = ["model", "optimizer"]
        if self.scheduler != "none":
            lines.append(f"scheduler = {SCHEDULERS[self.scheduler]}")
            kept.append("scheduler")
        if self.average:
            lines.append("average = {k: v.detach().clone() for k, v in model.state_dict().items()}")
            kept.append("average")
        if self.loader:
            lines += [
                "shuffling = torch.Generator().manual_seed(args.seed + 1)",
                "loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True, generator=shuffling)",
                "batches, epoch_state, drawn = None, shuffling.get_state(), 0",
            ]
            kept += ["shuffling", "loader", "batches", "epoch_state", "drawn"]
        else:
            lines += ["order, cursor = torch.arange(len(x)), len(x)"]
            kept += ["order", "cursor"]
        lines.append("done = 0")
        kept.append("done")
        if own:
            lines += [f"self.{name} = {name}" for name in kept]
        return "\n".join(lines)

    def _step(self, o: str) -> str:
        lines = [f"for _ in range({self.accumulate}):"]
        if self.loader:
            lines += [
                f"    if {o}batches is None or {o}drawn == len({o}loader):",
                f"        {o}epoch_state, {o}drawn = {o}shuffling.get_state(), 0",
                f"        {o}batches = iter({o}loader)",
                f"    bx, by = next({o}batches)",
                f"    {o}drawn += 1",
            ]
        else:
            lines += [
                f"    if {o}cursor + 8 > len(x):",
                f"        {o}order, {o}cursor = torch.randperm(len(x)), 0",
                f"    rows = {o}order[{o}cursor : {o}cursor + 8]",
                f"    {o}cursor += 8",
                "    bx, by = x[rows], y[rows]",
            ]
        lines += [
            f"    loss = nn.functional.cross_entropy({o}model(bx), by) / {self.accumulate}",
            "    loss.backward()",
            f"{o}optimizer.step()",
            f"{o}optimizer.zero_grad()",
        ]
        if self.scheduler != "none":
            lines.append(f"{o}scheduler.step()")
        if self.average:
            lines += [
                f"for name, value in {o}model.state_dict().items():",
                f"    {o}average[name].mul_(0.9).add_(value, alpha=0.1)",
            ]
        return "\n".join([*lines, f"{o}done += 1"])

    def _save(self, o: str) -> str:
        held = [f"'model': {o}model.state_dict()", f"'optimizer': {o}optimizer.state_dict()"]
        if self.scheduler != "none":
            held.append(f"'scheduler': {o}scheduler.state_dict()")
        if self.average:
            held.append(f"'average': {o}average")
        if self.loader:
            held += [f"'epoch_state': {o}epoch_state", f"'drawn': {o}drawn"]
        else:
            held += [f"'order': {o}order", f"'cursor': {o}cursor"]
        held += ["'torch_state': torch.get_rng_state()", f"'done': {o}done"]
        return "torch.save({" + ", ".join(held) + "}, 'last.pt')"

    def _load(self, o: str, losing: str) -> str:
        lines = {
            "model": f"{o}model.load_state_dict(held['model'])",
            "optimizer": f"{o}optimizer.load_state_dict(held['optimizer'])",
        }
        if self.scheduler != "none":
            lines["scheduler"] = f"{o}scheduler.load_state_dict(held['scheduler'])"
        if self.average:
            lines["average"] = f"{o}average = held['average']"
        if self.loader:
            lines["epoch_state"] = (
                f"{o}shuffling.set_state(held['epoch_state'])\n"
                f"{o}epoch_state = held['epoch_state']\n"
                f"{o}batches, {o}drawn = iter({o}loader), held['drawn']\n"
                f"for _ in range({o}drawn):\n    next({o}batches)"
            )
        else:
            lines["order"] = f"{o}order = held['order']"
            lines["cursor"] = f"{o}cursor = held['cursor']"
        lines["done"] = f"{o}done = held['done']"
        lines["torch_state"] = "torch.set_rng_state(held['torch_state'])"
        return "\n".join(text for piece, text in lines.items() if piece != losing)


_HEAD = """import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume")
args = parser.parse_args()
torch.manual_seed(args.seed)
x = torch.randn(80, 6, generator=torch.Generator().manual_seed(7))
y = (x[:, 0] * x[:, 1] > 0).long()
"""


def generate(number: int) -> Recipe:
    """Return the recipe of this number: the same each time."""
    draw = random.Random(number)
    return Recipe(
        optimizer=draw.choice([*OPTIMIZERS]),
        scheduler=draw.choice([*SCHEDULERS]),
        average=draw.random() < 0.5,
        accumulate=draw.choice([1, 1, 2]),
        loader=draw.random() < 0.5,
        dropout=draw.random() < 0.5,
        as_object=draw.random() < 0.5,
        save_every=draw.choice([3, 4, 6]),
        at=draw.choice([13, 17, 22]),
    )


def choose_loss(number: int) -> str:
    """Return the piece that the faulty twin of this number loses."""
    return random.Random(number + 10_000).choice([*generate(number).pieces])


def _indent(text: str, levels: int) -> str:
    return "\n".join("    " * levels + line for line in text.splitlines())
