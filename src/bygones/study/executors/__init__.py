"""Executors: where jobs run. The packages of clusters are imported when one is used."""

from bygones.core.catalogue import Catalogue
from bygones.study.executors.base import AbstractExecutor
from bygones.study.executors.processes import Processes
from bygones.study.executors.ray import Ray
from bygones.study.executors.serial import Serial
from bygones.study.executors.slurm import Slurm

EXECUTORS: Catalogue[type[AbstractExecutor]] = Catalogue(
    "executor", {"serial": Serial, "processes": Processes, "ray": Ray, "slurm": Slurm}
)

__all__ = ["EXECUTORS", "AbstractExecutor", "Processes", "Ray", "Serial", "Slurm"]
