"""How people evaluate while they train, each way with a fault that can be left out.

`--way function`: `eval()` in the function, `train()` at the next epoch. Fault: it is never put back.
`--way inline`: in the loop itself, with the schedule's step after it. Fault: the loader draws from torch.
`--way full batch`: after every step. Fault: dropout is left on, and draws.
`--way export`: before the first step. Fault: it takes a step of the optimizer.
`--way hidden`: a model that carries a state. Fault: evaluation ends with this state forgotten.
`--way teacher`, `--way rollout`: no evaluation; training goes on from what is computed without gradients.
"""

import argparse
import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--way", default="function")
parser.add_argument("--fault", action="store_true")
args = parser.parse_args()

torch.manual_seed(0)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] > 0).long()


class Remembering(nn.Linear):
    hidden = None

    def forward(self, inputs):
        outputs = super().forward(inputs)
        if self.hidden is not None:
            outputs = outputs + 0.5 * self.hidden
        self.hidden = outputs.detach().mean(0)
        return outputs


first = Remembering(8, 16) if args.way == "hidden" else nn.Linear(8, 16)
model = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
teacher = copy.deepcopy(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
shuffling = torch.Generator().manual_seed(0)
training = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True, generator=shuffling)
apart = None if args.fault else torch.Generator()
validation = DataLoader(TensorDataset(x, y), batch_size=32, generator=apart)


def train_on(inputs, labels):
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def evaluate():
    model.eval()
    kept = first.hidden if args.way == "hidden" else None
    with torch.no_grad():
        right = (model(x).argmax(1) == y).sum().item()
    if args.way == "hidden":
        model.train()
        first.hidden = None if args.fault else kept
    return right


@torch.no_grad()
def score():
    model.train(args.fault)
    right = (model(x).argmax(1) == y).sum().item()
    model.train()
    return right


def export():
    torch.save(model.state_dict(), "start.pt")
    if args.fault:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def soft_labels(inputs):
    for mine, theirs in zip(teacher.parameters(), model.parameters(), strict=True):
        mine.lerp_(theirs, 0.1)
    return teacher(inputs).softmax(1)


def roll_out():
    states = [torch.ones(8)]
    with torch.no_grad():
        for _ in range(8):
            action = torch.distributions.Categorical(logits=model(states[-1])).sample()
            states.append(0.9 * states[-1] + 0.2 * action - 0.1)
    return torch.stack(states)


if args.way == "export":
    export()
for epoch in range(4):
    if not (args.fault and args.way == "function") or epoch == 0:
        model.train()
    for inputs, labels in training:
        if args.way == "teacher":
            labels = soft_labels(inputs)
        elif args.way == "rollout":
            inputs = roll_out()
            labels = torch.arange(len(inputs)) % 2
        train_on(inputs, labels)
        if args.way == "full batch":
            score()
    if args.way in ("function", "hidden"):
        evaluate()
    if args.way == "inline":
        model.eval()
        with torch.no_grad():
            print(sum((model(a).argmax(1) == b).sum().item() for a, b in validation))
    schedule.step()
