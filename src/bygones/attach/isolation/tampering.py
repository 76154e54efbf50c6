"""What a script has taken from its own process that bygones, which runs there too, cannot do without."""

from __future__ import annotations

import builtins
import errno
import os

from bygones.core.text import join_names

_BEFORE = {
    f"{module.__name__}.{name}": (module, name, getattr(module, name))
    for module, names in (
        (builtins, [name for name in vars(builtins) if not name.startswith("_")]),
        (
            os,
            [
                "fork",
                "pipe",
                "write",
                "read",
                "waitpid",
                "getpid",
                "open",
                "close",
                "dup2",
            ],
        ),
    )
    for name in names
}


def describe_tampering(error: BaseException) -> str:
    """Return what the script did that explains an error of bygones in its process; "" if nothing is known."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "has as many files open as the system allows, and leaves none for bygones"
    if isinstance(error, RecursionError):
        return "has lowered the recursion limit below what bygones needs"
    gone = [
        name for name, (module, at, was) in _BEFORE.items() if getattr(module, at, None) is not was
    ]
    if not gone:
        return ""
    return (
        f"has replaced or removed {join_names(gone, limit=3)}, which bygones needs in its process"
    )
