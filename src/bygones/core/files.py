"""Writing files: whole, or not at all.

A file or a folder is made under another name beside its place and then renamed, which needs no room. So a
full disk, or a process that is killed at any moment, leaves what was there before. What a killed process left
beside is removed by the next one that writes there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bygones.core.errors import StoreError

_PREFIX = ".bygones-"
_LEFTOVER = re.compile(r"\.bygones-([0-9]+)@([^@]*)@.*")


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write a file, a text as UTF-8, and return its path. Raises StoreError where it cannot be written."""
    content = content.encode() if isinstance(content, str) else content
    with scratch_beside(path) as folder:
        replace_file(path, content, folder)
    return path


def replace_file(path: Path, content: bytes, folder: Path) -> None:
    """Write a file in `folder`, on the same disk, and rename it to `path`. Raises what the system raises."""
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(out: Path) -> Generator[Path]:
    """Yield a folder to fill. At the end its files take their places in `out`, beside other files there."""
    with scratch_beside(out) as folder:
        made = folder / "made"
        made.mkdir()
        yield made
        for path in sorted(made.rglob("*"), reverse=True):  # pages after the folders that they show
            if path.is_file():
                place = out / path.relative_to(made)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)


@contextmanager
def scratch_beside(out: Path) -> Generator[Path]:
    """Yield an empty folder on the disk of `out`, which is deleted in the end.

    Any error of the file system within the block becomes a StoreError that names `out`.
    """
    with sentences(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent)
        here = f"{_PREFIX}{os.getpid()}@{platform.node().replace('@', '-')[:60]}@"
        folder = Path(tempfile.mkdtemp(prefix=here, dir=out.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sentences(out: Path | str) -> Generator[None]:
    """Translate an error of the file system within the block into a StoreError that names a place."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(
            f"{out}: cannot be written: {why}. What was there before is as it was; make room, or choose "
            f"another place."
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what processes of this machine that are gone have left unfinished in a folder."""
    for path in folder.glob(f"{_PREFIX}*"):
        found = _LEFTOVER.fullmatch(path.name)
        if (
            found
            and found[2] == platform.node().replace("@", "-")[:60]
            and not _is_alive(int(found[1]))
        ):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    with suppress(PermissionError):  # another user's
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
