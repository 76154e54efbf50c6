"""Exceptions: every error that bygones raises on purpose, with the exit code of the command line.

The message of each is a sentence for the user: where it happened, what was expected, what was found
and what to try. The command line prints the message alone (`--debug` adds the traceback) and exits
with the class's `exit_code`.
"""

from __future__ import annotations


class BygonesError(Exception):
    """Base class of all errors that the user can do something about; `str` of it is the message."""

    exit_code = 1


class DesignError(BygonesError):
    """The study's design is invalid. Raised before anything is trained."""

    exit_code = 2


class UnknownName(DesignError):
    """A name is not in its catalogue; the message suggests the closest one that is."""


class RecipeError(BygonesError):
    """The recipe, its training step or a probe raised an exception or returned an unusable value."""

    exit_code = 3


class MissingExtra(RecipeError):
    """A built-in recipe needs a package that is not installed; the message has the command."""


class ForkError(BygonesError):
    """A restored run did not continue like the original: some state was not captured."""

    exit_code = 4


class TangentError(ForkError):
    """A derivative of a training step is not what a finite difference gives, so it predicts nothing."""


class ProbeError(BygonesError):
    """A probe changed the run that it observed, or returned an array of the wrong shape."""

    exit_code = 5


class StoreError(BygonesError):
    """The store cannot be read or written: damage, a full disk, or another process that holds it."""

    exit_code = 6


class WorkerError(BygonesError):
    """Workers died repeatedly, cannot be reached, or lack something that a job needs."""

    exit_code = 7


class OutOfMemory(WorkerError):
    """A job does not fit into the memory of its device."""


class ScriptError(BygonesError):
    """A training script ended early, raised, or does something that bygones cannot follow."""

    exit_code = 8


class LedgerError(BygonesError):
    """A ledger or bundle differs from what was written, or two ledgers cannot be compared."""

    exit_code = 9


class BundleError(LedgerError):
    """A bundle is damaged, unsafe to unpack, or its rerun does not give what the bundle states."""


class Unexpected(BygonesError):
    """An internal error of bygones in another process; `place` is the traceback from there."""

    exit_code = 70

    def __init__(self, sentence: str, place: str) -> None:
        super().__init__(sentence, place)
        self.place = place

    def __str__(self) -> str:
        return self.args[0]
