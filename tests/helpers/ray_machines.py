"""A Ray cluster of two machines, one of which is lost: python -m tests.helpers.ray_machines FOLDER

Prints the results of two jobs, of which each had begun on a machine of its own. For test_clusters.py,
in a process of its own, since a process has one session of Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from tests.helpers import executor_jobs as jobs

from bygones.study.executors import Ray

_MEMORY: dict[str, Any] = {"object_store_memory": 128 * 1024**2}


def main() -> None:
    folder = Path(sys.argv[1])
    head = {"num_cpus": 0, "include_dashboard": False, **_MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    machines = [cluster.add_node(num_cpus=1, **_MEMORY) for _ in range(2)]
    thief = threading.Thread(target=lose, args=(cluster, machines[0], folder))
    thief.start()
    results = Ray(cluster.address).map(jobs.outlive, [(str(folder), number) for number in range(2)])
    print(sorted(results))
    thief.join()
    cluster.shutdown()


def lose(cluster: Cluster, machine: object, folder: Path) -> None:
    """Takes a machine away once both have begun a job, with all its processes."""
    (raylet,) = machine.all_processes["raylet"]  # type: ignore[attr-defined]
    while len(begun := list(folder.iterdir())) < 2:
        time.sleep(0.05)
    cluster.remove_node(machine, allow_graceful=False)
    for name in begun:
        _, parent, worker = name.name.split()
        if int(parent) == raylet.process.pid:
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
    (folder / "lost").touch()


if __name__ == "__main__":
    main()
