"""Bundle archives: files in a folder or in a zip, neither of which is trusted.

The zip is written in one way only: paths in order, no compression, no times, one kind of entry. So it can be
made again from its files, and a zip that is not the same to the last byte is refused. That leaves nothing to
hide in headers, between entries or behind the end, and an archive cannot unpack to more than its own size.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bygones.core.errors import BundleError, StoreError
from bygones.publish.bundle.layout import check_name, check_size

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can say
_FILE = stat.S_IFREG | 0o644
_PIECE = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
_BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def write_zip(folder: Path, path: Path) -> None:
    """Write every file of a folder into a new zip: the same files give the same bytes."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name in files_of(folder):
            archive.writestr(_entry(name), (folder / name).read_bytes())


def files_of(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, in order. Raises BundleError for links."""
    names = []
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as items:
            for item in items:
                name = Path(item.path).relative_to(folder).as_posix()
                if item.is_dir(follow_symlinks=False):
                    pending.append(Path(item.path))
                elif item.is_file(follow_symlinks=False):
                    names.append(check_name(name, name))
                else:
                    what = "a symbolic link" if item.is_symlink() else "no file"
                    raise BundleError(f"{name}: {what}; a bundle has files only.")
    return sorted(names)


@contextmanager
def open_bundle(path: Path) -> Iterator[Path]:
    """Open a bundle as a folder: itself, or a zip unpacked into a temporary one."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise BundleError(f"there is no bundle at '{path}'. Expected a folder or a zip.")
    with TemporaryDirectory(prefix="bygones-bundle-") as folder:
        unpack(path, Path(folder) / "bundle")
        _check_made_anew(path, Path(folder))
        yield Path(folder) / "bundle"


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, after checking all its entries."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, path)
            for entry in entries:
                _extract(archive, entry, folder, path)
    except OSError as error:
        if error.errno in _NO_ROOM:  # nothing is wrong with the archive
            raise StoreError(
                f"{path}: cannot be unpacked into {folder.parent}: {error.strerror}. Make room there, or set "
                f"TMPDIR to a folder that has some."
            ) from error
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except _BROKEN as error:
        raise BundleError(
            f"{path}: not a whole zip, or a damaged one ({error}). Expected a bundle as bygones writes it."
        ) from None


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = check_name(entry.filename, str(path))
        if entry.create_system != 3 or not stat.S_ISREG(entry.external_attr >> 16):
            what = "a symbolic link" if stat.S_ISLNK(entry.external_attr >> 16) else "no file"
            raise BundleError(f"{path}: {name} is {what}; a bundle has files only.")
        check_size(name, entry.file_size)
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BundleError(
                f"{path}: {name} is compressed, which bygones does not do. If you trust the archive, unpack "
                f"it yourself and verify the folder."
            )
        if name in seen:
            raise BundleError(f"{path}: {name} is in it twice.")
        seen.add(name)
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > size:
        raise BundleError(
            f"{path}: its entries claim {total:,} bytes, more than the archive's own {size:,}; it is refused."
        )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, path: Path) -> None:
    target = folder.joinpath(*entry.filename.split("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(entry) as source, target.open("xb") as out:
            shutil.copyfileobj(source, out, _PIECE)  # never more than the size that it says
    except zipfile.BadZipFile:
        raise BundleError(
            f"{path}: {entry.filename} is damaged (its checksum is another)."
        ) from None


def _check_made_anew(path: Path, folder: Path) -> None:
    again = folder / "again.zip"
    write_zip(folder / "bundle", again)
    place = 0
    with path.open("rb") as one, again.open("rb") as other:
        while True:
            mine, made = one.read(_PIECE), other.read(_PIECE)
            if mine != made:
                place += next(
                    (i for i, (a, b) in enumerate(zip(mine, made, strict=False)) if a != b),
                    min(len(mine), len(made)),
                )
                raise BundleError(
                    f"{path}: at byte {place} the archive is not as bygones writes it, though its files can "
                    f"be read. If another program packed it, unpack it yourself and verify the folder."
                )
            if not mine:
                break
            place += len(mine)
    again.unlink()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # the same on every system
    entry.external_attr = _FILE << 16
    return entry
