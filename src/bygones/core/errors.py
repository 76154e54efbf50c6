"""Every exception that bygones raises on purpose. Each carries the sentence that is printed.

A sentence says where, what was expected, what was found and what to try. The command line prints
it alone (`--debug` adds the traceback) and leaves with the exit code beside the class.
"""

from __future__ import annotations


class BygonesError(Exception):
    """Something went wrong that a person can mend; `str` of it is the sentence to show them."""

    exit_code = 1


class DesignError(BygonesError):
    """The study cannot mean anything as it is written. Found before a single step is trained."""

    exit_code = 2


class UnknownName(DesignError):
    """A name that is in no catalogue, with the nearest one that is."""


class RecipeError(BygonesError):
    """The recipe, its training step or a probe raised, or gave something that cannot be used."""

    exit_code = 3


class ForkError(BygonesError):
    """A restored run did not continue as the original did: some memory was not captured."""

    exit_code = 4


class ProbeError(BygonesError):
    """A probe changed the run that it was meant to observe."""

    exit_code = 5


class StoreError(BygonesError):
    """The store could not be read or written (damage, a full disk, another run at work)."""

    exit_code = 6


class WorkerError(BygonesError):
    """Workers died more often than bad luck explains, cannot be reached, or lack what a job needs."""

    exit_code = 7


class OutOfMemory(WorkerError):
    """A job does not fit into the memory of the device that it was given to."""


class ScriptError(BygonesError):
    """A training script ended, raised, or did something that keeps it from being studied."""

    exit_code = 8


class LedgerError(BygonesError):
    """A ledger or a bundle is not what was written, or two of them cannot be compared."""

    exit_code = 9


class BundleError(LedgerError):
    """A bundle is not what was written, cannot be read safely, or does not run again as it says."""


class Unexpected(BygonesError):
    """bygones itself went wrong inside somebody else's program; `place` is the traceback there."""

    exit_code = 70

    def __init__(self, sentence: str, place: str) -> None:
        super().__init__(sentence, place)
        self.place = place

    def __str__(self) -> str:
        return self.args[0]
