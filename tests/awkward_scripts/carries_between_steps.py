"""What is carried from step to step is None, empty or a plain number at first; batches and losses are not.

The momentum buffers are set to zero in each step, though their setting says 0.9; not with `--momentum`.
"""

import sys
from collections import deque

import torch
from torch import nn


class Trainer:
    def __init__(self):
        self.position, self.usual, self.recent = 0, None, deque(maxlen=3)
        self.model = nn.GRU(3, 8, batch_first=True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)

    def step(self, hidden):
        batch = text[self.position % len(text)]
        outputs, hidden = self.model(batch, hidden)
        loss = (outputs - 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        size = nn.utils.get_total_norm(
            [p.grad for p in self.model.parameters() if p.grad is not None]
        )
        self.usual = size if self.usual is None else 0.9 * self.usual + 0.1 * size
        self.recent.append(float(size))
        if "--momentum" not in sys.argv:
            for state in self.optimizer.state.values():
                state["momentum_buffer"].zero_()
        self.optimizer.step()
        self.position += 1
        return loss, hidden.detach()


text = torch.randn(7, 4, 5, 3, generator=torch.Generator().manual_seed(1))
trainer, hidden, seen, total = Trainer(), None, [], 0
while total < 40:
    loss, hidden = trainer.step(hidden)
    seen.append(loss.item())
    total += 1
print(sum(seen))
