"""A small training script that carries everything a training run can carry, and checkpoints all of it.

An MLP with BatchNorm and dropout, AdamW under a cosine schedule, a teacher that averages the weights with a
decay that warms up, a queue of past outputs, noise by python and numpy on each example, gradient
accumulation if asked for, and a loader that shuffles by a generator of its own. `--fault NAME` loses one
piece when it resumes.
"""

import argparse
import copy
import math
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--save-at", type=int, default=17, help="batches after which it is saved")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Noisy(Dataset):
    """96 examples of 8 numbers, with noise that python and numpy draw anew each time."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.x = rng.normal(size=(96, 8)).astype(np.float32)
        self.y = (self.x[:, 0] * self.x[:, 1] > 0).astype(np.int64)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = np.random.normal(0, 0.1, 8).astype(np.float32)
        return self.x[index] * (1 + 0.05 * (random.random() - 0.5)) + noise, self.y[index]


class Teacher:
    def __init__(self, model):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(0.99, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


torch.manual_seed(args.seed)
np.random.seed(args.seed)
random.seed(args.seed)

model = nn.Sequential(
    nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)
)
teacher = Teacher(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
total = math.ceil(args.steps / args.accumulate)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
queue = torch.zeros(32, 2)
pointer = 0
shuffling = torch.Generator().manual_seed(args.seed)
data = Noisy()
validation = DataLoader(torch.utils.data.TensorDataset(torch.tensor(data.x)), batch_size=32)
loader = DataLoader(data, batch_size=8, shuffle=True, generator=shuffling)
batch, epoch_began = 0, None


def everything():
    """The checkpoint. The shuffling generator is kept as it was when the epoch began."""
    return {
        "model": model.state_dict(),
        "teacher": teacher.model.state_dict(),
        "updates": teacher.updates,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "queue": queue.clone(),
        "pointer": pointer,
        "batch": batch,
        "shuffling": epoch_began,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def resume():
    """Puts everything back, but for what the fault loses. Streams come last: building things draws."""
    global pointer, batch, queue
    saved = torch.load("checkpoint.pt", weights_only=False)
    fault = args.fault
    model.load_state_dict(saved["model"])
    teacher.model.load_state_dict(saved["teacher"])
    teacher.updates = saved["updates"]
    if fault != "optimizer dropped":
        optimizer.load_state_dict(saved["optimizer"])
    if fault != "scheduler dropped":
        scheduler.load_state_dict(saved["scheduler"])
    for p, gradient in zip(model.parameters(), saved["gradients"], strict=True):
        p.grad = None if fault == "gradients lost" else gradient
    queue.copy_(saved["queue"])
    pointer, batch = saved["pointer"], saved["batch"]
    shuffling.set_state(saved["shuffling"])
    if fault == "step counter zeroed":
        for state in optimizer.state.values():
            state["step"].zero_()
    if fault == "moments rounded":
        for state in optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name].copy_(state[name].bfloat16().float())
    if fault == "moments swapped":
        one, other = model[1].weight, model[1].bias
        optimizer.state[one], optimizer.state[other] = optimizer.state[other], optimizer.state[one]
    if fault == "scheduler late":
        state = saved["scheduler"]
        scheduler.last_epoch -= 1
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * scheduler.last_epoch / total)) / 2
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
        assert state["last_epoch"] == scheduler.last_epoch + 1
    if fault == "generator lost":
        shuffling.manual_seed(args.seed + 1000)
    if fault == "first epoch replayed":
        shuffling.manual_seed(args.seed)
    if fault == "position lost":
        batch = batch // len(loader) * len(loader)
    if fault == "batchnorm reset":
        model[1].reset_running_stats()
    if fault == "teacher copied":
        teacher.model.load_state_dict(saved["model"])
    if fault == "updates reset":
        teacher.updates = 0
    if fault == "average as student":
        model.load_state_dict(saved["teacher"])
    if fault == "queue redrawn":
        queue.normal_(generator=torch.Generator().manual_seed(5))
    if fault == "pointer zeroed":
        pointer = 0
    return saved


def put_streams_back(saved):
    if args.fault != "torch stream lost":
        torch.set_rng_state(saved["torch"])
    if args.fault != "numpy stream lost":
        np.random.set_state(saved["numpy"])
    if args.fault != "python stream lost":
        random.setstate(saved["python"])
    if args.fault == "validation after load":
        for _ in validation:
            pass


def step(x, y):
    """One batch. What it computes is its own: a variable that goes with it is no memory of the run."""
    global pointer
    outputs = model(x)
    loss = nn.functional.cross_entropy(outputs, y)
    loss = loss + 0.1 * ((outputs.mean(0) - queue.mean(0)) ** 2).sum()
    loss = loss + 0.1 * ((outputs - teacher.model(x)) ** 2).mean()
    (loss / args.accumulate).backward()
    queue[torch.arange(pointer, pointer + len(x)) % 32] = outputs.detach()
    pointer = (pointer + len(x)) % 32
    return loss.item()


saved = resume() if args.resume else None
while batch < args.steps:
    epoch_began = shuffling.get_state()
    batches = iter(loader)
    if saved is not None:
        for _ in range(batch % len(loader)):
            next(batches)
        put_streams_back(saved)
        saved = None
    for x, y in batches:
        loss = step(x, y)
        batch += 1
        if batch % args.accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            teacher.update(model)
        if batch == args.save_at and not args.resume:
            torch.save(everything(), "checkpoint.pt")
        if batch == args.steps:
            break
print("loss", loss)
