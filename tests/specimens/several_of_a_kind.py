"""Two optimizers that go by one name in a loop; with `--object` they are in an attribute.

With `--first-model-kept` there is a model that nothing uses any more. The checkpoint is complete.
"""

import argparse
from types import SimpleNamespace

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--object", action="store_true")
parser.add_argument("--first-model-kept", action="store_true")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
y = torch.arange(64) % 2


def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Trainer(SimpleNamespace):
    def update(self):
        for one in self.optimizers:
            one.step()
            one.zero_grad()


torch.manual_seed(options.seed)
model = first = build()
saved = torch.load("last.pt") if options.resume else None
if saved:
    model = build()
    model.load_state_dict(saved["model"])
if not options.first_model_kept:
    del first
optimizers = [
    torch.optim.Adam(model[0].parameters()),
    torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9),
]
trainer = Trainer(optimizers=optimizers)
done = 0
if saved:
    done = saved["done"]
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
if options.object:
    del optimizers
while done < 12:
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    if options.object:
        trainer.update()
    else:
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    done += 1
    torch.save(
        {
            "model": model.state_dict(),
            "optimizers": [one.state_dict() for one in trainer.optimizers],
            "done": done,
        },
        "last.pt",
    )
