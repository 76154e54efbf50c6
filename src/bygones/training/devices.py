"""Device placement: which tensors of a run are on the GPU, and deterministic GPU arithmetic.

On the GPU: model, averages, `Parts.others`, optimizer states, the probe set, snapshots.
On the CPU: the examples, and the generators of order and augmentation. So a batch is the same on every
device, hashing it does not synchronize with the GPU, and a seed starts from the same weights everywhere.
Dropout draws from the generator of the model's device, as in plain torch.
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

# cuBLAS is deterministic only with workspaces of a fixed size. It reads the variable on first use.
_WORKSPACES = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def check_device(device: str) -> str:
    """Return a device's name (`cpu`, `cuda`, `cuda:1`) if it is available, or raise `DesignError`."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda"):
        raise DesignError(f"there is no device '{device}'. Expected cpu, cuda, or one like cuda:1.")
    if wanted.type == "cpu":
        return "cpu"
    num_gpus = torch.cuda.device_count()
    if (wanted.index or 0) >= num_gpus:
        why = "is a build for the CPU" if torch.version.cuda is None else f"sees {num_gpus} GPUs"
        raise DesignError(
            f"'{device}' is not here: torch {torch.__version__} {why}. Train on the CPU, or install torch "
            f"for the version of CUDA that the driver has."
        )
    return device


def describe_device(device: str) -> str:
    """Describe a GPU by its name, CUDA and cuDNN, which decide its bits; return "" for the CPU."""
    if device == "cpu":
        return ""
    return (
        f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


@contextmanager
def deterministic_arithmetic(device: str) -> Iterator[None]:
    """Make GPU arithmetic deterministic and full precision (no TF32) within the block."""
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
    """Copy tensors, and lists, tuples and dicts of tensors, to a device; return anything else unchanged."""
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
    """Move the object to `device` in place, so that existing references stay valid."""
    if isinstance(value, nn.Module):
        value.to(device)
    elif isinstance(value, Tensor):
        value.data = value.data.to(device)
    elif isinstance(value, Optimizer):
        for parameter, state in value.state.items():
            for leaf in state.values():  # torch keeps step counts on the CPU
                if isinstance(leaf, Tensor) and leaf.shape == parameter.shape:
                    move_in_place(leaf, device)
    elif isinstance(value, Mapping):
        for item in value.values():
            move_in_place(item, device)
    elif isinstance(value, list | tuple):
        for item in value:
            move_in_place(item, device)
