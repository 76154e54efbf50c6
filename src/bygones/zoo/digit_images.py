"""Handwritten digits as tensors: the data that several regimes train on, the same on every machine.

The 1 797 images of 8 x 8 that ship with scikit-learn (UCI "Optical Recognition of Handwritten Digits",
Alpaydin & Kaynak 1998, doi:10.24432/C50P49): 1 437 for training, 360 for testing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from bygones.core.extras import import_extra

NUM_TRAIN = 1437
SIDE = 8  # pixels


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """Load pixels in [0, 1], float32 [1797, 64], and labels, int64 [1797], in one shuffled order.

    The first `NUM_TRAIN` are for training. The order is the same for all seeds. The tensors are shared, so
    copy what is to be changed. Needs scikit-learn (the extra `regimes`).
    """
    datasets = import_extra("sklearn.datasets", "the data of handwritten digits")
    images, labels = datasets.load_digits(return_X_y=True)
    split = np.random.default_rng(0).permutation(len(images))
    return torch.tensor(images[split] / 16.0, dtype=torch.float32), torch.tensor(labels[split])


def draw_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to a pixel, and add noise of size 0.1: float [N, 64] -> [N, 64]."""
    moved = shift_images(images, 1, generator)
    return moved + 0.1 * torch.randn(moved.shape, generator=generator)


def shift_images(images: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `by` pixels along both axes, and fill with 0: float [N, 64] -> [N, 64]."""
    padded = torch.nn.functional.pad(images.reshape(-1, SIDE, SIDE), (by, by, by, by))
    corner = torch.randint(0, 2 * by + 1, (2, len(images), 1), generator=generator)
    places = torch.arange(SIDE)
    rows, columns = corner[0] + places, corner[1] + places  # [N, SIDE]
    cut = padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.reshape(len(images), -1)
