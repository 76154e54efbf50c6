"""Progress bars: keep tqdm's monitor thread from starting, since a process with threads cannot be forked.

The thread only redraws a bar that has not been updated for ten seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MONITOR = "tqdm._monitor"


@contextmanager
def without_monitor() -> Iterator[None]:
    """Start every thread inside this context but tqdm's monitor, which tqdm then takes for a running one."""
    start = threading.Thread.start

    def start_unless_monitor(thread: Any) -> None:
        if type(thread).__module__ == _MONITOR:
            thread.join = lambda timeout=None: None  # called when Python exits
        else:
            start(thread)

    threading.Thread.start = start_unless_monitor  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
