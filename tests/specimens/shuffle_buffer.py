"""A stream of examples that is shuffled through a buffer of 16.

`--fault "buffer lost"`: the checkpoint has the place in the stream and the random state, but not the buffer:
what waited in it is never trained on.
"""

import argparse
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=7)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

x = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()


class Buffered(IterableDataset):
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.buffer, self.read = [], 0

    def __iter__(self):
        while True:
            while len(self.buffer) < 16:
                self.buffer.append(self.read % len(x))
                self.read += 1
            example = self.buffer.pop(self.random.randrange(16))
            yield x[example], y[example]

    def state_dict(self):
        state = {"read": self.read, "random": self.random.getstate()}
        return state if args.fault == "buffer lost" else {**state, "buffer": list(self.buffer)}

    def load_state_dict(self, state):
        self.read, self.buffer = state["read"], list(state.get("buffer", []))
        self.random.setstate(state["random"])


torch.manual_seed(args.seed)
data = Buffered(args.seed)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step = 0
if args.resume:
    saved = torch.load("last.pt", weights_only=False)
    model.load_state_dict(saved["model"])
    data.load_state_dict(saved["data"])
    step = saved["step"]

for inputs, labels in DataLoader(data, batch_size=8):
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step == args.save_at and not args.resume:
        torch.save(
            {"model": model.state_dict(), "step": step, "data": data.state_dict()}, "last.pt"
        )
    if step == args.steps:
        break
print("loss", loss.item())
