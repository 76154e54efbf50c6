"""Trains a causal transformer of two layers to predict the next character of a stdlib module.

Its habit: a Trainer class holds the model, AdamW, a one-cycle schedule and the data as attributes,
and draws its batches with `torch.randint` from a torch.Generator of its own. The text is the source
of `argparse`, so nothing is downloaded.
"""

import argparse
import hashlib
import inspect

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

BATCH_SIZE = 8
CONTEXT = 16
STEPS_PER_EPOCH = 50


class Block(nn.Module):
    def __init__(self, width, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        x = x + self.narrow(F.gelu(self.widen(self.norm2(x))))
        return F.dropout(x, 0.1, self.training)


class CharTransformer(nn.Module):
    def __init__(self, vocabulary, width=32, layers=2):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.head(self.blocks(self.token(tokens) + self.position))


class Trainer:
    def __init__(self, text, epochs, seed):
        self.epochs = epochs
        characters = sorted(set(text))
        codes = {character: code for code, character in enumerate(characters)}
        tokens = torch.tensor([codes[character] for character in text])
        cut = int(0.9 * len(tokens))
        self.train_tokens, self.val_tokens = tokens[:cut], tokens[cut:]
        self.generator = torch.Generator().manual_seed(seed)
        self.model = CharTransformer(len(characters))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = OneCycleLR(self.optimizer, 1e-2, total_steps=epochs * STEPS_PER_EPOCH)

    def loss(self, windows):
        logits = self.model(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    def step(self):
        last = len(self.train_tokens) - CONTEXT
        starts = torch.randint(last, (BATCH_SIZE, 1), generator=self.generator)
        loss = self.loss(self.train_tokens[starts + torch.arange(CONTEXT + 1)])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        loss = self.loss(self.val_tokens.unfold(0, CONTEXT + 1, CONTEXT))
        self.model.train()
        return loss.item()

    def fit(self):
        for epoch in range(1, self.epochs + 1):
            loss = sum(self.step() for _ in range(STEPS_PER_EPOCH)) / STEPS_PER_EPOCH
            print(f"epoch {epoch:2d}  loss {loss:.4f}  validation {self.validate():.4f}")


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in [*model.parameters(), *model.buffers()]:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="A character model of the source of argparse.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    trainer = Trainer(inspect.getsource(argparse), args.epochs, args.seed)
    trainer.fit()
    print("weights", weights_digest(trainer.model))


if __name__ == "__main__":
    main()
