"""How a run is built from a seed: `recipe(seed) -> Parts`, and what identifies a recipe."""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from bygones.code import code_digest
from bygones.devices import move, put
from bygones.digest import digest
from bygones.errors import BygonesError, DesignError, RecipeError
from bygones.orders.base import AbstractOrder
from bygones.orders.cursor import Cursor
from bygones.streams import ROLES, Streams, mix
from bygones.values import Digest, Lifetime, Origin, Visibility

Batch = Any

_STUDY_MODULE = "bygones_study_"  # what a file is called once it is imported by its path


def supervised(parts: Parts, batch: Batch) -> Tensor:
    """The default training step: one gradient of `loss(model(inputs), labels)`, one update.

    Gradients are cleared at the end, so that none is left lying across the boundary.
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
    """Anything else with state, said in full: what it is, how long it lasts, who can see it.

    `value`: a tensor, module, numpy array, generator, a dict of such, or an object with
    `state_dict`/`load_state_dict`. `fresh`: a function of the parts giving the value of a new one;
    without it, new means "as the recipe built it".
    """

    value: Any
    origin: Origin = "auxiliary"
    visibility: Visibility = "process"
    lifetime: Lifetime = field(default_factory=lambda: Lifetime("unbounded"))
    fresh: Callable[[Parts], Any] | None = None


@dataclass(eq=False)
class Parts:
    """What a recipe returns: ordinary PyTorch objects, and which function takes a step with them.

    model        the module that is trained and probed
    optimizer    any torch optimizer, or several by name
    data         tensors [num_examples, …] (a batch is `tuple(t[rows] for t in data)`), or a map-style
                 Dataset (collated as DataLoader does)
    order        which examples at which step
    loss         used by the default step
    scheduler    stepped by the default step, after the optimizer; or several by name
    averages     an AveragedModel (EMA or SWA), updated by the default step
    others       anything else with state, by name: a queue tensor, a teacher module, a dict of counters
    augment      batch, generator -> batch; draws only from the generator it is given
    train_step   parts, batch -> loss; `supervised` unless the recipe brings its own
    probe_set    inputs and labels on which the function is observed
    probe_images what the probe inputs look like [N, height, width], if they are pictures; for reports
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

    # Set by `build`: where the run stands in its order, the key of each random stream, which of the global
    # generators building it drew from, and where its tensors lie.
    cursor: Cursor = field(init=False, repr=False)
    keys: dict[str, int] = field(init=False, repr=False)
    built_from: tuple[str, ...] = field(init=False, repr=False)
    device: str = field(init=False, default="cpu", repr=False)

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name; a single one is called ''."""
        return {"": self.optimizer} if isinstance(self.optimizer, Optimizer) else self.optimizer

    @property
    def schedulers(self) -> Mapping[str, LRScheduler]:
        """The schedulers by name; a single one is called ''."""
        if self.scheduler is None:
            return {}
        return self.scheduler if isinstance(self.scheduler, Mapping) else {"": self.scheduler}

    def fetch(self, rows: np.ndarray) -> Batch:
        """The examples at these indices, as one batch on the CPU; `augment` sees it before the device."""
        if isinstance(self.data, tuple):
            index = torch.tensor(rows)
            return tuple(tensor[index] for tensor in self.data)
        return default_collate([self.data[int(row)] for row in rows])


RecipeFunction = Callable[..., Parts]


@dataclass(frozen=True)
class Recipe:
    """A recipe function by its address, with its settings: it compares, hashes and travels.

    `source` is `package.module:function` or `path/to/file.py:function`; `settings` are keyword
    arguments handed to the function after the seed.
    """

    source: str
    settings: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def of(function: RecipeFunction | Recipe | str, **settings: Any) -> Recipe:
        """From a function (which must be at the top level of its module) or from an address."""
        if isinstance(function, Recipe):
            return Recipe(
                function.source, tuple(sorted({**dict(function.settings), **settings}.items()))
            )
        if not isinstance(function, str):
            function = _address(function)
        return Recipe(function, tuple(sorted(settings.items())))

    def load(self) -> RecipeFunction:
        return load_object(self.source)

    def code(self) -> Digest:
        """Digest of the recipe's own code, of the code that it uses, and of its settings."""
        return digest([code_digest(self.load()), self.settings])

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings)
        name = self.source.rpartition("/")[2]
        return f"{name}({settings})" if settings else name


