"""Executors: WHERE jobs run."""

from bygones.catalogue import Catalogue
from bygones.executors.base import AbstractExecutor
from bygones.executors.processes import Processes
from bygones.executors.serial import Serial

EXECUTORS: Catalogue[type[AbstractExecutor]] = Catalogue(
    "executor", {"serial": Serial, "processes": Processes}
)

__all__ = ["EXECUTORS", "AbstractExecutor", "Processes", "Serial"]
