"""Numeric contract: device, threads, lanes, determinism and versions under which bits agree."""

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
    """The conditions outside a run that can change its bits. All arms of a study share one contract.

    Bits differ between thread counts, between lanes and single runs, and between vector widths, library
    versions and machines. So arms trained under different contracts are never paired, and never share
    an address in the store.
    """

    device: str = "cpu"
    threads: int = 1
    lanes: int = 1  # seeds batched into one step; see bygones.training.lanes
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
        """Build the contract of this process: one thread, deterministic algorithms, its versions.

        Raises `DesignError` if the device is not available.
        """
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
        """Hash all fields."""
        return digest(self)

    def to_dict(self) -> dict[str, str | int | bool]:
        """Return the fields as a dict."""
        return asdict(self)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Apply threads and determinism to this process, and restore its own settings afterwards."""
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
