"""Module buffers of the model, other than those of normalization layers."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bygones.core.values import Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, overwrite_all


class Buffers(AbstractSource):
    """All other buffers of the model, non-persistent ones included: queues, counters, masks.

    How long a buffer remembers depends on the model, so the lifetime is unbounded; to give another one,
    put the buffer into `Parts.others` as a `Memory`. A reset returns to the state as the recipe built it.
    """

    name = "buffers"
    origin: Origin = "auxiliary"

    def __init__(self, owners: dict[str, nn.Module], visibility: Visibility) -> None:
        self._owners = owners
        self.visibility = visibility
        self.baseline = self.capture()

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        owners: dict[str, nn.Module] = {}
        hidden = False
        for prefix, module in parts.model.named_modules():
            if isinstance(module, _NormBase):
                continue
            for key, _ in module.named_buffers(prefix, recurse=False):
                owners[key] = module
                hidden |= key.rpartition(".")[2] in module._non_persistent_buffers_set
        return cls(owners, "non-persistent" if hidden else "state_dict") if owners else None

    def _buffers(self) -> dict[str, Tensor]:
        """Look the buffers up anew: `self.count = self.count + 1` replaces the tensor."""
        return {
            key: module.get_buffer(key.rpartition(".")[2]) for key, module in self._owners.items()
        }

    def capture(self) -> State:
        return {name: clone_leaf(buffer) for name, buffer in self._buffers().items()}

    def restore(self, state: State) -> None:
        overwrite_all(self._buffers(), state, self.name)

    def fresh(self) -> State:
        return self.baseline

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
