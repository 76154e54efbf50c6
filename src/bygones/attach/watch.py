"""The one line for those who do edit their script: which model to look at, and on which inputs."""

from __future__ import annotations

from typing import Any

_marked: dict[str, Any] = {}


def watch(model: Any, probe_inputs: Any, labels: Any = None) -> None:
    """Marks what `bygones script` shall observe: `model` on `probe_inputs` (one batch, as it takes it).

    `labels`: class numbers [N], if the model is a classifier and scores like accuracy are wanted. Outside
    of `bygones script` this does nothing but keep the three objects, so it may stay in the code.

    >>> import torch
    >>> watch(torch.nn.Linear(2, 3), torch.zeros(5, 2))
    >>> forget()
    """
    _marked.update(model=model, inputs=probe_inputs, labels=labels)


def marked_models() -> dict[str, Any]:
    """What was marked last; empty if nothing was."""
    return dict(_marked)


def forget() -> None:
    """Nothing is marked any more."""
    _marked.clear()
