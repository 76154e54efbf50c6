"""The numeric contract: under which conditions bits can be expected to agree."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata

import numpy as np
import torch

from bygones.core.code_digest import package_digest
from bygones.core.digest import digest
from bygones.core.values import Digest
from bygones.training.devices import check_device, describe_device, deterministic_arithmetic


@dataclass(frozen=True)
class Contract:
    """Everything outside the run that can change its bits. All arms of a study share one.

    Bits differ between thread counts, lanes and single runs, vector widths, library versions and
    machines; so arms that were trained under different contracts are never paired, and never share an
    address in the store.
    """

    device: str = "cpu"
    threads: int = 1
    lanes: int = 1  # seeds that take their steps together; see bygones.training.lanes
    deterministic: bool = True
    cpu: str = ""
    gpu: str = ""
    machine: str = ""
    torch: str = ""
    numpy: str = ""
    python: str = ""
    bygones: str = ""

    @staticmethod
    def here(lanes: int = 1, device: str = "cpu") -> Contract:
        """One thread, deterministic algorithms, and the versions of this process."""
        device = check_device(device)
        return Contract(
            device=device,
            lanes=lanes,
            cpu=torch.backends.cpu.get_cpu_capability(),
            gpu=describe_device(device),
            machine=platform.machine(),
            torch=torch.__version__,
            numpy=np.__version__,
            python=platform.python_version(),
            bygones=f"{metadata.version('bygones')} ({package_digest()[:12]})",
        )

    def digest(self) -> Digest:
        return digest(self)

    def to_dict(self) -> dict[str, str | int | bool]:
        return asdict(self)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Puts the process under the contract, and gives it back as it was."""
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        try:
            with deterministic_arithmetic(self.device):
                yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
