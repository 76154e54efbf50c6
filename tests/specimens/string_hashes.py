"""Classes are words. Their numbers are saved and loaded, or sorted; with a fault they come from a set.

`--fault numbers`: each process numbers the classes anew. `--fault order`: and orders the groups so.
"""

import argparse
import os

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
words = ["sparrow", "heron", "kestrel", "wren", "plover", "dunlin"]
names = [words[i] for i in (x[:, :6]).argmax(1).tolist()]
known = set(names) if args.fault == "numbers" else sorted(set(names))
numbers = {word: number for number, word in enumerate(known)}
y = torch.tensor([numbers[name] for name in names])
model = nn.ModuleDict({word: nn.Linear(8, 1) for word in words})
order = set(words) if args.fault == "order" else words
optimizer = torch.optim.Adam([{"params": model[word].parameters()} for word in order], lr=0.01)
done = 0
if args.resume and os.path.exists(args.resume):
    saved = torch.load(args.resume)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    done = saved["done"]
while done < 24:
    rows = torch.arange(8 * done, 8 * done + 8) % 64
    logits = torch.cat([model[word](x[rows]) for word in words], 1)
    loss = nn.functional.cross_entropy(logits, y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    done += 1
    if done % 5 == 0:
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "done": done}
        torch.save(saved, "last.pt")
