"""Memory that is None, absent or empty until it is first used, and restored by the checkpoint.

`--fault`: "hidden state lost", "average lost" (renewed every ten steps, of the class until then), "list of
averages lost", "past items lost" (the generator that draws from them is not), "usual norm lost".
"""

import argparse
import random

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()

torch.manual_seed(options.seed)
random.seed(options.seed)
text = torch.randn(40, 8, 5, 3, generator=torch.Generator().manual_seed(1))


class Average:
    kept = None

    def update(self, model):
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.kept = now if self.kept is None else {n: (self.kept[n] + now[n]) / 2 for n in now}


class Usual:
    def __init__(self):
        self.size = None

    def clip(self, parameters):
        size = nn.utils.get_total_norm([p.grad for p in parameters])
        self.size = size if self.size is None else 0.9 * self.size + 0.1 * size
        for p in parameters:
            p.grad.mul_((1.01 * self.size / size).clamp(max=1))


def loses(what):
    return options.fault == what


reader = nn.GRU(3, 8, batch_first=True)
optimizer = torch.optim.SGD(reader.parameters(), lr=0.1)
average, usual = Average(), Usual()
shadow, hidden, past, step = [], None, [], 0
if options.resume:
    saved = torch.load("last.pt", weights_only=False)
    reader.load_state_dict(saved["reader"])
    step = saved["step"]
    random.setstate(saved["random"])
    if not loses("average lost"):
        average.kept = saved["average"]
    if not loses("list of averages lost"):
        shadow = saved["shadow"]
    if not loses("hidden state lost"):
        hidden = saved["hidden"]
    if not loses("past items lost"):
        past = saved["past"]
    if not loses("usual norm lost"):
        usual.size = saved["usual"]
while step < 24:
    outputs, hidden = reader(text[step], hidden)
    hidden = hidden.detach()
    past.append(text[step])
    again, _ = reader(past[int(random.random() * len(past))])
    loss = (outputs - 1).square().mean() + 0.1 * again.square().mean()
    optimizer.zero_grad()
    loss.backward()
    usual.clip(list(reader.parameters()))
    optimizer.step()
    step += 1
    shadow = shadow or [p.detach().clone() for p in reader.parameters()]
    for mean, p in zip(shadow, reader.parameters(), strict=True):
        mean.lerp_(p.detach(), 0.1)
    if step % 10 == 0:
        average.update(reader)
    if step == 12:
        torch.save(
            {
                "reader": reader.state_dict(),
                "step": step,
                "random": random.getstate(),
                "average": average.kept,
                "shadow": shadow,
                "hidden": hidden,
                "past": past,
                "usual": usual.size,
            },
            "last.pt",
        )
