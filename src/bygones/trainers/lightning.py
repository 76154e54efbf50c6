"""Lightning: treat and measure a lightning.Trainer. The only file that imports the library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bygones.attach.discovery import LiveObjects
from bygones.core.errors import DesignError
from bygones.trainers.boundary_hooks import AtBoundaries, Probe, TrainerState
from bygones.trainers.checkpoint_surgery import rewrite_checkpoint
from bygones.trainers.measure import measure_with
from bygones.training.treatment import Treatment

if TYPE_CHECKING:
    from lightning.pytorch import Callback, seed_everything
else:
    try:
        from lightning.pytorch import Callback, seed_everything
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback, seed_everything
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "bygones.trainers.lightning needs lightning (or pytorch-lightning): "
                "pip install 'bygones[lightning]'."
            ) from error

__all__ = ["Boundaries", "measure", "rewrite_checkpoint"]

_SEEDED_BY = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")  # what seed_everything leaves in the environment


class Boundaries(Callback):
    """A callback that rewrites sources at boundaries of a Trainer's run, and observes its function there.

    Boundary s is where `trainer.global_step` is s and the next batch begins (`on_train_batch_start`):
    validation at step s and what is saved there come before it. `global_step` counts every update of every
    optimizer, so with two a batch only even steps are boundaries. `probe`: a function of the module, called
    in evaluation mode without gradients, that returns numbers [inputs, outputs]. `seed` decides random
    kicks and re-drawn streams; it is the one of `seed_everything` if not given, else 0.

    >>> from bygones import Reset, Window
    >>> Boundaries([Treatment("moments", Reset(), Window(10, 11))]).observed
    {}
    """

    def __init__(
        self,
        treatments: Iterable[Treatment] = (),
        observe_at: Iterable[int] = (),
        probe: Probe | None = None,
        seed: int | None = None,
    ) -> None:
        self._work = AtBoundaries(treatments, observe_at, probe, seed)
        self._step = 0

    @property
    def observed(self) -> dict[int, np.ndarray]:
        """The probe's outputs, by step: [inputs, outputs]."""
        return self._work.observed

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Every source of the run as it stands now: name, origin, visibility, lifetime, leaves, bytes."""
        return self._work.rows()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.world_size > 1:
            raise DesignError(
                f"this training is spread over {trainer.world_size} devices, and a boundary is one place in "
                f"one process. Give Trainer(devices=1)."
            )
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        self._step = trainer.global_step
        found = _live_objects(trainer, pl_module)
        self._work.begin(TrainerState(found, pl_module, seed, self._step, _last(trainer)))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._work.reached(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self._work.descended(loss)
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self._work.updated(self._step, over=self._step == trainer.max_steps)
            if self._work.may_stop:
                trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._work.ended(trainer.global_step)


def _train(make_trainer: Callable[[int], Any], seed: int, work: AtBoundaries) -> None:
    """Build the Trainer of a seed, and fit its module with this work done at its boundaries."""
    with _kept_environment():
        seed_everything(seed, verbose=False)
        trainer, *fitted = _checked(make_trainer(seed), seed)
        callback = Boundaries()
        callback._work = work
        trainer.callbacks.append(callback)
        trainer.fit(*fitted)


measure = measure_with(
    _train,
    "`make_trainer` returns `(trainer, module)` or `(trainer, module, data)`, and "
    "`trainer.fit(module, data)` is called. `seed_everything(seed)` seeds the generators.",
)


def _live_objects(trainer: Any, module: nn.Module) -> LiveObjects:
    """The objects of the Trainer: optimizers, schedulers, scaler, and the averages of its callbacks."""
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    averaged = [
        held
        for callback in trainer.callbacks
        for held in vars(callback).values()
        if isinstance(held, AveragedModel)
    ]
    return LiveObjects(
        optimizers={
            f"optimizer{i}": getattr(optimizer, "optimizer", optimizer)
            for i, optimizer in enumerate(trainer.optimizers)
        },
        schedulers={f"scheduler{i}": scheduler for i, scheduler in enumerate(schedulers)},
        scalers={} if scaler is None else {"scaler": scaler},
        trained={"model": module},
        averaged={f"averages{i}": average for i, average in enumerate(averaged)},
        others={},
        generators={},
        loose=(),
    )


def _last(trainer: Any) -> float:
    """The step after which training ends; unknown where a module steps its optimizers itself."""
    if not trainer.lightning_module.automatic_optimization:
        return trainer.max_steps if trainer.max_steps >= 0 else float("inf")
    last = trainer.estimated_stepping_batches
    return last if last >= 0 else float("inf")


def _checked(made: Any, seed: int) -> Sequence[Any]:
    parts = list(made) if isinstance(made, tuple | list) else [made]
    if len(parts) < 2 or not hasattr(parts[0], "fit") or not isinstance(parts[1], nn.Module):
        found = ", ".join(type(part).__name__ for part in parts)
        raise DesignError(
            f"make_trainer({seed}) must return (trainer, module) or (trainer, module, data), for "
            f"trainer.fit(module, data); it returned {found}."
        )
    return parts


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Restore the environment variables that `seed_everything` sets for worker processes."""
    before = {name: os.environ.get(name) for name in _SEEDED_BY}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
