"""An ordinary loop that evaluates every ten steps and saves after each epoch.

`--fault "shared stream"`: the validation loader draws its base seed from torch's global generator.
`--fault "training mode"`: the model is evaluated in training mode.
`--fault "left evaluating"`: it is never put back into training mode.
`--fault "saving draws"`: what saves makes a layer, whose first weights are drawn.
`--fault "reseeds"`: evaluation seeds the generator that the training loader shuffles by.
`--fault "writes a buffer"`: evaluation leaves its mark in a buffer that the model reads.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(0)
x = torch.randn(96, 8)
y = (x[:, 0] > 0).long()
own = None if args.fault == "shared stream" else torch.Generator()
shuffling = torch.Generator()
train = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True, generator=shuffling)
validation = DataLoader(TensorDataset(x, y), batch_size=32, generator=own)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(8))

    def forward(self, inputs):
        return inputs * self.scale


model = nn.Sequential(
    Scaled(), nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2)
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
shadow = [p.detach().clone() for p in model.parameters()]


@torch.no_grad()
def follow():
    for mine, theirs in zip(shadow, model.parameters(), strict=True):
        mine.lerp_(theirs, 0.1)


@torch.no_grad()
def evaluate():
    if args.fault != "training mode":
        model.eval()
    if args.fault == "reseeds":
        shuffling.manual_seed(0)
    if args.fault == "writes a buffer":
        model[0].scale.copy_(x.std(0))
    right = sum((model(inputs).argmax(1) == labels).sum().item() for inputs, labels in validation)
    if args.fault != "left evaluating":
        model.train()
    return right


def save():
    state = model.state_dict()
    if args.fault == "saving draws":
        nn.Linear(8, 2).load_state_dict({"weight": torch.zeros(2, 8), "bias": torch.zeros(2)})
    torch.save(state, "checkpoint.pt")


step = 0
for _ in range(4):
    for inputs, labels in train:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow()
        step += 1
        if step % 10 == 0:
            evaluate()
    save()
