"""Progress bars: keep threads that only redraw from starting, since a process with threads cannot be forked.

tqdm's monitor redraws a bar that has not been updated for ten seconds; rich's thread (and Lightning's, which
derives from it) redraws its bars a few times a second. The bars themselves are updated by the script.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REDRAW = ("tqdm._monitor", "rich.live")  # modules of these threads


@contextmanager
def without_redrawing() -> Iterator[None]:
    """Start every thread inside this context but those that only redraw, which then seem to be running."""
    start = threading.Thread.start

    def start_unless_redrawing(thread: Any) -> None:
        if any(kind.__module__ in _REDRAW for kind in type(thread).__mro__):
            thread.join = lambda timeout=None: None  # called when the bar or Python ends
        else:
            start(thread)

    threading.Thread.start = start_unless_redrawing  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
