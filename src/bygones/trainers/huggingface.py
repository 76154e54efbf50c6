"""Hugging Face: treat and measure a transformers.Trainer. The only file that imports transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from bygones.attach.discovery import LiveObjects
from bygones.core.errors import DesignError
from bygones.trainers.boundary_hooks import AtBoundaries, Probe, TrainerState
from bygones.trainers.checkpoint_surgery import rewrite_checkpoint
from bygones.trainers.measure import measure_with
from bygones.training.treatment import Treatment

try:
    from transformers import Trainer, TrainerCallback, set_seed
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "bygones.trainers.huggingface needs transformers and accelerate: "
        "pip install 'bygones[huggingface]'."
    ) from error

__all__ = ["Boundaries", "measure", "rewrite_checkpoint"]


class Boundaries(TrainerCallback):
    """A callback that rewrites sources at boundaries of a Trainer's run, and observes its function there.

    Boundary s is where `state.global_step` is s and the next step begins (`on_step_begin`): evaluation
    and saving at step s come before it, so checkpoint-s is the run as it was before the treatments of s.
    `probe`: a function of the model, called in evaluation mode without gradients, that returns numbers
    [inputs, outputs]. `seed` decides random kicks and re-drawn streams; it is the Trainer's own if not given.

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

    @property
    def observed(self) -> dict[int, np.ndarray]:
        """The probe's outputs, by step: [inputs, outputs]."""
        return self._work.observed

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Every source of the run as it stands now: name, origin, visibility, lifetime, leaves, bytes."""
        return self._work.rows()

    def on_train_begin(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        if args.world_size > 1 or args.n_gpu > 1:
            raise DesignError(
                f"this training is spread over {max(args.world_size, args.n_gpu)} devices, and a boundary is "
                f"one place in one process. Train on one device (CUDA_VISIBLE_DEVICES=0, without a launcher)."
            )
        self._work.begin(
            TrainerState(
                _live_objects(handed),
                handed["model"],
                args.seed,
                state.global_step,
                state.max_steps,
            )
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        self._work.reached(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        self._work.updated(state.global_step, over=state.global_step >= state.max_steps)
        if self._work.may_stop:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        self._work.ended(state.global_step)


def _train(make_trainer: Callable[[int], Any], seed: int, work: AtBoundaries) -> None:
    """Build the Trainer of a seed, and train it with this work done at its boundaries."""
    set_seed(seed)
    trainer = make_trainer(seed)
    _check_trainer(trainer, seed)
    callback = Boundaries()
    callback._work = work
    trainer.add_callback(callback)
    original_step = trainer.training_step

    def training_step(*given: Any, **named: Any) -> Any:
        loss = original_step(*given, **named)
        work.descended(loss)
        return loss

    trainer.training_step = training_step
    trainer.train()


measure = measure_with(
    _train,
    "`make_trainer` returns a new `transformers.Trainer` with a new model and "
    "`TrainingArguments(seed=seed)`. `transformers.set_seed(seed)` seeds the generators.",
)


def _live_objects(handed: Mapping[str, Any]) -> LiveObjects:
    """The objects of the Trainer, without the wrappers that accelerate puts around them."""
    optimizer, scheduler = handed["optimizer"], handed["lr_scheduler"]
    scaler = getattr(optimizer, "scaler", None)
    model = handed["model"]
    return LiveObjects(
        optimizers={"optimizer": _unwrapped(optimizer, "optimizer")},
        schedulers={} if scheduler is None else {"scheduler": _unwrapped(scheduler, "scheduler")},
        scalers={} if scaler is None else {"scaler": scaler},
        trained={"model": model},
        averaged={},
        others={},
        generators={},
        loose=(),
    )


def _unwrapped(thing: Any, name: str) -> Any:
    """Remove accelerate's wrappers: they keep the optimizer or scheduler in an attribute of that name."""
    while type(thing).__module__.startswith("accelerate.") and hasattr(thing, name):
        thing = getattr(thing, name)
    return thing


def _check_trainer(trainer: Any, seed: int) -> None:
    if not isinstance(trainer, Trainer):
        raise DesignError(
            f"make_trainer({seed}) must return a transformers.Trainer; it returned a "
            f"{type(trainer).__name__}."
        )
    if trainer.args.seed != seed:
        raise DesignError(
            f"make_trainer({seed}) returned a Trainer with args.seed={trainer.args.seed}, so the order of "
            f"its data and its dropout do not follow the seed. Write TrainingArguments(…, seed=seed)."
        )
