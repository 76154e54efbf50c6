"""Where a run's tensors lie: what is put on a GPU, what stays, and what fixes its bits there.

On the GPU: model, averages, whatever else the recipe carries, optimizer states, the probe set, snapshots.
On the CPU: the examples and the generators of order and augmentation. So a batch is the same on every
device, its digest costs no wait for the GPU, and a seed begins with the same weights everywhere.
Dropout draws from the generator of the device that the model is on, as torch has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.core.errors import DesignError

# cuBLAS gives the same bits twice only with workspaces of a fixed size; it reads this when it is first used.
_WORKSPACES = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def check_device(device: str) -> str:
    """A device that is here, by torch's name for it: `cpu`, `cuda`, `cuda:1`."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda"):
        raise DesignError(f"there is no device '{device}'. Expected cpu, cuda, or one like cuda:1.")
    if wanted.type == "cpu":
        return "cpu"
    there = torch.cuda.device_count()
    if (wanted.index or 0) >= there:
        why = "is a build for the CPU" if torch.version.cuda is None else f"sees {there} GPUs"
        raise DesignError(
            f"'{device}' is not here: torch {torch.__version__} {why}. Train on the CPU, or install torch "
            f"for the version of CUDA that the driver has."
        )
    return device


def describe_device(device: str) -> str:
    """What decides the bits of a GPU's arithmetic: its name and the libraries; empty for the CPU."""
    if device == "cpu":
        return ""
    return (
        f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


@contextmanager
def deterministic_arithmetic(device: str) -> Iterator[None]:
    """While it lasts a GPU computes in full precision and in one way; nothing to do on the CPU."""
    if device == "cpu":
        yield
        return
    os.environ.setdefault(*_WORKSPACES)
    matmul = torch.backends.cuda.matmul
    tf32, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with (
            torch.cuda.device(device),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        matmul.allow_tf32 = tf32


def to_device(value: Any, device: str) -> Any:
    """Tensors, and lists and dicts of tensors, on a device; anything else as it is."""
    if device == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


def move_in_place(value: Any, device: str) -> None:
    """Moves what a recipe made to a device, in place: whoever holds it holds it still."""
    if isinstance(value, nn.Module):
        value.to(device)
    elif isinstance(value, Tensor):
        value.data = value.data.to(device)
    elif isinstance(value, Optimizer):
        for parameter, state in value.state.items():
            for held in state.values():  # counts stay where torch counts, on the CPU
                if isinstance(held, Tensor) and held.shape == parameter.shape:
                    move_in_place(held, device)
    elif isinstance(value, Mapping):
        for item in value.values():
            move_in_place(item, device)
    elif isinstance(value, list | tuple):
        for item in value:
            move_in_place(item, device)
