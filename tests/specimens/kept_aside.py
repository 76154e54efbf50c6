"""What a script deploys and does not train with: averages on disk and in a generator, the best weights.

The last checkpoint holds all of them, and what differs in any two runs as well: times, a folder, its own
arguments, how many lines were logged.

`--fault`: "average on disk begun anew", "average in a generator begun anew", "best weights lost".
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()
began = time.time()

torch.manual_seed(options.seed)
inputs = torch.randn(24, 8, 5, generator=torch.Generator().manual_seed(3))
labels = (inputs.sum(-1) > 0).long()
disk = Path("average.npy")


def averaging(mean):
    """Keep an average of the weights that are sent."""
    while True:
        weights = yield mean
        mean = mean if weights is None else 0.7 * mean + 0.3 * weights


class Best:  # by labels that are all wrong, so that early weights stay the best
    score, weights = -1.0, None

    def see(self, model):
        with torch.no_grad():
            score = -nn.functional.cross_entropy(model(inputs[0]), 1 - labels[0]).item()
        if self.weights is None or score > self.score:
            self.score, self.weights = score, copy.deepcopy(model.state_dict())


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def keep_on_disk(model, first):
    mine = model[0].weight.detach().numpy()
    np.save(disk, mine if first else 0.9 * np.load(disk) + 0.1 * mine)


model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
best, step, log, begins = Best(), 0, [], True
mean = averaging(flat(model))
next(mean)
if options.resume:
    saved = torch.load("last.pt", weights_only=False)
    model.load_state_dict(saved["model"])
    step = saved["step"]
    if options.fault != "average in a generator begun anew":
        mean = averaging(saved["mean"])
        next(mean)
    if options.fault != "best weights lost":
        best.score, best.weights = saved["score"], saved["best"]
    begins = options.fault == "average on disk begun anew"
    if not begins:
        np.save(disk, saved["disk"])
while step < 24:
    loss = nn.functional.cross_entropy(model(inputs[step]), labels[step])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    best.see(model)
    keep_on_disk(model, first=begins)
    begins = False
    log.append(loss.item())
    if step % 8 == 0:
        print(f"step {step}: {time.time() - began:.6f} s, loss {loss.item():.4f}")
        torch.save(
            {
                "model": model.state_dict(),
                "step": step,
                "mean": mean.send(flat(model)),
                "score": best.score,
                "best": best.weights,
                "disk": torch.from_numpy(np.load(disk)),
                "options": vars(options),
                "seconds": torch.tensor([time.time() - began]),
                "folder": str(Path.cwd()),
                "log": torch.tensor(log),
            },
            "last.pt",
        )
Path("summary.json").write_text(json.dumps({"lines": len(log), "at": time.time()}))
