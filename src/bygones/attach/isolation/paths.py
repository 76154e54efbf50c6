"""Paths: resolve and rebase the paths that a script uses in an overlay."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

_readlink = os.readlink  # the plain one


def descriptor_path(fd: int) -> str:
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{fd}")


def free_folders(allowed: Iterable[Path]) -> dict[str, str]:
    cache = os.path.expanduser("~/.cache")
    caches = (cache, os.environ.get("XDG_CACHE_HOME") or cache)
    folders = (*allowed, tempfile.gettempdir(), *caches, "/dev", "/proc")
    return {name(f): "free" for f in folders for name in (os.path.realpath, os.path.abspath)}


def resolve_path(path: str, follows: bool) -> str:
    """Resolve a path that is not redirected into the overlay."""
    folder, name = os.path.split(path)
    if follows and folder != "/dev":  # /dev/stdout is what it is told to be
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(folder), name)


def is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def rebase_path(path: str, old: str, new: str) -> str:
    """Move `path` from the folder `old` to the folder `new`."""
    return os.path.normpath(os.path.join(new, os.path.relpath(path, old)))


def link_target(link: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(link), _readlink(link)))
