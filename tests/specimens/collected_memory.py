"""A memory that has to fill up before the first step: where it is lost, everything is drawn anew to fill it.

An average of all that the model has, BatchNorm's statistics too, lies in a variable of a function.
`--fault`: "memory lost"; "place in the world lost"; "average made anew".
"""

import argparse
import random
from collections import deque

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()


def main():
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    memory, place, step = deque(maxlen=200), 0.0, 0
    average = {name: value.clone() for name, value in model.state_dict().items()}
    if options.resume:
        saved = torch.load("last.pt", weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        random.setstate(saved["random"])
        step = saved["step"]
        average = {name: value.clone() for name, value in model.state_dict().items()}
        if options.fault != "average made anew":
            average = saved["average"]
        if options.fault != "memory lost":
            memory.extend(saved["memory"])
        if options.fault != "place in the world lost":
            place = saved["place"]
    while step < 34:
        for _ in range(3):
            move = random.choice((-1, 1)) * random.random()
            memory.append((place, move, place + move))
            place = (place + move) % 5
        if len(memory) < 24:
            continue
        picked = torch.tensor(random.choices(memory, k=8))
        loss = (model(picked[:, :2])[:, 0] - picked[:, 2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 0.1)
        if step == 17:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "random": random.getstate(),
                    "step": step,
                    "memory": list(memory),
                    "place": place,
                    "average": average,
                },
                "last.pt",
            )


if __name__ == "__main__":
    main()
