"""An exponential average of the weights, in a dict, that evaluation is done with.

`--fault "only the average saved"`: the model is resumed from the average.
`--fault "average left in the model"`: evaluation swaps it in, and the checkpoint is written before it is out.
`--fault "average made before loading"`: it is not in the checkpoint, and starts from the untrained model.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=8)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=8)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
ema = {name: p.detach().clone() for name, p in model.named_parameters()}


def swap():
    with torch.no_grad():
        for name, p in model.named_parameters():
            mine = p.clone()
            p.copy_(ema[name])
            ema[name].copy_(mine)


def evaluate():
    swap()
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    if args.fault == "average left in the model":
        save()
    swap()
    return accuracy


def save():
    torch.save({"model": model.state_dict(), "ema": ema, "step": step}, "last.pt")


step = 0
if args.resume:
    saved = torch.load("last.pt")
    step = saved["step"]
    model.load_state_dict(saved["ema" if args.fault == "only the average saved" else "model"])
    if args.fault != "average made before loading":
        ema = {name: value.clone() for name, value in saved["ema"].items()}

while step < args.steps:
    for inputs, labels in loader:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        with torch.no_grad():
            for name, p in model.named_parameters():
                ema[name].lerp_(p, 0.1)
        if step == args.save_at and not args.resume:
            save()
            evaluate()
        if step == args.steps:
            break
print("loss", loss.item(), "accuracy of the average", evaluate())
