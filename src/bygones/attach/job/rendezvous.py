"""Rendezvous: the store at which the ranks of one job find each other.

A process beside the ranks keeps the store, as torchrun's agent does. It listens on a port of this machine
that the kernel chose and that no other job can have, and it ends with the job.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass

from bygones.attach.isolation.fork import Child, fork
from bygones.attach.job.rank import ADDRESS


@dataclass(frozen=True)
class Rendezvous:
    """A bound port. `serve` once the ranks are forked; each rank closes its copy of `listener`."""

    listener: socket.socket
    port: int

    @classmethod
    def open(cls) -> Rendezvous:
        listener = socket.create_server((ADDRESS, 0), backlog=1024)
        return cls(listener, listener.getsockname()[1])

    def serve(self) -> Child:
        """Start the process that keeps the store. It has threads, so it is not this one."""
        side = fork()
        if not isinstance(side, Child):
            _keep_store(self.listener, self.port)
        assert isinstance(side, Child)
        self.listener.close()
        return side


def _keep_store(listener: socket.socket, port: int) -> None:
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    store = TCPStore(
        ADDRESS, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    while store is not None:  # until it is killed
        signal.pause()
