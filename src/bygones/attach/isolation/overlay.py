"""File overlay (copy on write): each forked process sees all files and writes only copies of its own.

An overlay is a folder of links to the originals that becomes the working directory. Just before Python
writes through one of the links, the link is replaced by a copy (*copied up*): audit events say when.
Absolute paths under the original folder, and under the folder of the process that was forked, are
redirected into the overlay by wrapping `open` and the functions of `os` that take a path, reads included.
Writing to any other fixed path is refused, except under the folders in `allowed`, and under /dev, /proc,
caches and the folder for temporary files.

Limits. Not seen, so that an *existing* file is changed in the original: what C code writes without
`open` (HDF5, Arrow, torch.jit.save, dbm; torch.save and safetensors are guarded), what programs and
processes write that were started afresh (subprocess, "spawn"), files opened for writing relative to a
`dir_fd`, named pipes. A database of sqlite is copied up when it is connected to, but a connection, a
writable memory map and a temporary file (or one deleted while open) that were opened before a fork
stay shared by all twins. Entries of `os.scandir` say of themselves that they are links, and what
is beside the working directory is found by `../data`, not from `Path.cwd().parent`.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import functools
import io
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from bygones.attach.isolation.open_files import detach_files
from bygones.attach.isolation.paths import (
    descriptor_path,
    free_folders,
    is_inside,
    link_target,
    rebase_path,
    resolve_path,
)
from bygones.core.errors import ScriptError

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class FixedPathError(ScriptError, OSError):
    """The script writes to a path that all forked processes would share.

    Also an OSError, like that of a read-only disk, so that libraries that can do without the file go on.
    """


class _PathUse(NamedTuple):
    """Which arguments of an audit event are a written path and the folder that it is relative to."""

    path: int
    dir_fd: int | None = None
    follows: bool = True  # whether a link at the path's end is followed
    refused: bool = True  # whether it must lie in the overlay


_EVENTS: dict[str, tuple[_PathUse, ...]] = {
    "open": (),
    "os.chdir": (_PathUse(0, refused=False),),
    "os.chflags": (_PathUse(0),),
    "os.chmod": (_PathUse(0, 2),),
    "os.chown": (_PathUse(0, 3),),
    "os.link": (_PathUse(0, 2), _PathUse(1, 3, follows=False)),
    "os.mkdir": (_PathUse(0, 2, follows=False),),
    "os.remove": (_PathUse(0, 1, follows=False),),
    "os.removexattr": (_PathUse(0),),
    "os.rename": (_PathUse(0, 2, follows=False), _PathUse(1, 3, follows=False)),
    "os.rmdir": (_PathUse(0, 1, follows=False),),
    "os.setxattr": (_PathUse(0),),
    "os.symlink": (_PathUse(1, 2, follows=False),),
    "os.truncate": (_PathUse(0),),
    "os.utime": (_PathUse(0, 3),),
    "shutil.rmtree": (_PathUse(0, 1, follows=False),),
    "sqlite3.connect": (_PathUse(0, refused=False),),
}
# Calls that do not enter linked folders, and when: these folders are made real first.
_WALKS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "os.fwalk": lambda args: not args[3],
    "os.walk": lambda args: not args[3],  # it follows links
    "pathlib.Path.glob": lambda args: "**" in str(args[1]),
    "pathlib.Path.rglob": lambda args: True,
    "pathlib.Path.walk": lambda args: True,
    "shutil.rmtree": lambda args: True,
}
_HEARD = frozenset({*_EVENTS, *_WALKS})
_overlay: Overlay | None = None  # the overlay of this process
_installed = False
_lock = threading.RLock()
_open = io.open
_writers: weakref.WeakSet[Any] = weakref.WeakSet()  # open files with buffers to flush
_thread = (
    threading.local()
)  # .busy: the overlay uses the file system itself, so nothing is redirected


class Overlay:
    """Overlay `upper` over the folder `lower`: reads see both, writes go to `upper`.

    `upper` may be new, or hold what an earlier process wrote. `allowed`: folders that may be written
    directly. Of nested folders the innermost decides: a store may lie in `lower`, and `lower` in the
    folder for temporary files.
    """

    def __init__(
        self, lower: Path, upper: Path, allowed: Iterable[Path] = (), below: Overlay | None = None
    ) -> None:
        self.lower, self.upper, self.allowed = lower, upper, tuple(allowed)
        self._top = os.path.realpath(upper)
        self._root: str = below._root if below else os.path.realpath(lower)
        own = {self._top: "own"}
        shown = {os.path.realpath(lower): "lower", os.path.abspath(lower): "lower"}
        deeper = {f: "lower" for f, kind in below._rules.items() if kind != "free"} if below else {}
        rules = {**free_folders(self.allowed), **deeper, **shown, **own}
        self._rules = dict(sorted(rules.items(), key=lambda rule: -len(rule[0])))

    def enter(self) -> None:
        """Make the overlay the working directory, and redirect writes from now on."""
        global _overlay
        with _at_work():
            os.makedirs(self._top, exist_ok=True)
            self._fill(self._top, os.path.realpath(self.lower))
            os.chdir(self._top)
        _install()
        _overlay = self

    def translate(self, path: Any) -> Any:
        """Return the path in this overlay of what the script calls `path`; often the same."""
        if isinstance(path, bytes):
            return os.fsencode(self.translate(os.fsdecode(path)))
        if not isinstance(path, str | os.PathLike):
            return path
        name = os.fsdecode(path)
        if os.path.isabs(name):
            whole = os.path.normpath(name)
            kind, folder = self._rule(whole)
            if ".." in name and is_inside(name, self._top):
                return whole if kind == "own" else rebase_path(whole, self._top, self._root)
            return rebase_path(whole, folder, self._top) if kind == "lower" else path
        if ".." not in name.split("/") or self._rule(here := os.getcwd())[0] != "own":
            return path
        whole = os.path.normpath(os.path.join(here, name))
        if is_inside(whole, self._top):
            return os.path.normpath(name)
        return os.path.normpath(rebase_path(whole, self._top, self._root))

    def copy_up(
        self, path: Any, dir_fd: int = -1, follows: bool = True, refused: bool = True, **how: bool
    ) -> None:
        """Copy `path` into the overlay before it is written. Raises `FixedPathError` if it lies elsewhere."""
        if not isinstance(path, str | bytes | os.PathLike):
            return  # an open file, copied up when it was opened
        with _at_work():
            folder = os.getcwd() if dir_fd < 0 else descriptor_path(dir_fd)
            whole = os.path.join(folder, os.fsdecode(path))
            if "__pycache__" in whole.split("/"):
                return
            if not is_inside(os.path.normpath(whole), self._top):
                whole = resolve_path(whole, follows)
            if is_inside(os.path.normpath(whole), self._top):
                with self._alone():
                    self._own(whole, follows, **how)
            elif refused and self._rule(whole)[0] != "free":
                self._refuse(whole)

    def materialize(self, path: Any) -> None:
        """Replace linked folders below `path` by real ones, for walks that do not follow links."""
        with _at_work(), self._alone():
            self._spread(os.path.realpath(self.translate(path)))

    def stat_path(self, path: Any) -> Any:
        """Return the path to stat: the original in place of a link of the overlay."""
        path = self.translate(path)
        return self._stands_for(path) or path if isinstance(path, str | os.PathLike) else path

    def _stands_for(self, path: str | os.PathLike[str]) -> str | None:
        try:
            target = link_target(os.fspath(path))
        except (OSError, ValueError):
            return None  # no link
        return target if self._rule(target)[0] == "lower" else None

    def _rule(self, path: str) -> tuple[str, str]:
        """Return the rule for a path ("own", "lower", "free" or none) and the folder that it comes from."""
        return next(((k, f) for f, k in self._rules.items() if is_inside(path, f)), ("", ""))

    def _refuse(self, path: str) -> None:
        error = FixedPathError(
            f"{path}: the script writes this fixed path, which all twins of the run would share. "
            f"Expected was a path inside the working directory ({self._root}), of which each twin has "
            f"its own. Try a path relative to the working directory; if it need only differ by seed, "
            f"put {{seed}} into the script's arguments."
        )
        error.errno = errno.EROFS
        raise error

    def _own(self, path: str, follows: bool, emptied: bool = False, depth: int = 0) -> None:
        """Replace every link on the way to `path` by a folder or file of the overlay."""
        here = self._top
        path = path if is_inside(path, here) else os.path.normpath(path)
        steps = [step for step in path[len(here) :].split("/") if step]
        for place, step in enumerate(steps, start=1):
            here = os.path.normpath(os.path.join(here, step))
            if not os.path.islink(here):
                continue
            target, last = link_target(here), place == len(steps)
            kind, _ = self._rule(target)
            if kind == "free" or (last and not follows and kind != "lower"):
                return
            if kind == "own":  # a link of the script's
                if depth < 40:
                    self._own(os.path.join(target, *steps[place:]), follows, emptied, depth + 1)
                return
            if os.path.isdir(target):
                self._unfold(here)
            elif last and follows:
                self._copy(here, emptied)

    def _fill(self, folder: str, source: str) -> None:
        for entry in os.scandir(source):
            if self._rules.get(entry.path) != "own":  # the overlay may lie in what it shows
                with suppress(FileExistsError):  # an overlay that was left and is entered again
                    os.symlink(self._link_to(entry.path), os.path.join(folder, entry.name))

    def _link_to(self, original: str) -> str:
        """Return the target of a link to `original`; the same target, if that is a link itself."""
        if not os.path.islink(original):
            return original
        target, written = link_target(original), os.readlink(original)
        kind, folder = self._rule(original)
        if kind != "lower" or self._rule(target) != (kind, folder):
            return target
        return rebase_path(target, folder, self._top) if os.path.isabs(written) else written

    def _unfold(self, link: str) -> None:
        aside, source = f"{link}.{os.getpid()}~", link_target(link)
        os.mkdir(aside)
        self._fill(aside, source)
        shutil.copystat(source, aside)
        os.unlink(link)
        os.rename(aside, link)

    def _copy(self, link: str, emptied: bool) -> None:
        aside, source = f"{link}.{os.getpid()}~", link_target(link)
        if os.path.isfile(source):
            copied = os.devnull if emptied and os.access(source, os.W_OK) else source
            shutil.copyfile(copied, aside)
            shutil.copystat(source, aside)
            os.replace(aside, link)
        elif not os.path.exists(source):
            os.unlink(link)  # or the file would be written at the link's target

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that keeps other processes of this overlay (a data loader's) from replacing links."""
        handle = os.open(self._top, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _spread(self, folder: str) -> None:
        if self._rule(folder)[0] != "own" or not os.path.isdir(folder):
            return
        for entry in list(os.scandir(folder)):
            if entry.is_dir() and self._stands_for(entry.path):
                self._unfold(entry.path)
            if not os.path.islink(entry.path):
                self._spread(entry.path)


def detach_overlay(upper: Path, also: Mapping[Path, Path] | None = None) -> None:
    """Give a newly forked process an overlay `upper` of its own, over its parent's.

    Open files are replaced by copies, with the same descriptors and offsets: those in the parent's overlay,
    and those in a folder of `also` (its output, say), which are copied to the folder it maps to. Call
    `flush_all` before the fork.
    """
    parent, here = _overlay, os.getcwd()
    assert parent is not None, "part: there is no overlay to part from; Overlay.enter comes first."
    with _at_work():
        own = Overlay(parent.upper, upper, parent.allowed, parent)
        pairs = {parent.upper: upper, **(also or {})}.items()
        folders = {os.path.realpath(old): os.path.realpath(new) for old, new in pairs}
    own.enter()
    os.chdir(own.translate(here))
    with _at_work():
        detach_files(own._top, own.copy_up, folders)


def flush_all() -> None:
    """Flush Python's open files, or each forked process would write what is buffered. Never raises.

    Covers the files opened since the overlay was entered: finding all others would cost more than a fork.
    """
    for file in (sys.stdout, sys.stderr, *_writers):
        with suppress(Exception):  # closed, detached, a pipe without a reader
            file.flush()


@functools.wraps(io.open)
def _opened(*args: Any, **kwargs: Any) -> Any:
    file = _open(*args, **kwargs)
    if file.writable():
        _writers.add(file)
    return file


@contextmanager
def guarding_native_writes() -> Iterator[None]:
    """Copy up the paths that torch and safetensors write without Python's `open`."""
    import safetensors.numpy
    import safetensors.torch
    import torch

    places = [(torch, "save", "f"), (torch.serialization, "save", "f")]
    places += [(m, "save_file", "filename") for m in (safetensors.torch, safetensors.numpy)]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, path in places:
        setattr(module, name, _WriteRedirect(getattr(module, name), None, path))
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


class _PathRedirect:
    """A wrapped function whose path arguments are redirected into the overlay.

    Not itself a function, as `open` is not: as a class attribute it must not become a method.
    """

    def __init__(self, function: Callable[..., Any], *names: str | None) -> None:
        functools.update_wrapper(self, function)
        self._function, self._names = function, names

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _overlay is not None and not _busy() and kwargs.get("dir_fd") is None:
            led = [self._lead(a) if n else a for a, n in zip(args, self._names, strict=False)]
            args = (*led, *args[len(led) :])
            kwargs = {n: self._lead(a) if n in self._names else a for n, a in kwargs.items()}
        return self._function(*args, **kwargs)

    def _lead(self, path: Any) -> Any:
        return _overlay.translate(path) if _overlay else path


class _StatRedirect(_PathRedirect):
    def _lead(self, path: Any) -> Any:
        return _overlay.stat_path(path) if _overlay else path


class _NameRedirect(_PathRedirect):
    def _lead(self, path: Any) -> Any:
        return path if os.path.isabs(path) else super()._lead(path)


class _WriteRedirect(_PathRedirect):
    def _lead(self, path: Any) -> Any:
        path = super()._lead(path)
        if _overlay:
            _overlay.copy_up(path, emptied=True)
        return path


_FUNCTIONS = (
    (_StatRedirect, ("path",), "stat lstat readlink"),
    (
        _PathRedirect,
        ("path",),
        "open mkdir remove unlink rmdir truncate chmod lchmod chown lchown utime",
    ),
    (_PathRedirect, ("path",), "chflags lchflags getxattr setxattr listxattr removexattr"),
    (_PathRedirect, ("path",), "listdir scandir statvfs access chdir"),
    (_PathRedirect, ("src", "dst"), "rename replace link"),
    (_PathRedirect, (None, "dst"), "symlink"),
)
_ABLE = (
    os.supports_dir_fd,
    os.supports_effective_ids,
    os.supports_fd,
    os.supports_follow_symlinks,
)


def _as_function(led: _PathRedirect) -> Callable[..., Any]:
    """Wrap a redirect in a function: torch's configuration modules accept no other callables."""

    @functools.wraps(led)
    def function(*args: Any, **kwargs: Any) -> Any:
        return led(*args, **kwargs)

    return function


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    builtins.open = io.open = _PathRedirect(_opened, "file")
    # Of `../data`; not every `realpath` goes through `abspath`.
    os.path.abspath = _as_function(_NameRedirect(os.path.abspath, "path"))
    os.path.realpath = _as_function(_NameRedirect(os.path.realpath, "filename"))
    for kind, paths, names in _FUNCTIONS:
        for name in names.split():
            function = getattr(os, name, None)
            if function is not None:
                setattr(os, name, led := kind(function, *paths))
                for able in _ABLE:
                    able.update({led} if function in able else ())
    os.register_at_fork(after_in_child=_new_lock)
    sys.addaudithook(_hear)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    overlay = _overlay
    if overlay is None or event not in _HEARD or _busy():
        return
    if event == "open":
        if args[2] & _WRITING:
            overlay.copy_up(args[0], emptied=bool(args[2] & os.O_TRUNC))
        return
    for use in _EVENTS.get(event, ()):
        dir_fd = -1 if use.dir_fd is None or args[use.dir_fd] is None else args[use.dir_fd]
        overlay.copy_up(args[use.path], dir_fd, use.follows, use.refused)
    if event in _WALKS and _WALKS[event](args):
        overlay.materialize(args[0])


@contextmanager
def _at_work() -> Iterator[None]:
    """Re-entrancy guard: redirection is off in this thread while the overlay itself uses the file system."""
    with _lock:
        before, _thread.busy = _busy(), True
        try:
            yield
        finally:
            _thread.busy = before


def _busy() -> bool:
    return getattr(_thread, "busy", False)


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()
