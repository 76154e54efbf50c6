"""Transport: jobs, results and errors as bytes, to a worker and back."""

from __future__ import annotations

import pickle
import platform
import traceback
from collections.abc import Callable
from typing import Any

from bygones.core.errors import BygonesError, DesignError, WorkerError


def pack_job(function: Callable[[Any], Any], job: Any) -> bytes:
    """Pack a job as bytes, before any worker starts: raises at once where it cannot be pickled."""
    try:
        return pickle.dumps((function, job))
    except BygonesError:
        raise
    except Exception as error:
        raise DesignError(
            f"a job cannot be sent to a worker, since part of it cannot be pickled: {_line(error)}. Recipes, "
            f"probes and what is in their settings are defined at the top level of a module or a file."
        ) from error


def run_packed(parcel: bytes) -> bytes:
    """Run a packed job on the worker, and return its result, or the error that it raised, packed."""
    try:
        function, job = pickle.loads(parcel)
    except BygonesError as error:
        return _packed_error(error)
    except Exception as error:
        return _packed_error(
            WorkerError(
                f"a worker on {platform.node()} cannot unpack its job: {_line(error)}. Workers need the "
                f"packages and the files that are here, in the same places."
            )
        )
    try:
        return pickle.dumps((True, function(job)))
    except Exception as error:
        return _packed_error(error)


def unpack_result(outcome: bytes) -> Any:
    """Unpack a result; an error is raised again as it was raised on the worker."""
    succeeded, value = pickle.loads(outcome)
    if succeeded:
        return value
    raise value


def _packed_error(error: Exception) -> bytes:
    """Add the worker's traceback as a note: a traceback shows it, and the sentence does not."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps((False, error))
        pickle.loads(content)  # some errors are packed without complaint and cannot be unpacked
    except Exception:
        content = pickle.dumps((False, WorkerError(f"a job raised {_line(error)}.")))
    return content


def line_of(error: Exception, which: int = -1) -> str:
    """One line of an error's message, which may have many; its class's name if it has none.

    The last is where a traceback that came as text has its message.
    """
    lines = str(error).strip().splitlines()
    return lines[which].strip().rstrip(".") if lines else type(error).__name__


def _line(error: Exception) -> str:
    """Its class and the first line of its message."""
    name, line = type(error).__name__, line_of(error, 0)
    return name if line == name else f"{name}: {line}"
