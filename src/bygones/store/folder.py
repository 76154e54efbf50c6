"""Folder store: objects and records as files on disk.

    objects/ab/cdef…                     bytes named by their SHA-256
    records/ab/cdef…/<name>.json         {"digest": …, "record": …}
    damaged/                             files that failed their check
    partial/                             files being written; renamed into place when complete
    lock                                 held by the one process that trains into this store

A file is written under another name and then renamed, so a process killed at any moment leaves either
the complete file or none. There is no fsync: after a power cut a file may be short, which its next read
detects.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bygones.core.errors import StoreError
from bygones.core.files import replace_file
from bygones.core.values import Digest
from bygones.store.base import AbstractStore, Damaged, Record, open_record, seal_record


class FolderStore(AbstractStore):
    """Objects and records as files. Several processes may read and write it at once."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __getstate__(self) -> dict[str, Path]:
        """Pickle an absolute path: a worker may have another working directory."""
        return {"folder": self.folder.absolute()}

    def put(self, content: bytes) -> Digest:
        digest = hashlib.sha256(content).hexdigest()
        path = self._object(digest)
        if not path.exists():
            self._write(path, content)
        return digest

    def get(self, digest: Digest) -> bytes:
        path = self._object(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise Damaged(
                f"{path}: the object is not there. Run the study again to make it."
            ) from None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
        if hashlib.sha256(content).hexdigest() != digest:
            self._set_aside(path)
            raise Damaged(
                f"{path}: the content is not what was stored (its SHA-256 differs from its name). It was "
                f"moved to {self.folder / 'damaged'}; run the study again to make it anew."
            )
        return content

    def has(self, digest: Digest) -> bool:
        return self._object(digest).exists()

    def write_record(self, address: Digest, name: str, record: Record) -> None:
        self._write(self._record_folder(address) / f"{name}.json", seal_record(record))

    def has_record(self, address: Digest, name: str) -> bool:
        return (self._record_folder(address) / f"{name}.json").exists()

    def records(self, address: Digest) -> dict[str, Record]:
        sound: dict[str, Record] = {}
        folder = self._record_folder(address)
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            record = open_record(path.read_bytes())
            if record is None:
                self._set_aside(path)
            else:
                sound[path.stem] = record
        return sound

    def __repr__(self) -> str:
        return f"FolderStore('{self.folder}')"

    def object_sizes(self) -> dict[Digest, int]:
        """Return the bytes of every object, by its digest."""
        files = (self.folder / "objects").glob("*/*")
        return {f"{path.parent.name}{path.name}": path.stat().st_size for path in files}

    def folder_size(self, name: str) -> int:
        """Return the bytes of all files in one part of the store, like `records`."""
        files = (self.folder / name).rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def addresses(self) -> list[Digest]:
        """Return every address that has records."""
        found = (self.folder / "records").glob("*/*")
        return sorted(f"{path.parent.name}{path.name}" for path in found)

    def delete(self, digest: Digest) -> int | None:
        """Delete an object, and return how many bytes that frees; None if there is no such object."""
        path = self._object(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be deleted: {error.strerror}.") from error
        _remove_if_empty(path.parent)
        return size

    def delete_record(self, address: Digest, name: str) -> None:
        """Delete a record, if it is there."""
        folder = self._record_folder(address)
        try:
            (folder / f"{name}.json").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror}.") from error
        _remove_if_empty(folder)
        _remove_if_empty(folder.parent)

    @contextmanager
    def training(self) -> Generator[None]:
        """Lock the store for one training process. Raises StoreError where another process holds it."""
        self._make(self.folder)
        lock = self._lock()
        try:
            for leftover in (self.folder / "partial").glob("*"):
                leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    def _lock(self) -> int:
        path = self.folder / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be opened: {error.strerror}. Choose another place for the store."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise StoreError(
                f"{self.folder}: another bygones (process {owner}) is training into this store. Wait "
                f"for it, or give this one a store of its own."
            ) from None
        with suppress(OSError):  # a disk that is full says so at the first object
            os.truncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        return lock

    def _object(self, digest: Digest) -> Path:
        return self.folder / "objects" / digest[:2] / digest[2:]

    def _record_folder(self, address: Digest) -> Path:
        return self.folder / "records" / address[:2] / address[2:]

    def _write(self, path: Path, content: bytes) -> None:
        partial = self.folder / "partial"
        self._make(partial)
        self._make(path.parent)
        try:
            replace_file(path, content, partial)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be written: {error.strerror}. What is finished stays in "
                f"{self.folder}; make room or choose another place for the store, and run again to go on."
            ) from error

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder}: cannot be made: {error.strerror}. Choose another place for the store."
            ) from error

    def _set_aside(self, path: Path) -> None:
        aside = self.folder / "damaged"
        self._make(aside)
        try:
            os.replace(path, aside / f"{path.parent.name}{path.name}")
        except OSError:
            path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # there is still something in it
        folder.rmdir()
