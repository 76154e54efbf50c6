"""Executors: WHERE jobs run. Packages of clusters are imported when one is used."""

from bygones.catalogue import Catalogue
from bygones.executors.base import AbstractExecutor
from bygones.executors.processes import Processes
from bygones.executors.ray import Ray
from bygones.executors.serial import Serial
from bygones.executors.slurm import Slurm

EXECUTORS: Catalogue[type[AbstractExecutor]] = Catalogue(
    "executor", {"serial": Serial, "processes": Processes, "ray": Ray, "slurm": Slurm}
)

__all__ = ["EXECUTORS", "AbstractExecutor", "Processes", "Ray", "Serial", "Slurm"]
