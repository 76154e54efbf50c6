"""lightning.Trainer on handwritten digits, with the checkpoints that ModelCheckpoint writes.

    python lightning_trainer.py              # trains, and keeps checkpoints/last.ckpt
    python lightning_trainer.py --resume     # continues from there

BatchNorm and dropout, SGD with momentum, a cosine schedule, shuffled batches. Audit of last.ckpt:

    bygones audit resume --at 20 --resume=--resume -- lightning_trainer.py --seed {seed}
"""

import argparse

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--save-steps", type=int, default=10)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)


class Network(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.log("right", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


L.seed_everything(options.seed)
learned = DataLoader(TensorDataset(images[:1024], labels[:1024]), batch_size=64, shuffle=True)
held_out = DataLoader(TensorDataset(images[1024:], labels[1024:]), batch_size=256)
trainer = L.Trainer(
    max_epochs=options.epochs,
    accelerator="cpu",
    logger=False,
    callbacks=[
        ModelCheckpoint("checkpoints", every_n_train_steps=options.save_steps, save_last=True)
    ],
)
trainer.fit(Network(), learned, held_out, ckpt_path="last" if options.resume else None)
