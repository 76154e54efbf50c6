"""Remote store through fsspec: object storage, servers, mounted disks. The one file that imports fsspec.

    objects/ab/cdef…  records/ab/cdef…/<name>.json  damaged/  partial/     as in a folder

Object storage writes an object atomically. Elsewhere a file is written in `partial/` and then
moved, so a process killed at any moment leaves either the complete file or none. Leftovers in
`partial/` may be deleted while nothing trains.

There is no lock, since object storage has none. Results are safe without one: objects are named by their
content, and of two records of one name the later stands, which says the same. But two processes that train
the same study into one store at once do all its work twice.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

from bygones.core.errors import StoreError
from bygones.core.values import Digest
from bygones.store.base import AbstractStore, Damaged, Record, open_record, seal_record

_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}  # write whole objects


class RemoteStore(AbstractStore):
    """Objects and records under a URL, like `s3://bucket/study`. Any number may read and write at once.

    Credentials and endpoints are found by fsspec's file systems in their usual files and variables.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _opened(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the URL alone: a worker opens its own connection."""
        return RemoteStore, (self.url,)

    def put(self, content: bytes) -> Digest:
        digest = hashlib.sha256(content).hexdigest()
        path = self._object(digest)
        if not self._is_there(path):
            self._write(path, content)
        return digest

    def get(self, digest: Digest) -> bytes:
        path = self._object(digest)
        with self._sentences("read"):
            try:
                content = self._files.cat_file(path)
            except FileNotFoundError:
                raise Damaged(
                    f"{self._shown(path)}: the object is not there. Run the study again to make it."
                ) from None
        if hashlib.sha256(content).hexdigest() != digest:
            self._set_aside(path)
            raise Damaged(
                f"{self._shown(path)}: the content is not what was stored (its SHA-256 differs from its "
                f"name). It was moved to {self.url}/damaged; run the study again to make it anew."
            )
        return content

    def has(self, digest: Digest) -> bool:
        return self._is_there(self._object(digest))

    def write_record(self, address: Digest, name: str, record: Record) -> None:
        self._write(f"{self._record_folder(address)}/{name}.json", seal_record(record))

    def has_record(self, address: Digest, name: str) -> bool:
        return self._is_there(f"{self._record_folder(address)}/{name}.json")

    def records(self, address: Digest) -> dict[str, Record]:
        sound: dict[str, Record] = {}
        for path, content in sorted(self._contents(self._record_folder(address)).items()):
            record = open_record(content)
            if record is None:
                self._set_aside(path)
            else:
                sound[PurePosixPath(path).stem] = record
        return sound

    def _contents(self, folder: str) -> dict[str, bytes]:
        """Return all JSON files of a folder by path, fetched in one request to save round trips."""
        with self._sentences("read"):
            self._files.invalidate_cache()  # others write too
            try:
                names: list[str] = self._files.ls(folder, detail=False)
            except FileNotFoundError:
                return {}
            paths = [name for name in names if name.endswith(".json")]
            found: dict[str, Any] = {}
            if paths:
                found = self._files.cat(paths, on_error="return")
            for error in found.values():
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
        return {path: content for path, content in found.items() if isinstance(content, bytes)}

    def _is_there(self, path: str) -> bool:
        """Return whether a path exists; unlike fsspec's `exists`, a broken connection is an error."""
        with self._sentences("read"):
            self._files.invalidate_cache()
            try:
                self._files.info(path)
            except FileNotFoundError:
                return False
            return True

    def _write(self, path: str, content: bytes) -> None:
        with self._sentences("written"):
            if _WHOLE & _protocols(self._files):
                self._files.pipe_file(path, content)
                return
            partial = f"{self._root}/partial/{uuid.uuid4().hex}"
            for place in (partial, path):
                self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            try:
                self._files.pipe_file(partial, content)
                self._files.mv(partial, path)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(partial)
                raise

    def _set_aside(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        aside = f"{self._root}/damaged/{PurePosixPath(folder).name}{name}"
        with self._sentences("written"):
            try:
                if not _WHOLE & _protocols(self._files):
                    self._files.makedirs(f"{self._root}/damaged", exist_ok=True)
                self._files.mv(path, aside)
            except FileNotFoundError:
                pass  # another process has moved it

    @contextmanager
    def _sentences(self, done: str) -> Generator[None]:
        """Translate any error of a file system into a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise StoreError(
                f"{self.url}: the store cannot be {done}: {type(error).__name__}: "
                f"{lines[0].rstrip('.')}. What is finished stays in it; see that it can be reached, and run "
                f"again to go on."
            ) from error

    def _object(self, digest: Digest) -> str:
        return f"{self._root}/objects/{digest[:2]}/{digest[2:]}"

    def _record_folder(self, address: Digest) -> str:
        return f"{self._root}/records/{address[:2]}/{address[2:]}"

    def _shown(self, path: str) -> str:
        return self.url + path.removeprefix(self._root)


def _protocols(files: Any) -> set[str]:
    """Return the protocol names of a file system."""
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        import fsspec.core
    except ImportError as error:
        raise StoreError(
            f"a store at '{url}' needs fsspec, which cannot be imported ({error}). Install it with: "
            f"pip install 'bygones[remote]'"
        ) from error
    if not url.partition("://")[0] or not url.isprintable():
        raise StoreError(
            f"{url!r} is no place for a store. Expected a folder, or a URL like s3://bucket/study."
        )
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec's own sentence names the package
        raise StoreError(f"a store at '{url}' needs another package: {error}.") from error
    except ValueError as error:
        raise StoreError(
            f"'{url}' is no place for a store: {error}. Expected a folder, or a URL like s3://bucket/study."
        ) from error
    return files, root.rstrip("/")
