"""What a script has taken from its own process that bygones, which runs there too, cannot do without."""

from __future__ import annotations

import builtins
import errno
import gc
import os
import sys

from bygones.core.text import join_names

_OF_OS = ("fork", "pipe", "write", "read", "waitpid", "getpid", "open", "close", "dup2")
_OF_GC = ("get_objects", "get_referents", "freeze", "collect")
_OF_BUILTINS = tuple(name for name in vars(builtins) if not name.startswith("_"))
_BEFORE = {
    f"{module.__name__}.{name}": (module, name, getattr(module, name))
    for module, names in ((builtins, _OF_BUILTINS), (os, _OF_OS), (gc, _OF_GC))
    for name in names
}
_RECURSION_LIMIT = sys.getrecursionlimit()


def describe_tampering(error: BaseException) -> str:
    """Return what the script did that explains an error of bygones in its process; "" if nothing is known."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "has as many files open as the system allows, and leaves none for bygones"
    if isinstance(error, RecursionError) and sys.getrecursionlimit() < _RECURSION_LIMIT:
        return "has lowered the recursion limit below what bygones needs"
    gone = [
        name
        for name, (module, at, was) in _BEFORE.items()
        if _is_gone(was, getattr(module, at, None), module is os)
    ]
    if not gone:
        return ""
    return (
        f"has replaced or removed {join_names(gone, limit=3)}, which bygones needs in its process"
    )


def _is_gone(was: object, now: object, replaced_counts: bool) -> bool:
    """Test for a function that is missing, or, of `os`, replaced; what bygones itself redirects is not.

    Scripts replace `print` and the like as a matter of course: that explains no error.
    """
    if was is None or was is now or _is_ours(now):
        return False
    return replaced_counts or now is None


def _is_ours(thing: object) -> bool:
    modules = (getattr(thing, "__module__", None), type(thing).__module__)
    return any(str(module).startswith("bygones.") for module in modules)
