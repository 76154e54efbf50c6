"""Recipes: functions `recipe(seed) -> Parts` that build a run, and how a recipe is identified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from bygones.core.digest import digest
from bygones.core.errors import BygonesError, DesignError, RecipeError
from bygones.core.importing import address_of, load_object
from bygones.core.keyed_rng import ROLES, Streams
from bygones.core.text import describe_error
from bygones.core.typed_code import digest_of_code
from bygones.core.values import Digest, Lifetime, Origin, Visibility
from bygones.training.check_parts import check_parts
from bygones.training.devices import move_in_place, to_device
from bygones.training.generators import global_states, with_seeded_generators
from bygones.training.orders.base import AbstractOrder
from bygones.training.orders.cursor import Cursor

Batch = Any


def supervised(parts: Parts, batch: Batch) -> Tensor:
    """Take the default training step: one gradient of `loss(model(inputs), labels)`, one update.

    Returns the loss. Gradients are cleared at the end, so that none crosses the boundary.
    """
    inputs, labels = batch
    loss = parts.loss(parts.model(inputs), labels)
    loss.backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    for scheduler in parts.schedulers.values():
        scheduler.step()
    if parts.averages is not None:
        parts.averages.update_parameters(parts.model)
    return loss


@dataclass(frozen=True)
class Memory:
    """A member of `Parts.others` with its origin, visibility and lifetime.

    `value`: a tensor, module, numpy array, generator, a dict of such, or an object with
    `state_dict`/`load_state_dict`. `fresh`: a function of the parts that returns the value which a new
    object would have; without it, a reset returns to the state as the recipe built it.
    """

    value: Any
    origin: Origin = "auxiliary"
    visibility: Visibility = "process"
    lifetime: Lifetime = field(default_factory=lambda: Lifetime("unbounded"))
    fresh: Callable[[Parts], Any] | None = None


@dataclass(eq=False)
class Parts:
    """The objects of a run, as a recipe returns them: plain PyTorch objects and the training step.

    model        the module that is trained and probed
    optimizer    any torch optimizer, or several by name
    data         tensors [num_examples, …] (a batch is `tuple(t[rows] for t in data)`), or a map-style
                 Dataset (collated as DataLoader does)
    order        the order policy: which examples at which step
    loss         used by the default step
    scheduler    stepped by the default step, after the optimizer; or several by name
    averages     an AveragedModel (EMA or SWA), updated by the default step
    others       anything else with state, by name: a queue tensor, a teacher module, a dict of counters
    augment      batch, generator -> batch; draws only from the generator it is given
    train_step   parts, batch -> loss; `supervised` unless the recipe gives another
    probe_set    inputs and labels on which the function is observed
    probe_images the probe inputs as images [N, height, width], for reports; None if they are none
    """

    model: nn.Module
    optimizer: Optimizer | Mapping[str, Optimizer]
    data: tuple[Tensor, ...] | Any
    order: AbstractOrder
    loss: Callable[..., Tensor] = nn.functional.cross_entropy
    scheduler: LRScheduler | Mapping[str, LRScheduler] | None = None
    averages: AveragedModel | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    augment: Callable[[Batch, torch.Generator], Batch] | None = None
    train_step: Callable[[Parts, Batch], Tensor] = supervised
    probe_set: tuple[Tensor, Tensor] | None = None
    probe_images: Tensor | None = None

    def __post_init__(self) -> None:
        check_parts(self)

    # Set by `build`: the position in the order, the key of each random stream, the global generators that
    # the recipe drew from, and the device of the tensors.
    cursor: Cursor = field(init=False, repr=False)
    keys: dict[str, int] = field(init=False, repr=False)
    built_from: tuple[str, ...] = field(init=False, repr=False)
    device: str = field(init=False, default="cpu", repr=False)

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name; a single one has the name ""."""
        return {"": self.optimizer} if isinstance(self.optimizer, Optimizer) else self.optimizer

    @property
    def schedulers(self) -> Mapping[str, LRScheduler]:
        """The schedulers by name; a single one has the name ""."""
        if self.scheduler is None:
            return {}
        return self.scheduler if isinstance(self.scheduler, Mapping) else {"": self.scheduler}

    def fetch(self, rows: np.ndarray) -> Batch:
        """Collate the examples at these indices to one batch on the CPU, before augmentation."""
        if isinstance(self.data, tuple):
            index = torch.tensor(rows)
            return tuple(tensor[index] for tensor in self.data)
        return default_collate([self.data[int(row)] for row in rows])


RecipeFunction = Callable[..., Parts]


@dataclass(frozen=True)
class Recipe:
    """A recipe function by its address, with settings. It can be compared, hashed and pickled.

    `source` is `package.module:function` or `path/to/file.py:function`; `settings` are keyword
    arguments that are passed to the function after the seed.
    """

    source: str
    settings: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def of(function: RecipeFunction | Recipe | str, **settings: Any) -> Recipe:
        """Build a recipe from a function at the top level of a module, an address, or another recipe."""
        try:
            digest(settings)
        except (TypeError, ValueError) as error:
            raise DesignError(
                f"the settings of a recipe are plain values: numbers, texts, arrays, tuples of these, or "
                f"frozen dataclasses; {error}."
            ) from None
        if isinstance(function, Recipe):
            return Recipe(
                function.source, tuple(sorted({**dict(function.settings), **settings}.items()))
            )
        if not isinstance(function, str):
            function = address_of(function)
        return Recipe(function, tuple(sorted(settings.items())))

    def load(self) -> RecipeFunction:
        """Import the recipe function; raises `DesignError` if the address leads nowhere."""
        return load_object(self.source)

    def code(self) -> Digest:
        """Hash the recipe's code, the code that it uses, and its settings."""
        return digest([digest_of_code(self.source), self.settings])

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings)
        name = self.source.rpartition("/")[2]
        return f"{name}({settings})" if settings else name


def build(recipe: Recipe, seed: int, device: str = "cpu") -> Parts:
    """Build the parts of a run: call the recipe under the seed's `init` stream, then set cursor and keys.

    The recipe builds on the CPU and the parts are then moved to the device, so a seed starts from the
    same weights on any device. Raises `RecipeError` if the recipe raises or returns no `Parts`.
    """
    streams = Streams(seed)
    function = recipe.load()
    with with_seeded_generators(
        {role: streams.key("init") for role in ("dropout", "numpy", "python")}, 0
    ):
        before = global_states()
        try:
            parts = function(seed, **dict(recipe.settings))
        except BygonesError:
            raise
        except (Exception, SystemExit) as error:
            raise RecipeError(
                f"the recipe {recipe} {describe_error(error, f'for seed {seed}')}."
            ) from error
        after = global_states()
    if not isinstance(parts, Parts):
        raise RecipeError(
            f"the recipe {recipe} must return bygones.Parts; it returned a {type(parts).__name__}."
        )
    parts.keys = {role: streams.key(role) for role in ROLES if role not in ("init", "order")}
    parts.cursor = Cursor(parts.order, streams.key("order"))
    parts.built_from = tuple(name for name in before if before[name] != after[name])
    if device != "cpu":
        _move_parts(parts, device)
    return parts


def _move_parts(parts: Parts, device: str) -> None:
    """Move everything but the examples to the device, in place."""
    others = [one.value if isinstance(one, Memory) else one for one in parts.others.values()]
    for value in (parts.model, parts.averages, parts.loss, *others, *parts.optimizers.values()):
        move_in_place(value, device)
    parts.probe_set = to_device(parts.probe_set, device)
    parts.device = device
