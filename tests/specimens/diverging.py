"""A training loop that `--change` alters in one place, from one step on, so that the first operation that
differs is known: the optimizer's epsilon, the dropout stream, one label, an activation, a cast, or nothing.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--change", default="")
parser.add_argument("--since", type=int, default=3)
args = parser.parse_args()
torch.manual_seed(args.seed)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.changed = False

    def forward(self, x):
        hidden = self.inner(x)
        return nn.functional.gelu(hidden) if self.changed else torch.relu(hidden)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.block = Block()
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, 2)

    def forward(self, x, narrow):
        x = self.drop(self.block(self.first(x)))
        if narrow:
            x = x.bfloat16().float()
        return self.head(x)


x = torch.randn(64, 4, generator=torch.Generator().manual_seed(5))
y = (x[:, 0] > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=8)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
done = 0
while done < args.steps:
    for inputs, labels in loader:
        change = args.change.split(",") if done >= args.since else []
        if "print" in change:
            print(inputs.mean().item())
        if "label" in change and done == args.since:
            labels[2] = 1 - labels[2]
        if args.change == "data" and done == args.since - 1:
            y[8 * args.since + 2] ^= 1
        if "eps" in change:
            optimizer.param_groups[0]["eps"] = 1e-4
        if "draw" in change and done == args.since:
            torch.rand(1)
        model.block.changed = "activation" in change
        loss = nn.functional.cross_entropy(model(inputs, "cast" in change), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if done == args.steps:
            break
