"""Weights & Biases: the one file that imports it. Runs are written offline; `wandb sync` sends them."""

from __future__ import annotations

from typing import Any

from bygones.core.extras import import_extra
from bygones.publish.export.base import TrackedRun, Tracker


def write_wandb(run: TrackedRun, place: str) -> str:
    """Write a run for Weights & Biases, offline: settings and tags as its config, curves by their steps.

    `place`: the folder that it makes its folder `wandb` in. Returns how to send it.
    """
    wandb: Any = import_extra("wandb", "the export to Weights & Biases")
    made = wandb.init(
        project="bygones",
        name=run.name,
        dir=place,
        mode="offline",
        config={**run.settings, **run.tags},
    )
    made.define_metric("*", step_metric="steps")
    at: dict[int, dict[str, float]] = {}
    for name, points in run.curves.items():
        for step, value in points:
            at.setdefault(step, {})[name] = value
    for step in sorted(at):
        made.log({"steps": step, **at[step]})
    folder = made.dir.removesuffix("/files")
    made.finish()
    return f"{folder}; send it with: wandb sync {folder}"


WANDB = Tracker("wandb", ".", write_wandb)