def build(recipe: Recipe, seed: int, device: str = "cpu") -> Parts:
    """Calls the recipe with its `init` stream in place, and gives the run its addresses and its place.

    What the recipe makes on the CPU is moved to the device: a seed begins with the same weights anywhere.
    """
    streams = Streams(seed)
    function = recipe.load()
    with seeded_globals({role: streams.key("init") for role in ("dropout", "numpy", "python")}, 0):
        before = global_states()
        try:
            parts = function(seed, **dict(recipe.settings))
        except BygonesError:
            raise
        except Exception as error:
            raise RecipeError(
                f"the recipe {recipe} raised {type(error).__name__} for seed {seed}: {error}."
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
        _place(parts, device)
    return parts


def _place(parts: Parts, device: str) -> None:
    others = [one.value if isinstance(one, Memory) else one for one in parts.others.values()]
    for value in (parts.model, parts.averages, parts.loss, *others, *parts.optimizers.values()):
        move(value, device)
    parts.probe_set = put(parts.probe_set, device)
    parts.device = device


def global_states() -> dict[str, Digest]:
    """Digests of the states of the process's three generators, to see which of them is drawn from."""
    return {
        "torch": digest([torch.default_generator.get_state(), *_gpu_states()]),
        "numpy": digest(np.random.get_state(legacy=False)),
        "python": digest(random.getstate()),
    }


@contextmanager
def kept_globals() -> Iterator[None]:
    """Gives the process's global generators back as they were: what runs inside leaves no trace."""
    kept_torch, kept_numpy, kept_python = (
        torch.default_generator.get_state(),
        np.random.get_state(),
        random.getstate(),
    )
    kept_gpus = _gpu_states()
    try:
        yield
    finally:
        torch.default_generator.set_state(kept_torch)
        if kept_gpus:
            torch.cuda.set_rng_state_all(kept_gpus)
        np.random.set_state(kept_numpy)
        random.setstate(kept_python)


@contextmanager
def seeded_globals(keys: Mapping[str, int], place: int) -> Iterator[None]:
    """The global generators at an address, and as they were before once it is over."""
    with kept_globals():
        seed_globals(keys, place)
        yield


def seed_globals(keys: Mapping[str, int], place: int) -> None:
    """Puts the three global generators, torch's on each device, at `place` of their streams.

    torch's CPU generator and numpy's legacy one take 32 bits of the address (theirs, not ours).
    """
    torch.default_generator.manual_seed(mix(keys["dropout"], place))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mix(keys["dropout"], place))
    np.random.seed(mix(keys["numpy"], place) & 0xFFFFFFFF)
    random.seed(mix(keys["python"], place))


def _gpu_states() -> list[Tensor]:
    """The states of the GPUs' generators, where a GPU is in use."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def load_object(source: str) -> Any:
    """The object at `package.module:name` or `path/to/file.py:name`."""
    place, _, name = source.rpartition(":")
    if not place or not name:
        raise DesignError(
            f"'{source}' is not an address; expected package.module:function or file.py:function."
        )
    module = import_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not hasattr(module, name):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise DesignError(f"{place} has no '{name}'. It has: {', '.join(public) or 'nothing'}.")
    return getattr(module, name)


def _address(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    if module is None or not hasattr(module, name):
        raise DesignError(
            f"a recipe must be a function at the top level of a module or file, so that workers can "
            f"find it; got {function!r}. For variants, use Recipe.of(function, name=value)."
        )
    file = getattr(module, "__file__", None)
    if file and (module.__name__ == "__main__" or module.__name__.startswith(_STUDY_MODULE)):
        return f"{Path(file).resolve()}:{name}"
    return f"{module.__name__}:{name}"


def _load_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DesignError(f"cannot import '{name}': {error}.") from error


def imported_files() -> list[Path]:
    """The files that were imported by their path in this process."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_STUDY_MODULE)]
    return [Path(str(module.__file__)) for module in modules]


def import_file(path: Path) -> Any:
    """Imports a file by its path, once; the file's folder is importable while it loads."""
    path = path.resolve()
    main = sys.modules.get("__main__")
    if main is not None and Path(getattr(main, "__file__", None) or "").resolve() == path:
        return main
    name = f"{_STUDY_MODULE}{digest(str(path))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise DesignError(f"there is no file '{path}'.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(
            f"{path.name} raised {type(error).__name__} on import: {error}."
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
