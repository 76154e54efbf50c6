"""The parameters are bare tensors; there is no nn.Module."""

import hashlib

import torch
import torch.nn.functional as F

weight = (0.1 * torch.randn(8, 3)).requires_grad_()
bias = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9)
for _ in range(60):
    inputs = torch.randn(16, 8)
    loss = F.cross_entropy(inputs @ weight + bias, inputs[:, :3].argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

weights = torch.cat([weight.flatten(), bias]).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
