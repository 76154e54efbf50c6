"""Open files: give a forked process copies of the files that it holds open."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from bygones.attach.isolation.paths import descriptor_path, is_inside, rebase_path


class _Open(NamedTuple):
    """A regular file that this process holds open."""

    fd: int
    path: str
    flags: int
    offset: int
    identity: tuple[int, int]
    linked: bool  # whether it still has a name

    @property
    def written(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    def take(self, source: int | str) -> None:
        """Replace the file under this descriptor: by a path, or by a duplicate of another descriptor."""
        inheritable = os.get_inheritable(self.fd)
        if isinstance(source, int):
            os.dup2(source, self.fd, inheritable)
            return
        new = os.open(source, self.flags)
        os.lseek(new, self.offset, os.SEEK_SET)
        os.dup2(new, self.fd, inheritable)
        os.close(new)


def detach_files(top: str, prepare: Callable[[str], None], folders: Mapping[str, str]) -> None:
    """Reopen the files that lie in `folders` in their copies; `prepare` copies one into the overlay `top`."""
    taken: dict[Any, int] = {}  # descriptors that share one offset (`2>&1`) go on sharing it
    copied: set[str] = set()
    for file in _open_files():
        old = next((folder for folder in folders if is_inside(file.path, folder)), None)
        if old is None or not file.linked:
            if not file.written:  # a file that is only read needs its own offset, not a copy
                with suppress(OSError):
                    file.take(file.path if sys.platform == "darwin" else f"/dev/fd/{file.fd}")
            continue
        copy = rebase_path(file.path, old, folders[old])
        if copy not in copied:
            copied.add(copy)
            if folders[old] == top:
                prepare(copy)
            else:
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                shutil.copy2(file.path, copy)
        key = (file.identity, file.flags, file.offset)
        file.take(taken.get(key, copy))
        if file.written:
            taken.setdefault(key, file.fd)


def _open_files() -> list[_Open]:
    files: list[_Open] = []
    for fd in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode):
                flags, offset = fcntl.fcntl(fd, fcntl.F_GETFL), os.lseek(fd, 0, os.SEEK_CUR)
                identity, linked = (found.st_dev, found.st_ino), found.st_nlink > 0
                files.append(_Open(fd, descriptor_path(fd), flags, offset, identity, linked))
    return files
