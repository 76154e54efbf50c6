"""Measure how much a lightning.Trainer's network depends on its BatchNorm statistics and its moments.

A small network on handwritten digits. Needs `pip install 'bygones[lightning,regimes]'`. Prints the effects
and writes trainer-report/report.html.
"""

import lightning.pytorch as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bygones
from bygones import Arm, Reseed, Reset, Treatment, Window
from bygones.trainers.lightning import measure

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)


class Network(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def make_trainer(seed: int) -> tuple[L.Trainer, L.LightningModule, DataLoader]:
    """A new Trainer, a new module, and the data: what `trainer.fit(module, data)` is called with."""
    data = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=32, shuffle=True)
    trainer = L.Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer, Network(), data


def probe(network: nn.Module) -> torch.Tensor:
    return network(images[1200:])


if __name__ == "__main__":
    at = Window(100, 101)  # one boundary: after 100 optimizer steps
    arms = [
        Arm("reset momentum", Treatment("moments", Reset(), at)),
        Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
        Arm("re-draw torch's stream", Treatment("streams", Reseed(), at, leaves="torch/*")),
    ]
    outcomes = measure(
        make_trainer,
        arms,
        fork_at=100,
        horizons=(1, 10, 100),
        seeds=range(5),
        probe=probe,
        labels=labels[1200:],
        name="digits",
    )
    for effect in bygones.all_effects(outcomes):
        print(effect)
    print(bygones.write_report(outcomes, "trainer-report"))
