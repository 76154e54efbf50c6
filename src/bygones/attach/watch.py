"""`bygones.watch`: mark in a script which model is observed, and on which inputs."""

from __future__ import annotations

from typing import Any

_marked: dict[str, Any] = {}


def watch(model: Any, probe_inputs: Any, labels: Any = None) -> None:
    """Mark what a study of the script observes: `model` on `probe_inputs`, one batch as the model takes it.

    `labels`: class numbers [N], if the model is a classifier and scores like accuracy are wanted. Without
    a study this only keeps the three objects, so the call may stay in the code.

    >>> import torch
    >>> watch(torch.nn.Linear(2, 3), torch.zeros(5, 2))
    >>> forget()
    """
    _marked.update(model=model, inputs=probe_inputs, labels=labels)


def marked_models() -> dict[str, Any]:
    """Return what was marked last; empty if nothing was."""
    return dict(_marked)


def forget() -> None:
    """Remove the mark."""
    _marked.clear()
