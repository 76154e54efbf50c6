"""Checkpoint surgery on optimizers that count in their parameter groups: a reset one is as a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bygones.core.digest import same_bits
from bygones.core.errors import RecipeError
from bygones.trainers.checkpoint_files import open_checkpoint
from bygones.trainers.checkpoint_surgery import rewrite_checkpoint
from bygones.training.interventions import Reset, Sham

schedulefree = pytest.importorskip("schedulefree")
po = pytest.importorskip("pytorch_optimizer")

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02),
    "AdamWScheduleFree": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.02),
    "SGDScheduleFree": lambda p: schedulefree.SGDScheduleFree(p, lr=0.2),
    "RAdamScheduleFree": lambda p: schedulefree.RAdamScheduleFree(p, lr=0.02),
    "Lion": lambda p: po.Lion(p, lr=0.01),
    "AdaBelief": lambda p: po.AdaBelief(p, lr=0.01),
    "Prodigy": lambda p: po.Prodigy(p),
}
SCHEDULE_FREE = {"k", "weight_sum", "lr_max", "scheduled_lr"}
COUNTED = {
    "AdamW": set(),
    "AdamWScheduleFree": SCHEDULE_FREE,
    "SGDScheduleFree": SCHEDULE_FREE,
    "RAdamScheduleFree": SCHEDULE_FREE,
    "Lion": {"step"},
    "AdaBelief": {"step"},
    "Prodigy": {"d", "d_max", "step", "d_numerator", "d_de_nom", "d_hat"},
}
with_every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


def take_steps(optimizer: Any, parameter: Tensor, number: int, start: int = 0) -> None:
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(start, start + number):
        parameter.grad = torch.sin(torch.arange(1.0, 65.0) * (step + 2)).view(8, 8)
        optimizer.step()


def saved(name: str, folder: Path) -> tuple[Path, Tensor]:
    """A checkpoint after five steps, in the layout of Lightning's, and the weights that it was saved with."""
    parameter = nn.Parameter(torch.linspace(-1.0, 1.0, 64).view(8, 8))
    optimizer = OPTIMIZERS[name]([parameter])
    take_steps(optimizer, parameter, 5)
    held = {
        "global_step": 5,
        "state_dict": {"w": parameter.detach()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"last_epoch": 5}],
    }
    torch.save(held, folder / "saved.ckpt")
    return folder / "saved.ckpt", parameter.detach().clone()


def trained_on(name: str, weights: Tensor, checkpoint: Path | None) -> Tensor:
    """The weights two steps on: of a new optimizer, or of one that was loaded from a checkpoint."""
    parameter = nn.Parameter(weights.clone())
    optimizer = OPTIMIZERS[name]([parameter])
    if checkpoint is not None:
        held = torch.load(checkpoint, weights_only=True)
        optimizer.load_state_dict(held["optimizer_states"][0])
    take_steps(optimizer, parameter, 2, start=5)
    return parameter.detach()


@with_every_optimizer
def test_a_reset_checkpoint_trains_on_as_a_new_optimizer(name, tmp_path):
    checkpoint, weights = saved(name, tmp_path)
    reset = rewrite_checkpoint(checkpoint, tmp_path / "reset.ckpt", "moments", Reset())
    new = trained_on(name, weights, None)
    assert same_bits(trained_on(name, weights, reset), new)
    assert not same_bits(trained_on(name, weights, checkpoint), new)


@with_every_optimizer
def test_a_sham_keeps_counters_to_the_bit(name, tmp_path):
    checkpoint, weights = saved(name, tmp_path)
    sham = rewrite_checkpoint(checkpoint, tmp_path / "sham.ckpt", "moments", Sham())
    before, after = (torch.load(one, weights_only=True) for one in (checkpoint, sham))
    assert str(before["optimizer_states"]) == str(after["optimizer_states"])
    assert same_bits(trained_on(name, weights, sham), trained_on(name, weights, checkpoint))


@with_every_optimizer
def test_counters_are_moments_and_constants_are_settings(name, tmp_path):
    sources = open_checkpoint(saved(name, tmp_path)[0], seed=0).sources
    counted = {leaf.split("/")[1] for leaf in sources["moments"].capture() if leaf[:5] == "group"}
    settings = {leaf.rpartition("/")[2] for leaf in sources["scheduler"].capture()}
    assert counted == COUNTED[name]
    assert not counted & settings
    assert "lr" in settings


def test_a_counter_of_unknown_beginning_is_refused(tmp_path):
    """D-Adaptation's first distance is an argument that it does not keep."""
    parameter = nn.Parameter(torch.linspace(-1.0, 1.0, 64).view(8, 8))
    optimizer = po.DAdaptAdam([parameter])
    take_steps(optimizer, parameter, 2)
    held = {"global_step": 2, "state_dict": {}, "optimizer_states": [optimizer.state_dict()]}
    torch.save(held, tmp_path / "saved.ckpt")
    with pytest.raises(RecipeError, match=r"counts in 'd' and does not say as what it began"):
        rewrite_checkpoint(tmp_path / "saved.ckpt", tmp_path / "out.ckpt", "moments", Reset())
    assert not (tmp_path / "out.ckpt").exists()
